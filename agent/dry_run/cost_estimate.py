"""What a run will cost in tokens, seconds, memory and disk, from its plan, the sizes of its model and one timing.

Seconds are rough, within a factor of about two: everything is counted in passes of text through the model, and what a
pass takes is timed (machine_speed.py). Tokens of text are at their most, those of the brain a guess. Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from self_pruner.agent.dry_run.machine_speed import Speed
from self_pruner.agent.dry_run.plan import Plan
from self_pruner.agent.prepare.placement import Placement
from self_pruner.agent.prepare.room import PREFIX_MEMORY
from self_pruner.agent.settings.settings import Settings
from self_pruner.tools.evaluation.first_order import PASS_COST
from self_pruner.tools.evaluation.fitness import TOP_K
from self_pruner.tools.evaluation.targets import HEAD_TOKENS
from self_pruner.tools.models.families import Geometry
from self_pruner.tools.profiles.budget import Budget

SHARED = 0.7  # of the layers' work in the search is left where candidates share it with siblings and parents
CALIBRATION, RECALIBRATION = 2, 4  # passes that their text takes: a Gram matrix takes as long as a pass
CALL, DECIDED = 40, 10  # tokens that the brain writes of a call of a few edits, and those of them that it decides
NUMBER = 2  # tokens of a number and its comma, where the brain writes whole vectors
DRAWN = 0.006  # seconds that one drawn token takes beside its pass: grammar, sampling, attention to the prompt
DISK = 1e8  # bytes a second, read or written


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the cost of a run depends on in its dense model."""

    shape: Geometry
    budget: Budget
    params: int  # embeddings and head included
    itemsize: int  # bytes of a weight
    calibration_tokens: int
    refit_memory: int  # bytes that remembered refits may take

    @property
    def kept(self) -> float:
        """Share of the decoder blocks' parameters that a candidate keeps."""
        return 1.0 - self.budget.sparsity

    @property
    def layer_params(self) -> int:
        """Parameters of a dense layer."""
        space = self.budget.space
        return space.prunable_params(space.dense()) // space.n_layers

    @property
    def pruned_bytes(self) -> int:
        """Bytes of the weights of a candidate."""
        return self.budget.target_params * self.itemsize

    @property
    def factor_bytes(self) -> int:
        """Bytes of the factors from which all refits are made, where memory holds all of them."""
        return 4 * self.shape.n_layers * sum(n * (n + self.shape.hidden) for n in self.shape.channels.values())


@dataclass(frozen=True, slots=True)
class Step:
    """One part of a run."""

    what: str
    tokens: int  # 0 where they say nothing
    seconds: float
    charged: bool = False  # whether the tokens count against --tokens
    searching: bool = False  # whether the seconds count against --minutes


@dataclass(frozen=True, slots=True)
class Bytes:
    """What takes so many bytes, and where."""

    what: str
    bytes: int
    where: Literal["memory", "device", "disk"]


def charged_tokens(steps: Sequence[Step]) -> int:
    """Tokens that count against --tokens: probed, evaluated, and computed by the brain."""
    return sum(step.tokens for step in steps if step.charged)


def total_seconds(settings: Settings, steps: Sequence[Step]) -> float:
    """Seconds of all steps, those of the search as far as --tokens and --minutes let it come."""
    search = limited = sum(step.seconds for step in steps if step.searching)
    if settings.tokens is not None:
        limited = min(limited, search * settings.tokens / max(charged_tokens(steps), 1))
    if settings.minutes is not None:
        limited = min(limited, 60 * settings.minutes)
    return sum(step.seconds for step in steps if not step.searching) + limited


def steps_of(settings: Settings, plan: Plan, sizes: Sizes, speed: Speed, prompt_tokens: int) -> list[Step]:
    """The parts of a run in their order; `prompt_tokens` are those of the brain's first prompt."""
    layers, kept = sizes.shape.n_layers, sizes.kept
    refitted = settings.compensation == "lstsq"
    again = refitted and settings.recalibrate

    def passed(tokens: float, share: float = 1.0) -> float:
        """Seconds of tokens through a share of all layers and the head."""
        return tokens * (share * layers * speed.layer + speed.head)

    per_operation = speed.layer / (2 * sizes.layer_params)  # of matrix products
    text = sizes.calibration_tokens
    steps = [
        Step("Loading the weights", 0, sizes.params * sizes.itemsize / DISK),
        Step("Calibration", text, CALIBRATION * passed(text)),
        Step("Dense targets", target_tokens(settings), passed(target_tokens(settings))),
    ]
    if before := plan.tokens_before(settings):
        # a probe shares with the dense model what lies before its place, half the layers on average
        steps.append(Step(f"Sensitivity probes of {plan.probes} places", before, passed(before, 0.5), charged=True))
    evaluated = sum(
        count * (tokens - before)
        for count, tokens, before in zip(plan.measured, settings.fidelity, (0, *settings.fidelity), strict=False)
    )
    what = f"Evaluations of {plan.evaluations} candidates, {plan.measured[-1]} of them in full"
    steps.append(Step(what, evaluated, passed(evaluated, SHARED * kept), charged=True, searching=True))
    if plan.slopes:
        tokens = plan.slopes * PASS_COST * settings.slope_tokens
        steps.append(Step(f"Slopes, {plan.slopes} times", tokens, passed(tokens, kept), charged=True, searching=True))
    if refitted:
        seconds = refit_operations(sizes, plan.evaluations) * per_operation
        steps.append(Step("Least-squares refits", 0, seconds, searching=True))
    if plan.turns and settings.reads:
        steps.append(_brain(settings, plan, sizes, speed, plan.turns * prompt_tokens))
    models = 2 + (plan.probes > 0) + again  # uniform and found, the closed form of the probes, found and recalibrated
    final = (settings.final_candidates + plan.initial_measured + again) * settings.final_tokens
    final += models * settings.reporting_tokens * len(settings.reporting_texts)
    steps.append(Step("Final choice and reported figures", final, passed(final, kept)))
    if again:
        refits = refit_operations(sizes, 1) * per_operation
        steps.append(Step("Recalibration", text, RECALIBRATION * passed(text) + refits))
    if plan.timings:  # the dense model and a candidate in turn, after a warm-up
        request = passed(settings.latency_batch * settings.latency_prompt) + settings.latency_decode * speed.step
        steps.append(Step("Latency", 0, 2 * plan.timings * (settings.latency_repeats + 1) * request))
    if settings.export:  # written, and read again by another process
        steps.append(Step("Export and verification", 0, 3 * sizes.pruned_bytes / DISK))
    return steps


