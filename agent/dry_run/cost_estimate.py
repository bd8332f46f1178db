"""What a run will cost in tokens and seconds, from its plan, its placement, the sizes of its model and one timing.

Seconds are rough, within a factor of about two: everything is counted in passes of text through the model, and what a
pass takes is timed (machine_speed.py). Where layers are streamed, a step takes at least as long as reading them as
often as it goes through them. Tokens of text are at their most, those of the brain a guess. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from self_pruner.agent.dry_run.machine_speed import Speed
from self_pruner.agent.dry_run.plan import Plan
from self_pruner.agent.prepare.bill import Sizes
from self_pruner.agent.prepare.placement import Placement
from self_pruner.agent.settings.settings import Settings
from self_pruner.tools.evaluation.first_order import PASS_COST
from self_pruner.tools.evaluation.workers.worker import threads_of
from self_pruner.tools.pruning.moments import GRAM_BLOCK

SHARED = 0.7  # of the layers' work in the search is left where candidates share it with siblings and parents
CALL, DECIDED = 40, 10  # tokens that the brain writes of a call of a few edits, and those of them that it decides
NUMBER = 2  # tokens of a number and its comma, where the brain writes whole vectors
DRAWN = 0.006  # seconds that one drawn token takes beside its pass: grammar, sampling, attention to the prompt


@dataclass(frozen=True, slots=True)
class Step:
    """One part of a run."""

    what: str
    tokens: int  # 0 where they say nothing
    seconds: float
    charged: bool = False  # whether the tokens count against --tokens
    searching: bool = False  # whether the seconds count against --minutes
    passes: int = 0  # how often it goes through all layers


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


@dataclass(frozen=True, slots=True)
class _Walks:
    """How often a population goes through the layers, and what remembers its refits."""

    settings: Settings
    placement: Placement
    workers: int

    @property
    def state(self) -> int:
        """Bytes of one hidden state of one sequence."""
        sizes = self.placement.sizes
        return self.settings.sequence_length * sizes.shape.hidden * sizes.itemsize

    def remembered(self, candidates: int) -> bool:
        """Whether memory holds the refits of so many candidates."""
        if self.settings.compensation != "lstsq":
            return True
        return candidates * self.placement.sizes.refit_bytes <= self.placement.refit_memory

    def share(self, tokens: int) -> int:
        """Sequences of so many tokens that one worker gets."""
        return math.ceil(self.settings.sequences(tokens) / self.workers)

    def count(self, candidates: int, tokens: int, states: int = 0) -> int:
        """Walks of a population over so many tokens, as tools/evaluate.py and the walk itself divide them; a worker's.

        Workers that get no sequence get some of the candidates.
        """
        sequences = self.share(tokens)
        alone = self.remembered(candidates) and not self.placement.machine.gpus
        together = self.placement.state_memory // (self.state * (1 + max(states, candidates)))
        return math.ceil(sequences / max(1, 1 if alone else min(together, sequences))) if sequences else 0

    def sensitivities(self) -> int:
        """Batches of one worker's sequences of sensitivities; each goes through the layers there and back."""
        together = max(1, self.placement.state_memory // (2 * self.placement.sizes.shape.n_layers * self.state))
        return math.ceil(self.share(self.settings.sensitivity_tokens) / together)


def steps_of(
    settings: Settings,
    plan: Plan,
    placement: Placement,
    speed: Speed,
    prompt_tokens: int,
) -> list[Step]:
    """The parts of a run in their order; `prompt_tokens` are those of the brain's first prompt.

    Workers share what is measured, and each makes the refits that it needs. On a CPU each has some of the threads that
    were timed.
    """
    workers, pace = crew(placement)
    sizes, walks = placement.sizes, _Walks(settings, placement, workers)
    layers, kept = sizes.shape.n_layers, sizes.kept
    refitted = settings.compensation == "lstsq"
    again = refitted and settings.recalibrate and placement.recalibrates

    def passed(tokens: float, share: float = 1.0) -> float:
        """Seconds of tokens through a share of all layers and the head."""
        return tokens * (share * layers * speed.layer + speed.head)

    def measured(tokens: float, share: float = 1.0) -> float:
        """The same by all workers."""
        return passed(tokens, share) / (workers * pace)

    text, targets = sizes.calibration_tokens, sizes.target_tokens
    fetched = (sizes.other_weights if placement.streamed else sizes.weights) * speed.read
    texts = len(settings.reporting_texts)
    steps = [
        Step("Loading the weights", 0, fetched),
        Step("Calibration", text, calibration_seconds(sizes, speed), passes=2),  # the second one to order the units
        Step("Dense targets", targets, passed(targets), passes=1 + texts),
    ]
    if before := plan.tokens_before(settings):
        # a probe shares with the dense model what lies before its place, half the layers on average
        count = walks.count(plan.probes, settings.probe_tokens, plan.probes) + walks.count(1, settings.fidelity[0])
        seconds = measured(before, 0.5) + factors(sizes, 1) * speed.operation / pace
        what = f"Sensitivity probes of {plan.probes} places"
        steps.append(Step(what, before, seconds, charged=True, passes=count * workers + (plan.probes > 0)))
    stages = list(zip(settings.fidelity, (0, *settings.fidelity), strict=False))
    evaluated = sum(count * (now - then) for count, (now, then) in zip(plan.measured, stages, strict=True))
    a_generation = math.ceil(plan.evaluations / plan.generations)
    walked = plan.generations * sum(walks.count(a_generation, now - then) for now, then in stages)
    what = f"Evaluations of {plan.evaluations} candidates, {plan.measured[-1]} of them in full"
    seconds = measured(evaluated, SHARED * kept)
    steps.append(Step(what, evaluated, seconds, charged=True, searching=True, passes=walked * workers))
    batches = plan.sensitivities * walks.sensitivities()
    if plan.sensitivities:
        tokens = plan.sensitivities * PASS_COST * settings.sensitivity_tokens
        seconds = measured(tokens, kept)
        what = f"Sensitivities, {plan.sensitivities} times"
        steps.append(Step(what, tokens, seconds, charged=True, searching=True, passes=2 * batches * workers))
    if refitted:
        operations = refit_operations(walks, plan, walked, batches)
        steps.append(Step("Least-squares refits", 0, operations * speed.operation / pace, searching=True))
    if plan.turns and settings.reads:
        steps.append(_brain(settings, plan, sizes, speed, plan.turns * prompt_tokens))
    models = 4 + (plan.probes > 0) + again  # three baselines and found, the closed form of the probes, recalibrated
    final = (settings.final_candidates + plan.initial_measured + again) * settings.final_tokens
    final += models * settings.reporting_tokens * texts
    here = again * (settings.final_tokens + settings.reporting_tokens * texts)  # by this process: the recalibrated one
    count = walks.count(settings.final_candidates + plan.initial_measured, settings.final_tokens)
    count += texts * walks.count(5, settings.reporting_tokens)
    count *= workers
    if again:
        alone = replace(walks, workers=1)
        count += alone.count(1, settings.final_tokens) + texts * alone.count(1, settings.reporting_tokens)
    seconds = measured(final - here, kept) + passed(here, kept)
    steps.append(Step("Final choice and reported figures", final, seconds, passes=count))
    if again:
        steps.append(Step("Recalibration", text, recalibration_seconds(sizes, speed), passes=1))
    if plan.timings:  # the dense model and a candidate in turn, after a warm-up
        request = passed(settings.latency_batch * settings.latency_prompt) + settings.latency_decode * speed.step
        steps.append(Step("Latency", 0, 2 * plan.timings * (settings.latency_repeats + 1) * request))
    if settings.export:  # written, and read again by another process
        steps.append(Step("Export and verification", 0, 3 * sizes.pruned_bytes * speed.read, passes=1))
    if placement.streamed:
        slowest = stream_seconds(placement, speed)
        return [replace(step, seconds=max(step.seconds, step.passes * slowest)) for step in steps]
    return [replace(step, passes=0) for step in steps]


def crew(placement: Placement) -> tuple[int, float]:
    """How many workers measure, and the speed of each as a share of this process's."""
    room = placement.workers[0] if placement.workers else None
    if room is None:
        return 1, 1.0
    threads = torch.get_num_threads()
    return room.workers, 1.0 if placement.machine.gpus else threads_of(threads, room.neighbours) / threads


def stream_seconds(placement: Placement, speed: Speed) -> float:
    """Seconds of reading all layers once: from the disk, or memory where that has room for the files, to the device."""
    sizes, memory = placement.sizes, placement.machine.memory
    layers = sizes.shape.n_layers * sizes.layer
    stored = layers * (sizes.to_fetch / sizes.params if sizes.to_fetch else sizes.itemsize)
    used = sum(line.bytes for line in placement.lines if line.where == memory.name)
    read = speed.again if used + stored < memory.free else speed.read
    return max(stored * read, layers * sizes.itemsize * speed.upload)


def _brain(settings: Settings, plan: Plan, sizes: Sizes, speed: Speed, read: int) -> Step:
    """The turns of the brain, each of which computes as many tokens of its prompt as the first one has."""
    space = sizes.budget.space
    thought = settings.thought_limit(space.dense_params)
    numbers = 2 * sizes.shape.n_layers * plan.vectors
    decided = plan.turns * (thought + DECIDED) + numbers / plan.together
    written = plan.replies * (thought + CALL) + NUMBER * numbers
    dense = sizes.shape.n_layers * speed.layer + speed.head
    larger = (sizes.brain_params or sizes.params) / sizes.params
    seconds = read * dense * larger + decided * (speed.step * larger + plan.together * DRAWN)
    passes = plan.turns + round(decided) if settings.brain == "self" else 0  # a prompt is read in one
    return Step(f"Brain, {plan.turns} turns", read + written, seconds, charged=True, searching=True, passes=passes)


def calibration_seconds(sizes: Sizes, speed: Speed) -> float:
    """Seconds of the text through all layers, without the head, and of its Gram matrices."""
    return sizes.calibration_tokens * (sizes.shape.n_layers * speed.layer + grams(sizes) * speed.operation)


def recalibration_seconds(sizes: Sizes, speed: Speed) -> float:
    """Seconds of the dense and the pruned model through all layers, of Gram matrices and errors, and of the refits.

    The pruned one goes through every output projection twice: at full width for its error, and refitted.
    """
    shape = sizes.shape
    kept = sizes.kept * shape.hidden * sum(shape.channels.values())  # weights of a layer's refits
    walked = shape.n_layers * (2 + kept / sizes.layer) * speed.layer
    summed = (grams(sizes) + 2 * shape.n_layers * kept) * speed.operation
    solved = factors(sizes, 1) + solves(sizes, 1, carried=True)
    return sizes.calibration_tokens * (walked + summed) + solved * speed.operation


def grams(sizes: Sizes) -> float:
    """Operations of adding a token to the Gram matrices of all places, of which half is computed, block by block."""
    return sizes.shape.n_layers * sum(n * (n + min(n, GRAM_BLOCK)) for n in sizes.shape.channels.values())


def factors(sizes: Sizes, times: float) -> float:
    """Operations of factoring the Gram matrices of all places so many times."""
    return sizes.shape.n_layers * times * sum(n**3 / 3 for n in sizes.shape.channels.values())


def solves(sizes: Sizes, times: float, *, carried: bool = False) -> float:
    """Operations of refitting all places to so many widths: a product and a triangular solve each.

    The solve is of the removed channels or of the outputs, whichever are fewer; with `carried` errors there are two, of
    all outputs.
    """
    total, hidden = 0.0, sizes.shape.hidden
    for part, n in sizes.shape.channels.items():
        kept = sizes.kept * n
        widths = times if carried else min(times, sizes.budget.space.units(part) - 1)
        solved = 2 * hidden if carried else min(hidden, n - kept)
        total += widths * (2 * hidden * kept * (n - kept) + solved * kept**2)
    return sizes.shape.n_layers * total


def refit_operations(walks: _Walks, plan: Plan, walked: int, sensitivity_batches: int) -> float:
    """Operations of all refits of a search.

    A place's factor is made once a pass that needs it: once in all where memory holds all factors, once a generation
    where it holds a generation's refits, and else in every walk, in which every width is then solved for again.
    Sensitivities need the factor on the way back, and on the way there where refits are not remembered.
    """
    sizes = walks.placement.sizes
    a_generation = math.ceil(plan.evaluations / plan.generations)
    if sizes.shape.gram_bytes <= walks.placement.refit_memory:
        return factors(sizes, 1) + solves(sizes, plan.evaluations)
    if walks.remembered(a_generation):
        return factors(sizes, plan.generations + sensitivity_batches) + solves(sizes, plan.evaluations)
    once = solves(sizes, a_generation)
    return factors(sizes, walked + 2 * sensitivity_batches) + walked * once + sensitivity_batches * solves(sizes, 1)
