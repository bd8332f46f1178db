"""`judge`: folds the answers of a turn into the state, and ends the run by a deterministic rule."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from self_pruner.agent.run_files.trace import Judge, TraceRecord
from self_pruner.agent.search.history import best_of, closed_generations, generations_since_best
from self_pruner.agent.search.planning.autonomy import achieved, heard
from self_pruner.agent.search.state import SearchState, fold
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.limits import cost
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.records import Candidate, Generation
from self_pruner.tools.workbench import FITNESS, Workbench


@dataclass
class Judgement:
    """The `judge` node of the graph."""

    bench: Workbench
    settings: Settings
    trace: Callable[[TraceRecord], None]
    mark: float = field(default_factory=time.perf_counter)  # when the time not yet accounted for began

    def __call__(self, state: SearchState) -> dict[str, Any]:
        """The update of the state after a turn, its time included, with the reason to stop where there is one."""
        now = time.perf_counter()
        update = {**fold(state, self.bench.fidelity[0]), "seconds": state.seconds + now - self.mark}
        if self.settings.autonomy == "free" and state.generation:
            update |= self.of_free_turn(state, update.get("failures", state.failures))
        self.mark = now
        after = replace(state, **update)
        generations = closed_generations(self.bench)
        reason = state.ending or stop_reason(self.settings, after, generations)
        closes = bool(reason and after.offspring and not state.ending)  # what is measured of it counts
        update |= {"ending": reason, "stop": "" if closes else reason}
        best = best_of(generations)
        found = self.bench.fitness(self.bench.candidate(best).profile, self.bench.fidelity[-1]) if best else None
        self.trace(
            Judge(
                step=after.step,
                generation=after.generation,
                spent={
                    **after.spent,
                    "minutes": round(after.seconds / 60, 3),
                    **self.bench.walks[FITNESS].parallelism,
                },
                best=best or None,
                fitness=found.kl if found else None,
                stop=update["stop"] or None,
            )
        )
        return update

    def of_free_turn(self, state: SearchState, failures: int) -> dict[str, Any]:
        """What a turn of a free brain comes to besides: what it is told, and whether it achieved anything."""
        rows = self.bench.memory.recall(Candidate, run=self.bench.run)
        measured = sum(self.bench.fitness(row.profile, self.bench.fidelity[0]) is not None for row in rows)
        update = {"said": heard(state), "evaluations": max(state.evaluations, measured)}
        if state.proposed_by == "brain" and not state.faulty:
            update["failures"] = 0 if achieved(state) else max(failures, state.failures + 1)
        return update


def stop_reason(settings: Settings, state: SearchState, generations: Sequence[Generation]) -> str:
    """Why the run ends, or an empty text. Evaluations and patience wait for the end of a generation; others close it.

    Nothing ends it before the first of `generations` is closed: there must be something to show.
    """
    if not generations:
        return ""
    if settings.minutes is not None and state.seconds / 60 >= settings.minutes:
        return f"{settings.minutes:g} minutes are used up"
    if settings.tokens is not None and cost(state.spent) + settings.fidelity[-1] > settings.tokens:
        return f"of {settings.tokens} tokens too few are left to measure a candidate in full"
    if state.offspring:
        return ""
    if not ARMS[settings.arm].searches:
        every = settings.target == "uniform"
        return "every profile of one width is measured" if every else "a closed form has nothing to search"
    if state.evaluations >= settings.evaluations:
        return f"{settings.evaluations} evaluations are used up"
    stalled = generations_since_best(generations)
    if (
        stalled >= max(1, settings.patience // 2)
        and state.planned_at == state.generation - 1
        and state.plan.get("stop")
    ):
        return f"the brain's plan was to stop once {stalled} generations had brought nothing better"
    if stalled >= settings.patience:
        return f"{settings.patience} generations brought nothing better"
    return ""
