"""What a run will do, counted before it begins: generations, candidates, stages, turns of the brain.

Candidates and sensitivities are counted at their most: every generation is full, its better half reaches the next
stage, each finds another best candidate, and patience never ends the search. Turns of the brain are counted as if
none was in vain; one that is free makes a candidate a turn, and measures and records them all at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from self_pruner.agent.search.initial_population import all_profiles, is_probed, most_profiles
from self_pruner.agent.search.planning.quotas import quotas
from self_pruner.agent.settings.arms import Arm
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.profile import PARTS
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.profiles.budget import Budget


@dataclass(frozen=True, slots=True)
class Plan:
    """The counts of one run."""

    generations: int
    forms: int  # profiles of all closed forms, each measured at the first fidelity
    initial_measured: int  # closed forms, the best profile of each of which is measured at every fidelity
    initial: dict[str, int]  # who makes the first population, closed forms and remembered profiles left out
    probes: int  # places probed
    uniform: bool  # whether prompts quote the uniform profile, so that it is measured before the search
    measured: tuple[int, ...]  # candidates measured at each fidelity in the search
    sensitivities: int  # measurements of sensitivities
    turns: int  # of the brain
    replies: int  # of the brain in all turns
    vectors: int  # of those, replies that hold whole vectors
    together: int  # replies that it writes side by side, at the most
    timings: int  # latency measurements

    @property
    def evaluations(self) -> int:
        """Candidates that count as evaluated."""
        return self.measured[0]

    def tokens_before(self, settings: Settings) -> int:
        """Tokens charged before the first turn: of the probes and of the uniform profile."""
        return self.probes * settings.probe_tokens + self.uniform * settings.fidelity[0]

    def overspent(self, settings: Settings) -> str:
        """A sentence where limits are below what is measured in any case, the probes and closed forms; otherwise ""."""
        evaluations = self.forms - self.uniform
        first, last = settings.fidelity[0], settings.fidelity[-1]
        tokens = self.tokens_before(settings) + evaluations * first + self.initial_measured * (last - first)
        over = []
        if settings.tokens is not None and settings.tokens < tokens:
            over.append(f"up to {tokens:,} tokens (--tokens {settings.tokens})")
        if settings.evaluations < evaluations:
            over.append(f"up to {evaluations} evaluations (--evaluations {settings.evaluations})")
        said = "what a search starts with, the probes and the closed forms, is measured whatever its limits are"
        return f"{said}: {' and '.join(over)}" if over else ""


def plan_of(settings: Settings, arm: Arm, prompts: PromptSet, budget: Budget, remembered: int) -> Plan:
    """Count what a run does.

    Args:
        settings: of the run.
        arm: who decides.
        prompts: what the brain is shown and offered.
        budget: of the run; where it has so few profiles that all are measured, they all stand in the first population.
        remembered: profiles of earlier runs that a search starts with.
    """
    space, always = budget.space, len(arm.closed_forms)  # of each closed form the best goes on
    forms = max(sum(most_profiles(budget, name) for name in arm.closed_forms), len(all_profiles(budget)))
    seeds = forms + (remembered if arm.searches else 0)
    made = max(0, min(settings.initial if arm.initial else 0, settings.evaluations - seeds))
    initial = quotas([], arm.initial, made)
    measured = _stages(seeds + made, always, len(settings.fidelity))
    uniform = arm.asks_brain and "uniform" in arm.closed_forms
    measured[0] -= uniform
    shares = [initial.get("brain", 0)]  # of the brain, generation by generation
    free = 0  # turns of a brain that is asked for nothing in particular
    while arm.vary and measured[0] < settings.evaluations:
        made = min(settings.offspring, settings.evaluations - measured[0])
        if settings.autonomy == "free":
            free += made + len(measured) + 1
        asked = not arm.plans and settings.autonomy == "guided"
        shares.append(quotas([], arm.vary, made).get("brain", 0) if asked else 0)
        measured = [old + new for old, new in zip(measured, _stages(made, 0, len(measured)), strict=True)]
    generations = len(shares)
    guided = 1 if free else generations
    asked_for = settings.benchmarks if arm.survive == "brain" or (arm.plans and "time" in settings.planned) else 0
    closing = asked_for + guided if arm.survive == "brain" else 0
    plans = generations - 1 if arm.plans and settings.planned else 0
    sensitivities = 0
    if settings.sensitivities and arm.learns and generations > 1:
        sensitivities = 1 + (generations - 2) // settings.sensitivities
    return Plan(
        generations=generations,
        forms=forms,
        initial_measured=always,
        initial={proposer: count for proposer, count in initial.items() if count},
        probes=sum(space.n_layers for part in PARTS if space.units(part) > 1) if is_probed(arm, prompts) else 0,
        uniform=uniform,
        measured=tuple(measured),
        sensitivities=sensitivities,
        turns=plans + closing + free + sum(math.ceil(share / settings.samples) for share in shares),
        replies=plans + closing + free + sum(shares),
        vectors=shares[0] if "mutation-edits" in prompts.actions else sum(shares),
        together=max(1, min(settings.samples, max(shares))),
        timings=2 + asked_for if settings.benchmarks else 0,  # uniform and the found profile at the end
    )


def _stages(candidates: int, always: int, stages: int) -> list[int]:
    """Candidates measured at each stage: all, then the better half and the best of `always` closed forms, and so on."""
    counts = [candidates]
    for _ in range(stages - 1):
        counts.append(min(counts[-1], math.ceil(counts[-1] / 2) + always))
    return counts
