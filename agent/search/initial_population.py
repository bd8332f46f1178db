"""What a run starts with: sensitivity probes, the closed forms its arm begins with, and the best of earlier runs.

Where an arm begins with closed forms it never ends worse than they are, whoever decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from self_pruner.agent.search.planning.earlier_lessons import earlier_lessons
from self_pruner.agent.settings.arms import Arm, ClosedForm
from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.memory.records import Candidate, Proposer, Score, Sensitivities
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.evaluate import charge, measure
from self_pruner.tools.profiles import rules
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.profiles.sensitivity import Probe, attention_totals, closed_forms, cost_table
from self_pruner.tools.profiles.uniform_budget import UniformBudget
from self_pruner.tools.pruning.baselines import flap, owl
from self_pruner.tools.workbench import FITNESS, Progress, Workbench

PROBE_STEP = -1  # probes belong to no turn: a run that finds them in the memory is not charged for them
UNIFORM: Final = "uniform"
CLOSED_FORM: Final = "closed form"


def probe_width(units: int) -> int:
    """Units a probe keeps of a place that has `units`: two thirds, so that it costs enough to be measured."""
    return min(units - 1, math.ceil(2 * units / 3))


def is_probed(arm: Arm, prompts: PromptSet) -> bool:
    """Whether a run probes every place: its arm begins with or learns from probes, or its brain is shown places."""
    shown = prompts.hints or "mutation-edits" in prompts.actions
    return arm.probes or (arm.asks_brain and shown)


def with_costs(bench: Workbench, tokens: int, progress: Progress | None = None) -> Workbench:
    """The workbench with every place probed on `tokens` tokens, and the cost table that follows."""
    space = bench.budget.space
    places: list[tuple[int, Part]] = [
        (layer, part) for part in PARTS if space.units(part) > 1 for layer in range(space.n_layers)
    ]
    profiles = [space.dense().with_width(layer, part, probe_width(space.units(part))) for layer, part in places]
    measure(replace(bench, progress=progress), profiles, range(tokens // bench.sequence_length), PROBE_STEP)
    probes = []
    for (layer, part), profile in zip(places, profiles, strict=True):
        found = bench.fitness(profile, tokens)
        if found is None or found.kl is None:
            raise ToolError(f"the probe of layer {layer} {part} failed: {bench.failure(profile)}; try --dtype float32")
        probes.append(Probe(layer, part, profile.widths(part)[layer], found.kl))
    curves: dict[tuple[int, Part], list[float]] = {}
    for layer in range(space.n_layers):
        with bench.elastic.store.layer(layer):  # once for both parts
            curves |= {(layer, part): bench.elastic.residual(layer, part).tolist() for part in PARTS}
    return replace(bench, probes=tuple(probes), costs=cost_table(space, probes, curves))


def probe_uniform(bench: Workbench) -> None:
    """Measure the uniform profile at the first fidelity: the prompts quote it from the first turn on."""
    measure(bench, [uniform(bench.budget)], range(bench.fidelity[0] // bench.sequence_length), PROBE_STEP)


def probed(bench: Workbench) -> list[Profile]:
    """The profiles that the probes measured."""
    dense = bench.budget.space.dense()
    return [dense.with_width(probe.layer, probe.part, probe.width) for probe in bench.probes]


def spent_on_probes(bench: Workbench) -> int:
    """Tokens that this run has measured before its first turn."""
    return charge(bench, [*probed(bench), uniform(bench.budget)], PROBE_STEP)


def closed_form_profiles(bench: Workbench, name: ClosedForm) -> dict[Profile, str]:
    """The profiles of the closed form of that name on the budget, each with what it is in words.

    Those of one closed form are tried beside each other: the best of them is its result. What comes before a colon in
    their words is the same for all of them.
    """
    budget = bench.budget
    made: Iterable[tuple[Profile, str]]
    match name:
        case "uniform":
            made = [(uniform(budget), UNIFORM)]
        case "uniform-mlp":
            made = [(rules.ends(budget, 0, 0), "uniform-mlp: attention whole")]
        case "ends":
            made = _forms_of_ends(budget).items()
        case "atp":
            made = [
                (
                    rules.arithmetic(budget, share),
                    f"rates in an arithmetic progression (ATP): {share:.0%} of the steepest",
                )
                for share in rules.STEEPNESS
            ]
        case "llm-pruner":
            made = [(rules.llm_pruner(budget), "equal rates between whole ends (LLM-Pruner)")]
        case "owl":
            made = [(owl(budget, bench.elastic), "rates by outlier ratio (OWL)")]
        case "flap":
            made = [(flap(budget, bench.elastic), "global threshold on standardised WIFV (FLAP)")]
        case "sensitivity":
            made = [
                (form, f"{CLOSED_FORM}: {sum(form.attention)} attention units in all")
                for form in closed_forms(budget, bench.costs)
            ]
    found: dict[Profile, str] = {}
    for profile, words in made:
        found.setdefault(profile, words)
    return found


def most_profiles(budget: Budget, name: ClosedForm) -> int:
    """How many profiles a closed form has on a budget: of the probes' it is one more than there may turn out to be."""
    match name:
        case "ends":
            return len(_forms_of_ends(budget))
        case "atp":
            return len({rules.arithmetic(budget, share) for share in rules.STEEPNESS})
        case "sensitivity":
            return 1 + len(attention_totals(budget))
    return 1


def _forms_of_ends(budget: Budget) -> dict[Profile, str]:
    pairs = [pair for pair in rules.ENDS if sum(pair) < budget.space.n_layers] or [(0, 0)]  # of a model with two layers
    return {
        rules.ends(budget, first, last): f"ends: attention, first {first} and last {last} layers whole"
        for first, last in pairs
    }


