"""What refits cost, as they are made now and as they were made at first, in one process.

At first a Gram matrix was summed in float64 block by block, factored in float64, and the factor inverted, so that a
refit was one product; what was remembered longest ago made room; and every sequence was walked by itself. Now
(least_squares.py, memory_bound.py) a refit is a triangular solve from a float32 factor, what a pass has used stays, and
all sequences pass a place together where its refits cannot be remembered.

    OMP_NUM_THREADS=1 python -m benchmarks.refits smollm2-135m --refit-memory 40

Prints Gram matrix, factor and refit of one MLP both ways with their errors against float64; what a calibration takes
beside its forward passes; and candidate tokens a second both ways, beside those of the plain model. Times are of the
processor, so that other work on the machine matters less.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.refits import EarlierMoments
from benchmarks.population.work import flops, generation
from self_pruner.memory.profile import PARTS
from self_pruner.tools.evaluate import sequences_together
from self_pruner.tools.evaluation.targets import DenseTargets
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.models.source import load, resolve
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import random_profile
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.compensation import Compensator
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.least_squares import factorise
from self_pruner.tools.pruning.moments import Moments
from self_pruner.tools.pruning.store import output_projection
from self_pruner.tools.text.sources import text_source
from self_pruner.tools.text.tokens import sequences

DAMPING = 0.01


class EarlierFactor:
    """The inverse of the factor and its product with the weight, for one product a refit."""

    def __init__(self, weight: Tensor, gram: Tensor) -> None:
        matrix = gram.double()
        matrix.diagonal().add_(DAMPING * float(matrix.diagonal().mean()))
        lower = torch.linalg.cholesky(matrix).float()
        self.inverse = torch.linalg.solve_triangular(lower, torch.eye(len(lower)), upper=False)
        self.projected = weight.float() @ lower
        self.nbytes = self.inverse.nbytes + self.projected.nbytes

    def refit(self, k: int) -> Tensor:
        return self.projected[:, :k] @ self.inverse[:k, :k]


class EarlierCompensator(Compensator):
    """Refits as they were made and remembered at first."""

    def __init__(self, memory: int) -> None:
        super().__init__("lstsq", memory)
        self.items: OrderedDict[Hashable, Any] = OrderedDict()
        self.used = 0

    def projection(
        self, place: Any, weight: Tensor, bias: Tensor | None, k: int, features: Any
    ) -> tuple[Tensor, Tensor | None]:
        def factor() -> EarlierFactor:
            self.factorisations += 1
            self.factored.add(place)
            return EarlierFactor(weight, features().gram)

        def refit() -> Tensor:
            self.refits += 1
            return self.kept(place, factor).refit(k).to(weight.dtype)

        return self.kept((place, k), refit), bias

    def kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key in self.items:
            self.items.move_to_end(key)
            return self.items[key]
        item = make()
        if item.nbytes <= self.memo.limit:
            self.items[key] = item
            self.used += item.nbytes
            while self.used > self.memo.limit:
                self.used -= self.items.popitem(last=False)[1].nbytes
        return item


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor, and what came out."""
    start = time.process_time()
    found = action()
    return time.process_time() - start, found


def arithmetic(elastic: ElasticModel, ids: Tensor) -> None:
    """Gram matrix, factor and refits of one MLP: seconds and errors against float64."""
    index = elastic.space.n_layers // 2
    output = output_projection(elastic.model.get_decoder().layers[index], "mlp")
    seen: list[Tensor] = []
    hook = output.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].flatten(0, -2)))
    with torch.no_grad():
        for row in ids:
            elastic.model(row[None])
    hook.remove()
    weight, channels = output.weight.detach(), output.in_features
    exact = torch.zeros(channels, channels, dtype=torch.float64)
    for rows in seen:
        exact.addmm_(rows.double().T, rows.double())
    grams: dict[str, Tensor] = {}
    ways: dict[str, Any] = {"then": EarlierMoments(channels), "now": Moments(channels, weight.device)}
    for name, moments in ways.items():

        def summed(moments: Any = moments) -> Tensor:
            for rows in seen:
                moments(output, (rows,))
            gram: Tensor = moments.gram()
            return gram

        seconds, grams[name] = timed(summed)
        wrong = (grams[name].double() - exact).norm() / exact.norm()
        print(f"Gram matrix of {channels} channels, {name}: {seconds:.2f} s, error {wrong:.1e}")
    damped = exact.clone()
    damped.diagonal().add_(DAMPING * float(damped.diagonal().mean()))
    whole = ((weight.double() @ damped) * weight.double()).sum().sqrt()
    seconds_then, then = timed(lambda: EarlierFactor(weight, grams["then"]))
    seconds_now, now = timed(lambda: factorise(grams["now"].clone, DAMPING))
    print(f"factor: then {seconds_then:.2f} s, now {seconds_now:.2f} s, ratio {seconds_then / seconds_now:.1f}")
    for share in (0.3, 0.5, 0.7, 0.9):
        k = int(share * channels)
        expected = torch.linalg.solve(damped[:k, :k], damped[:k] @ weight.double().T).T
        row = []
        for refit in (lambda k=k: then.refit(k), lambda k=k: now.refit(weight, k)):
            seconds, found = timed(refit)
            wrong = found.double() - expected
            row.append((seconds, float(((wrong @ damped[:k, :k]) * wrong).sum().sqrt() / whole)))
        (a, error_then), (b, error_now) = row
        print(
            f"refit to {share:.0%}: then {a:.3f} s, now {b:.3f} s, ratio {a / b:.1f}; "
            f"output error that rounding adds: then {error_then:.1e}, now {error_now:.1e} of the output"
        )