def _brain(settings: Settings, plan: Plan, sizes: Sizes, speed: Speed, read: int) -> Step:
    """The turns of the brain, each of which computes as many tokens of its prompt as the first one has."""
    space = sizes.budget.space
    thought = settings.thought_limit(space.params(space.dense()))
    numbers = 2 * sizes.shape.n_layers * plan.vectors
    decided = plan.turns * (thought + DECIDED) + numbers / plan.together
    written = plan.replies * (thought + CALL) + NUMBER * numbers
    dense = sizes.shape.n_layers * speed.layer + speed.head
    seconds = read * dense + decided * (speed.step + plan.together * DRAWN)
    return Step(f"Brain, {plan.turns} turns", read + written, seconds, charged=True, searching=True)


def refit_operations(sizes: Sizes, widths: int) -> float:
    """Operations of refitting every place at so many widths; without room for all factors, each begins with its own."""
    operations = 0.0
    for part, n in sizes.shape.channels.items():
        factor, kept = n**3 / 3, sizes.kept * n
        refits = min(widths, sizes.budget.space.units(part) - 1)
        solve = sizes.shape.hidden * (2 * kept * (n - kept) + kept**2)  # a product and a triangular solve
        operations += refits * solve + factor * (1 if sizes.factor_bytes <= sizes.refit_memory else max(1, refits))
    return sizes.shape.n_layers * operations


def target_tokens(settings: Settings) -> int:
    """Tokens whose dense distributions are kept: of the fitness text and all reporting texts."""
    return settings.fitness_tokens + settings.reporting_tokens * len(settings.reporting_texts)


def bytes_of(
    settings: Settings, sizes: Sizes, placement: Placement, device: str, here: int, fetched: int
) -> list[Bytes]:
    """What a run holds in memory at its peak, and what it writes to disk. Bounds that it keeps to are taken as used up.

    Args:
        settings: of the run.
        sizes: of its model.
        placement: of its layers; where they are streamed, Gram matrices go to the disk one at a time too.
        device: what it computes on; on a CPU all is in one memory.
        here: bytes of this process, which has loaded the libraries and nothing else.
        fetched: bytes that it fetches first, and unpacks.
    """
    near: Literal["memory", "device"] = "memory" if device == "cpu" else "device"
    refitted = settings.compensation == "lstsq"
    targets = target_tokens(settings) * (8 * TOP_K + 12)
    working = 8 * sizes.calibration_tokens * sizes.shape.hidden  # states of a dense and a pruned model, float32
    working += sizes.shape.refit_bytes + 16 * HEAD_TOKENS * sizes.shape.vocab
    states = PREFIX_MEMORY if device == "cpu" else max(PREFIX_MEMORY, sizes.refit_memory // 2)
    lines = [
        Bytes("Python and libraries", here, "memory"),
        Bytes("Weights", placement.bytes, near),
        Bytes("Gram matrices", sizes.shape.gram_bytes // (sizes.shape.n_layers if placement.streamed else 1), "memory"),
        Bytes("Dense targets", targets, "memory"),
        Bytes("Remembered refits and hidden states", states + refitted * sizes.refit_memory, near),
        Bytes("Calibration states and one layer at work", working, near),
    ]
    if refitted and settings.recalibrate:
        outputs = sizes.shape.n_layers * sizes.shape.hidden * sum(sizes.shape.channels.values())
        lines.append(Bytes("Refits of the recalibration", int(sizes.kept * outputs) * sizes.itemsize, "memory"))
    if fetched:
        lines.append(Bytes("What is fetched", fetched, "disk"))
    lines.append(Bytes("Gram matrices and dense targets, in the cache", sizes.shape.gram_bytes + targets, "disk"))
    if settings.export:
        lines.append(Bytes("Pruned checkpoint", sizes.pruned_bytes, "disk"))
    return lines