def closed_form_of(row: Candidate) -> str:
    """Which closed form a seed belongs to: the same text for all profiles of one."""
    return row.detail.partition(":")[0]


def best_of_each(rows: Iterable[Candidate]) -> list[Candidate]:
    """Of candidates in the order of their ranks the first of every closed form; those that are none are left out."""
    best: dict[str, Candidate] = {}
    for row in rows:
        if row.proposed_by == "seed":
            best.setdefault(closed_form_of(row), row)
    return list(best.values())


@dataclass(frozen=True, slots=True)
class Baseline:
    """A closed form beside the best candidate of a run, on the most tokens that both were measured on."""

    name: str
    fitness: float  # in nats a token
    own: float  # of the candidate
    tokens: int

    @property
    def change(self) -> float:
        """The candidate's fitness less the closed form's, as a share of it."""
        return self.own / self.fitness - 1


def baselines(bench: Workbench, best: str | None) -> dict[str, Baseline]:
    """By name every closed form of the run that was measured, its best profile beside the candidate `best`."""
    if best is None:
        return {}
    profile, found = bench.candidate(best).profile, dict[str, Baseline]()
    forms = [
        (closed_form_of(row), row.profile)
        for row in bench.memory.recall(Candidate, run=bench.run, step=0)
        if row.proposed_by == "seed"
    ]
    for name, form in [*forms, (UNIFORM, uniform(bench.budget))]:
        for tokens in reversed(bench.fidelity):
            measured, own = bench.fitness(form, tokens), bench.fitness(profile, tokens)
            if measured is None or own is None or not measured.kl or own.kl is None:
                continue
            known = found.get(name)
            if known is None or (tokens, -measured.kl) > (known.tokens, -known.fitness):
                found[name] = Baseline(name, measured.kl, own.kl, tokens)
            break
    return found


def make_initial_population(bench: Workbench, arm: Arm, remembered: int) -> list[str]:
    """Record the first candidates of this run, where it has none, and return their ids.

    They are closed forms, then the best of earlier runs. With these come the lessons of earlier runs.
    """
    if begun := [row.id for row in bench.memory.recall(Candidate, run=bench.run, step=0)]:
        return begun
    known = best_known(bench, remembered) if arm.searches else []
    forms = [pair for name in arm.closed_forms for pair in closed_form_profiles(bench, name).items()]
    made: list[tuple[Profile, Proposer, str]] = [
        *((profile, "seed", words) for profile, words in forms),
        *((profile, "seed", "another split") for profile in all_profiles(bench.budget)),
        *((profile, "memory", detail) for profile, detail in known),
    ]
    distinct: dict[Profile, tuple[Proposer, str]] = {}
    for profile, proposed_by, detail in made:
        distinct.setdefault(profile, (proposed_by, detail))
    rows = [
        Candidate(
            run=bench.run,
            id=f"c{number}",
            profile=profile,
            parents=(),
            operator="initialise",
            proposed_by=proposed_by,
            generation=0,
            step=0,
            call=0,
            repaired=0,
            params=bench.budget.space.params(profile),
            detail=detail,
        )
        for number, (profile, (proposed_by, detail)) in enumerate(distinct.items(), start=1)
    ]
    lessons = earlier_lessons(bench) if arm.plans and remembered else []
    # all or none: a run that was killed has either its first candidates or has not begun
    bench.memory.record(*rows, *lessons)
    return [row.id for row in rows]


def all_profiles(budget: Budget) -> tuple[Profile, ...]:
    """Every profile on a budget that has so few of them that none needs to be searched for, else ()."""
    return budget.profiles if isinstance(budget, UniformBudget) else ()


def earlier_candidates(bench: Workbench) -> list[Candidate]:
    """The candidates of other runs, but for those that searched on this run's holdout, which would no longer be one.

    A run may have searched there without a measurement of its own, by those of another one: so the profiles that were
    measured there in any search are left out too.
    """
    memory = bench.memory.shared
    there: list[Score | Sensitivities] = [
        *memory.recall(Score, text=FITNESS, sequence=bench.holdout),
        *memory.recall(Sensitivities, text=FITNESS, sequence=bench.holdout),
    ]
    runs = {row.run for row in there if row.step >= 0}
    profiles = {row.profile for row in there if row.step >= 0}
    rows = (row for row in memory.recall(Candidate) if row.run != bench.run)
    return [row for row in rows if row.run not in runs and row.profile not in profiles]


def best_known(bench: Workbench, limit: int) -> list[tuple[Profile, str]]:
    """The best profiles of earlier runs, repaired to this budget, those nearest to it first.

    Fitness compares only within a budget, so runs are taken by how near theirs was, and each gives its best.
    """
    bench = replace(bench, memory=bench.memory.shared)  # only what is taken becomes the run's own
    runs: dict[str, list[Candidate]] = {}
    for row in earlier_candidates(bench):
        runs.setdefault(row.run, []).append(row)
    best: list[tuple[int, float, Candidate]] = []
    for rows in runs.values():
        scored = [(found.kl, row) for row in rows if (found := bench.fitness(row.profile, bench.fidelity[-1]))]
        known = [(fitness, row) for fitness, row in scored if fitness is not None]
        for fitness, row in sorted(known, key=lambda pair: pair[0])[:limit]:
            best.append((abs(row.params - bench.budget.target_params) // bench.budget.space.block_params, fitness, row))
    best.sort(key=lambda entry: (entry[0], entry[1], entry[2].run, entry[2].id))
    repaired: dict[Profile, str] = {}
    for _, _, row in best:
        profile = bench.budget.project(row.profile.attention, row.profile.mlp).profile
        repaired.setdefault(profile, f"{row.id} of {row.run}")
    return list(repaired.items())[:limit]