def evaluation(
    walk: PopulationWalk, profiles: list[Any], rows: int, stride: int, plain: float, name: str
) -> tuple[float, list[float]]:
    """Walk `profiles` over the first `rows` sequences; candidate tokens a second, and their KL on the first one."""
    made, spent = walk.elastic.compensator, [0.0]
    real = made.projection

    def counted(*arguments: Any) -> Any:
        seconds, found = timed(lambda: real(*arguments))
        spent[0] += seconds
        return found

    made.projection = counted  # type: ignore[assignment, method-assign]
    before = (made.factorisations, made.refits)
    seconds, found = timed(
        lambda: [walk.measure(profiles, range(at, min(at + stride, rows))) for at in range(0, rows, stride)]
    )
    made.projection = real  # type: ignore[method-assign]
    tokens, passes = len(profiles) * rows * walk.targets.length, -(-rows // stride)
    factored, places = made.factorisations - before[0], max(1, len(made.factored))
    print(
        f"{name}: {len(profiles)} candidates on {rows} sequences in {passes} passes: {tokens / seconds:.1f} tokens/s "
        f"({tokens / seconds / plain:.2f} of the plain model), {spent[0]:.1f} s of refits and "
        f"{seconds - spent[0]:.1f} s of forward passes; {factored} factorisations of {places} places "
        f"({factored / places / passes:.2f} a place and pass), {made.refits - before[1]} refits"
    )
    return tokens / seconds, [one.kl[0] for one in found[0]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=4096, help="of each candidate")
    parser.add_argument("--then-tokens", type=int, default=512, help="the same for refits as at first")
    parser.add_argument("--length", type=int, default=512, help="tokens a sequence")
    parser.add_argument("--calibration-tokens", type=int, default=8192)
    parser.add_argument("--refit-memory", type=int, default=1024, help="MiB")
    parser.add_argument("--related", action="store_true", help="offspring of one parent instead of unrelated ones")
    args = parser.parse_args()
    loaded = load(resolve(args.model), device="cpu", dtype=args.dtype)

    def text(part: Any, tokens: int) -> Tensor:
        return sequences(text_source("passages", part).documents, loaded.tokenizer, tokens // args.length, args.length)

    print(f"{args.model}, {args.dtype}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    ids = text("calibration", args.calibration_tokens)
    with torch.no_grad():
        loaded.model.get_decoder()(ids[:2])  # warm-up
        forward, _ = timed(lambda: [loaded.model.get_decoder()(rows) for rows in ids.split(2)])
    taken, calibration = timed(lambda: calibrate(loaded.model, ids, batch=2))
    print(f"calibration: {taken:.1f} s, its forward passes {forward:.1f} s, ratio {taken / forward:.2f}")
    bound = args.refit_memory << 20
    elastic = ElasticModel(loaded.model, calibration, refit_memory=bound)
    arithmetic(elastic, ids[:4])
    fitness = text("fitness", args.tokens)
    targets = DenseTargets.build(elastic, elastic.store, fitness)
    budget, rng = Budget.from_sparsity(elastic.space, 0.3), random.Random(0)
    profiles = [random_profile(budget, rng) for _ in range(args.candidates)]
    if args.related:
        profiles = generation(budget, profiles[:1], args.candidates, rng)
    with torch.no_grad():
        seconds, _ = timed(lambda: [loaded.model(rows) for rows in fitness[:4].split(2)])
    plain = min(4, len(fitness)) * args.length / seconds
    _, _, walked, _ = flops(elastic, profiles, args.length, {})
    dense = flops(elastic, [elastic.space.dense()], args.length, {})[0]
    floor = refit_operations(elastic, profiles) / (2 * walked * args.tokens)
    print(
        f"plain model: {plain:.1f} tokens/s; the candidates' own operations are {walked / dense / len(profiles):.2f} "
        f"of it a token, and the least for their refits {floor:.2f} of theirs"
    )
    walk = PopulationWalk(elastic, elastic.store, targets, fitness, prefix_memory=0)
    rows = len(fitness)
    now, kl = evaluation(walk, profiles, rows, sequences_together(elastic, profiles, rows), plain, "now")
    elastic.compensator = EarlierCompensator(bound)
    then, earlier = evaluation(walk, profiles, args.then_tokens // args.length, 1, plain, "then")
    change = max(abs(a - b) / b for a, b in zip(kl, earlier, strict=True))
    print(f"ratio: {now / then:.1f}; KL on the first sequence differs by at most {change:.1e} of itself")


def refit_operations(elastic: ElasticModel, profiles: list[Any]) -> float:
    """Operations of one factor a place and one product and solve a width."""
    hidden, total = elastic.model.config.hidden_size, 0.0
    for part in PARTS:
        n = elastic.channels(part, elastic.space.units(part))
        for index in range(elastic.space.n_layers):
            widths = {profile.widths(part)[index] for profile in profiles} - {elastic.space.units(part)}
            total += n**3 / 3 if widths else 0
            for k in (elastic.channels(part, width) for width in widths):
                total += 2 * hidden * (n - k) * k + min(hidden, n - k) * k**2
    return total


if __name__ == "__main__":
    main()
