"""What the population walk saves: four ways to evaluate the same offspring, side by side in one run.

(a) each candidate alone, with sliced weights; (b) each candidate alone as a full-size model whose removed channels are
masked, as pruning studies commonly simulate it; (c) the population walk as in a search, where the generation that the
parents come from was measured before and left its states; (c') the same walk without kept states. All share kernels,
batches, the head and the refits, which are made before the clock starts; they take turns on every sequence, so that a
busy machine slows all of them, and must agree on every score. The ratios are set against what the arithmetic of this
very population allows: (a) over (c) is sharing alone, (b) over (c) is sharing and smaller matrices; for (c) it is that
of a store that has room for every state. Ratios of processor time are printed beside those of the clock: where other
programs run, they are the ones to trust (with `--threads 1`, as waiting threads spin).

    python -m benchmarks.population.walk
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.population.work import agreement, flops, generation
from self_pruner.memory.profile import Part, Profile
from self_pruner.tools.evaluation.prefixes import PrefixStates
from self_pruner.tools.evaluation.sharing import WalkCounters, trie
from self_pruner.tools.evaluation.targets import DenseTargets
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.models.source import load, resolve
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import random_profile
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.store import OUTPUTS, ResidentLayers, branch, output_projection
from self_pruner.tools.text.sources import text_source
from self_pruner.tools.text.tokens import sequences

TOLERANCE = 1e-3  # nats a token that the four may differ by: float32 sums in another order


class MaskedModel:
    """The elastic model at full size: removed channels are computed and then meet zeros in the output projection.

    So pruning studies commonly simulate a pruned model.
    """

    def __init__(self, elastic: ElasticModel) -> None:
        """Everything but the blocks is the elastic model's own."""
        self._elastic = elastic
        self._masked: dict[Part, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        """Whatever is not said here, the elastic model says."""
        return getattr(self._elastic, name)

    def _weights(self, layer: nn.Module, index: int, part: Part, width: int) -> dict[str, Tensor]:
        """Full-size overrides, written over the same memory every time."""
        name = OUTPUTS[part]
        kept = self._elastic.block_weights(index, part, width)
        if not kept:
            return {}
        masked = self._masked.setdefault(part, torch.empty_like(output_projection(layer, part).weight))
        channels = kept[f"{name}.weight"].shape[1]
        masked[:, :channels].copy_(kept[f"{name}.weight"])
        masked[:, channels:].zero_()
        overrides = {f"{name}.weight": masked}
        if f"{name}.bias" in kept:
            overrides[f"{name}.bias"] = kept[f"{name}.bias"]
        return overrides

    def attention_block(
        self,
        layer: nn.Module,
        index: int,
        width: int,
        hidden: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """As `ElasticModel.attention_block`, with every head computed."""
        overrides = self._weights(layer, index, "attention", width)
        return hidden + branch(layer, "attention", overrides, hidden, position_embeddings, attention_mask)

    def mlp_block(self, layer: nn.Module, index: int, width: int, hidden: Tensor) -> Tensor:
        """As `ElasticModel.mlp_block`, with every channel computed."""
        return hidden + branch(layer, "mlp", self._weights(layer, index, "mlp", width), hidden)


@dataclass
class Way:
    """One way to evaluate a population, and what it took."""

    name: str
    evaluate: Callable[[range], list[tuple[float, float]]]  # KL and NLL of every candidate on one sequence
    seconds: list[float] = field(default_factory=list)  # by the clock, one a turn
    processor: list[float] = field(default_factory=list)  # of all threads of this process, one a turn
    kept: PrefixStates | None = None  # what it holds between turns
    peak: int = 0  # most bytes over what everybody holds between turns

    def turn(self, rows: range, device: torch.device) -> list[tuple[float, float]]:
        """Evaluate on `rows`, with the clock and the memory watched."""
        before = _watch_memory(device) - (self.kept.held_bytes if self.kept else 0)
        start, processor = time.perf_counter(), time.process_time()
        scores = self.evaluate(rows)
        self.seconds.append(time.perf_counter() - start)
        self.processor.append(time.process_time() - processor)
        self.peak = max(self.peak, _peak_memory(device) - before)
        return scores


def _watch_memory(device: torch.device) -> int:
    """Forget earlier peaks; bytes held now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak_memory(device: torch.device) -> int:
    """Most bytes held since `_watch_memory`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(field_name: str) -> int:
    """A memory figure of this process in bytes, from Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field_name}:"))


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--offspring", type=int, default=16)
    parser.add_argument("--parents", type=int, default=4)
    parser.add_argument("--sparsity", type=float, default=0.3)
    parser.add_argument("--tokens", type=int, default=2048, help="fitness tokens, a multiple of --length")
    parser.add_argument("--length", type=int, default=512, help="tokens a sequence")
    parser.add_argument(
        "--prefix-memory", type=int, default=512, help="MiB of kept states; a search has 1024 for twice the tokens"
    )
    parser.add_argument("--calibration-tokens", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, on the processor")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Run the benchmark and print its table."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    loaded = load(resolve(args.model), device=args.device, dtype=args.dtype)

    def text(part: Any, tokens: int) -> Tensor:
        documents = text_source("passages", part).documents
        return sequences(documents, loaded.tokenizer, tokens // args.length, args.length)

    calibration = calibrate(loaded.model, text("calibration", args.calibration_tokens))
    elastic = ElasticModel(loaded.model, calibration)
    store = ResidentLayers(elastic.model)
    input_ids = text("fitness", args.tokens)
    targets = DenseTargets.build(elastic, store, input_ids)
    budget = Budget.from_sparsity(elastic.space, args.sparsity)
    rng = random.Random(args.seed)
    earlier = generation(budget, [random_profile(budget, rng) for _ in range(args.parents)], args.offspring, rng)
    profiles = generation(budget, earlier[: args.parents], args.offspring, rng)  # of unrelated parents

    start = time.perf_counter()
    places = {(node.layer, node.part, node.width) for sublayer in trie(profiles) for node in sublayer}
    for layer, part, width in sorted(places):
        elastic.block_weights(layer, part, width)
    refit_seconds = time.perf_counter() - start

    def walk_of(model: Any, prefix_memory: int = 0) -> PopulationWalk:
        return PopulationWalk(model, store, targets, input_ids, prefix_memory=prefix_memory)

    walk, plain, sliced = walk_of(elastic, args.prefix_memory << 20), walk_of(elastic), walk_of(elastic)
    masked = walk_of(MaskedModel(elastic))
    ways = [
        Way("(a) each alone, sliced weights", lambda rows: [_alone(sliced, profile, rows) for profile in profiles]),
        Way("(b) each alone, masked full size", lambda rows: [_alone(masked, profile, rows) for profile in profiles]),
        Way("(c) population walk", lambda rows: _scores(walk, profiles, rows), kept=walk.prefixes),
        Way("(c') walk without kept states", lambda rows: _scores(plain, profiles, rows)),
    ]
    for row in range(len(input_ids)):
        _scores(walk, earlier, range(row, row + 1))
    walk.counters = WalkCounters()
    for way in ways:  # warm-up, on one candidate's worth
        _alone(masked if way.name.startswith("(b)") else sliced, profiles[0], range(1))
    worst = 0.0
    for row in range(len(input_ids)):
        shift = row % len(ways)  # who begins changes, so that no way always follows the same other
        found = {way.name: way.turn(range(row, row + 1), elastic.device) for way in ways[shift:] + ways[:shift]}
        for scores in zip(*found.values(), strict=True):
            worst = max(worst, *(max(values) - min(values) for values in zip(*scores, strict=True)))
        took = ", ".join(f"{_label(way)} {way.seconds[-1]:.1f} s" for way in ways)
        print(f"turn {row + 1} of {len(input_ids)}: {took}", flush=True)

    theory = flops(elastic, profiles, args.length, agreement(profiles, earlier))
    print(f"{args.model}, {args.dtype}, on {_machine(elastic.device)}, torch {torch.__version__}")
    print(
        f"{len(profiles)} offspring, one level switch from {args.parents} parents at {args.sparsity:.0%} sparsity, "
        f"{args.tokens} tokens each in sequences of {args.length}"
    )
    print(
        f"{len(places)} blocks made beforehand in {refit_seconds:.1f} s; largest disagreement {worst:.1e} nats a token"
    )
    _print(ways, len(profiles) * args.length, theory, walk.counters, elastic.device)
    if worst > TOLERANCE:
        raise SystemExit(f"the ways disagree by {worst:.2e} nats a token, more than {TOLERANCE}")


def _alone(walk: PopulationWalk, profile: Profile, rows: range) -> tuple[float, float]:
    return _scores(walk, [profile], rows)[0]


def _scores(walk: PopulationWalk, profiles: Sequence[Profile], rows: range) -> list[tuple[float, float]]:
    measured = walk.measure(profiles, rows)
    failed = [found.error for found in measured if found.error is not None]
    if failed:
        raise SystemExit(f"a candidate failed: {failed[0]}")
    return [(found.kl[0], found.nll[0]) for found in measured]


def _label(way: Way) -> str:
    return way.name.partition(" ")[0]


def _print(
    ways: Sequence[Way],
    tokens: int,
    theory: tuple[float, float, float, float],
    counters: WalkCounters,
    device: torch.device,
) -> None:
    print(f"{'':36}{'tokens/s':>10}{'seconds':>10}{'peak memory':>14}")
    for way in ways:
        rate = statistics.median(tokens / seconds for seconds in way.seconds)
        print(f"{way.name:36}{rate:10.0f}{sum(way.seconds):10.1f}{way.peak / 2**20:+10.0f} MiB")
    within, kept = (share / counters.alone for share in (counters.within, counters.kept))
    print(f"(c) saved of the blocks: {within:.1%} within the walk, {kept:.1%} more by kept states")
    print(f"{'':36}{'median':>10}{'lowest':>10}{'highest':>10}{'theory':>10}{'of theory':>11}")
    a, b, c, plain = ways
    alone, masked, walked, continued = theory
    pairs = [
        (c, a, alone / continued),
        (c, b, masked / continued),
        (plain, a, alone / walked),
        (plain, b, masked / walked),
    ]
    for clock in ("clock", "processor time") if device.type == "cpu" else ("clock",):
        for own, other, allowed in pairs:
            taken = [way.seconds if clock == "clock" else way.processor for way in (other, own)]
            paired = [theirs / ours for theirs, ours in zip(*taken, strict=True)]
            ratio, name = statistics.median(paired), f"{_label(own)} against {_label(other)}, {clock}"
            print(f"{name:36}{ratio:9.2f}x{min(paired):9.2f}x{max(paired):9.2f}x{allowed:9.2f}x{ratio / allowed:11.0%}")


if __name__ == "__main__":
    main()
