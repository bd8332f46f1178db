"""Walk: what a search of the giant costs a generation, on as many of its layers as there is time for.

Calibration, dense targets, the population walk over twelve offspring of the search's own operators, first-order
sensitivities: the product's own code on random weights. Rates stand beside the matrix product's peak, factorisations
are counted, the same offspring are measured one by one without sharing, and the dense model is compared with itself
under another batching, which is the noise that no candidate can be told apart in.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

import self_pruner.tools.evaluation.targets as batching
from benchmarks.gpu.device import Device, reason
from benchmarks.gpu.profiles import Shapes
from benchmarks.gpu.record import Deadline, Record, Row, rounded
from benchmarks.population.work import agreement, flops
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.first_order import first_order_sensitivities
from self_pruner.tools.evaluation.targets import DenseTargets
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.latency.shapes import random_model
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import crossover_range, mutate, random_profile
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel

OFFSPRING, PARENTS = 12, 4
SEQUENCES, LENGTH = 8, 512  # of the fitness text
CALIBRATION = 4, 2048  # sequences and their length
WARM = "walk again, refits known, no kept states"
SHARE = 0.7  # of the peak of a matrix product that such a walk is to reach
LARGE_BATCH = 8192  # positions that pass a block together, beside the product's own number


def run(record: Record, device: Device, shapes: Shapes, deadline: Deadline) -> None:
    """A few layers first, which are soon done; then sixteen, if what the few took says that there is time."""
    dtype = torch.float32 if shapes.toy else torch.bfloat16
    peak = device.matrix_peak(dtype)
    device.release()
    record.set(matrix_flops_per_second=rounded(peak), product_batch_tokens=batching.BATCH_TOKENS)
    for layers in (2, 3) if shapes.toy else (4, 16):
        took = record.content.get("seconds_a_layer", 0.0)
        if deadline.left() < 1.1 * layers * took:
            record.row(layers=layers, skipped=f"no time: {layers * took:.0f} s needed, {deadline.left():.0f} s left")
            continue
        seconds = device.seconds(lambda layers=layers: _Walk(record, device, shapes, layers, dtype, peak).run())  # type: ignore[misc]
        record.set(seconds_a_layer=rounded(seconds / layers))
        device.release()
    warm = [row["share_of_peak"] for row in record.content["rows"] if row.get("phase") == WARM]
    name = "share of the matrix product's peak of a walk whose refits are known"
    record.target(name, warm[-1] if warm else None, least=SHARE)


def offspring_of(budget: Budget, parents: Sequence[Profile], rng: random.Random) -> list[Profile]:
    """Distinct offspring as the search makes them: two mutations for a crossover, parents taken in turn."""
    children: dict[Profile, None] = {}
    while len(children) < OFFSPRING:
        first, second = (parents[(len(children) + more) % len(parents)] for more in (0, 1))
        child = first
        if len(children) % 3 == 2:
            begin, end = sorted(rng.choices(range(budget.space.n_layers), k=2))
            crossed = crossover_range(first, second, begin, end)
            child = budget.project(crossed.attention, crossed.mlp).profile
        if child == first or child in children:
            child = mutate(budget, child, rng, step=rng.choice((1, 2, 4)))
        children[child] = None
    return list(children)


class _Walk:
    """The phases on one number of layers."""

    def __init__(
        self, record: Record, device: Device, shapes: Shapes, layers: int, dtype: torch.dtype, peak: float
    ) -> None:
        self.record, self.device, self.layers, self.peak = record, device, layers, peak
        self.sequences, self.length = (2, 32) if shapes.toy else (SEQUENCES, LENGTH)
        rows, length = (2, 32) if shapes.toy else CALIBRATION
        config = shapes.giant
        sizes = [(config.num_key_value_heads, config.intermediate_size)] * layers
        self.model: Any = random_model(config, sizes, dtype=dtype, device=device.torch.type)
        for name, parameter in self.model.named_parameters():
            if "norm" in name:
                parameter.fill_(1.0)
        self.calibration_ids = self._tokens(rows, length, 1)
        self.ids = self._tokens(self.sequences, self.length, 2)
        self.mlp_unit = 8 if shapes.toy else 128

    def _tokens(self, rows: int, length: int, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(self.model.config.vocab_size, (rows, length), generator=generator).to(self.device.torch)

    def run(self) -> None:
        """All phases, each a row."""
        tokens = self.calibration_ids.numel()
        calibration = self._phase("calibration", tokens, lambda: calibrate(self.model, self.calibration_ids))
        free = self.device.free_bytes()
        bound = 1 << 30 if free is None else free // 2  # as in a run
        elastic = self._phase(
            "reordering",
            None,
            lambda: ElasticModel(self.model, calibration, mlp_unit=self.mlp_unit, refit_memory=bound),
        )
        store = elastic.store
        text = self.ids.numel()
        targets = self._phase("dense targets", text, lambda: DenseTargets.build(elastic, store, self.ids))
        rng = random.Random(0)
        budget = Budget.from_sparsity(elastic.space, 0.3)
        earlier = offspring_of(budget, [random_profile(budget, rng) for _ in range(PARENTS)], rng)
        offspring = offspring_of(budget, earlier[:PARENTS], rng)

        def walk_of(prefix_memory: int = 0) -> PopulationWalk:
            return PopulationWalk(elastic, store, targets, self.ids, prefix_memory=prefix_memory)

        everything = range(self.sequences)
        shared = walk_of(1 << 30)
        walks: tuple[tuple[str, list[Profile], list[Profile]], ...] = (
            ("walk of the parents' generation, refits made", earlier, []),
            ("walk of the offspring, new refits made", offspring, earlier),
        )
        for name, profiles, before in walks:
            self._counted(elastic, name, partial(shared.measure, profiles, everything), profiles, before)
        self._counted(elastic, WARM, lambda: walk_of().measure(offspring, everything), offspring)
        alone = walk_of()
        self._counted(
            elastic,
            "one by one, without sharing",
            lambda: [alone.measure([profile], everything) for profile in offspring],
            offspring,
            shares=False,
        )
        self._large_batches(elastic, walk_of, offspring, everything)
        best = offspring[0]
        self._counted(
            elastic,
            f"first-order sensitivities on {self.sequences} sequences",
            lambda: first_order_sensitivities(elastic, store, targets, best, everything),
        )
        self._noise(elastic, walk_of, everything)

    def _phase(self, name: str, tokens: int | None, action: Callable[[], Any]) -> Any:
        found: list[Any] = []
        self.device.forget_peak()
        seconds = self.device.seconds(lambda: found.append(action()))
        row: Row = {"layers": self.layers, "phase": name, "seconds_taken": rounded(seconds)}
        if tokens:
            row |= {"tokens": tokens, "tokens_per_second": rounded(tokens / seconds)}
        self.record.row(**row, peak_bytes=self.device.peak_bytes())
        return found[0]

    def _counted(
        self,
        elastic: ElasticModel,
        name: str,
        action: Callable[[], Any],
        profiles: Sequence[Profile] = (),
        earlier: Sequence[Profile] = (),
        *,
        shares: bool = True,
    ) -> None:
        """A phase with the factorisations it made, and for a walk the rate of candidates' tokens and of operations."""
        before = elastic.compensator.factorisations
        self.device.forget_peak()
        seconds = self.device.seconds(action)
        row: Row = {"layers": self.layers, "phase": name, "seconds_taken": rounded(seconds)}
        tokens = self.ids.numel() * max(1, len(profiles))
        row |= {"tokens": tokens, "tokens_per_second": rounded(tokens / seconds)}
        if profiles:
            starts = agreement(profiles, earlier) if earlier else {}
            alone, _, walked, continued = flops(elastic, profiles, self.length, starts)
            needed = (continued if earlier else walked) if shares else alone
            row["share_of_peak"] = rounded(2 * needed * self.ids.numel() / seconds / self.peak, 3)
        row["factorisations"] = elastic.compensator.factorisations - before
        self.record.row(**row, peak_bytes=self.device.peak_bytes())

    def _large_batches(
        self,
        elastic: ElasticModel,
        walk_of: Callable[[], PopulationWalk],
        offspring: Sequence[Profile],
        everything: range,
    ) -> None:
        """The same walk with more positions at a time: the product's number suits a processor's cache."""
        own = batching.BATCH_TOKENS
        batching.BATCH_TOKENS = LARGE_BATCH
        try:
            name = f"walk again, {LARGE_BATCH} positions at a time"
            self._counted(elastic, name, lambda: walk_of().measure(offspring, everything), offspring)
        finally:
            batching.BATCH_TOKENS = own

    def _noise(self, elastic: ElasticModel, walk_of: Callable[[], PopulationWalk], everything: range) -> None:
        """KL(dense || dense) where sequences pass the blocks one by one; the targets were made in larger batches."""
        dense = elastic.space.dense()
        try:
            measured = [walk_of().measure([dense], range(one, one + 1))[0] for one in everything]
            values = [score.kl[0] for score in measured]
        except RuntimeError as error:
            self.record.row(layers=self.layers, phase="noise", error=reason(error))
            return
        self.record.row(
            layers=self.layers,
            phase="KL(dense || dense), other batching",
            kl_mean=rounded(statistics.fmean(values)),
            kl_largest=rounded(max(values)),
            kl=[rounded(value) for value in values],
        )
