"""What a run begins with: lessons of earlier runs, of this model and of others of its family.

Those of this model in the same settings come first. Then come those of other contexts of the memory whose model is of
the same family, whatever its depth: a stretch becomes the one that lies at the same share of the depth. Of another
model a lesson is a hint and nothing more, so it is marked with that model's name wherever it is shown. A run records
what it begins with, so a lesson in this context may still be of another one: it is of the one that has its run's
candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from self_pruner.agent.search.learned_costs import RUNS
from self_pruner.memory.errors import ToolError
from self_pruner.memory.records import Candidate, Lesson
from self_pruner.tools.profiles.shifts import Stretch, stretches
from self_pruner.tools.profiles.space import Space
from self_pruner.tools.workbench import Workbench

LESSONS = 6  # of earlier runs that one begins with


def earlier_lessons(bench: Workbench) -> list[Lesson]:
    """What other runs have learnt and could tell: in these settings first, then by how near their budget was."""
    memory, target = bench.memory.shared, bench.budget.target_params
    rows = [row for row in memory.recall(Lesson) if row.run != bench.run]
    here = {made.run for made in memory.recall(Candidate, run={row.run for row in rows})}
    found = [(row.run not in here, row) for row in rows]
    for description, rows in memory.recall_elsewhere(Lesson, "family"):
        carried = [_carried_over(row, description, bench) for row in rows if not row.model]
        found += [(True, row) for row in carried if row is not None]
    found.sort(key=lambda pair: (pair[0], abs(pair[1].params - target), pair[1].change))
    distinct: dict[tuple[str, int, int], Lesson] = {}
    for _, row in found:
        if row.verdict != "unclear":
            distinct.setdefault((row.run, row.generation, row.number), row)
    return list(distinct.values())[:LESSONS]


def _carried_over(lesson: Lesson, description: Mapping[str, Any], bench: Workbench) -> Lesson | None:
    """A lesson of another context as one about this model; None where it has no meaning here."""
    space = bench.budget.space
    layers, fixed, prunable = (description.get(name) for name in ("layers", "fixed_params", "prunable_params"))
    if not (isinstance(layers, int) and isinstance(fixed, int) and isinstance(prunable, int) and prunable > 0):
        return None
    try:
        take, give = (_same_depth(Stretch.of(text, layers), layers, space) for text in (lesson.take, lesson.give))
    except ToolError:
        return None
    if take.places & give.places:
        return None
    kept = (lesson.params - fixed) / prunable
    same = description.get("weights") == bench.memory.description.get("weights")
    return replace(
        lesson,
        take=str(take),
        give=str(give),
        params=space.fixed_params + round(kept * space.prunable_params(space.dense())),
        model="" if same else str(description.get("model", "another model")),
    )


def _same_depth(stretch: Stretch, layers: int, space: Space) -> Stretch:
    """The stretch of a model of `space` that shares most of the depth with one of a model with so many layers."""

    def shared(other: Stretch) -> int:  # of the depth, in parts of layers times layers
        first = max(stretch.first * space.n_layers, other.first * layers)
        return min((stretch.last + 1) * space.n_layers, (other.last + 1) * layers) - first

    return max((one for one in stretches(space.n_layers, RUNS) if one.part == stretch.part), key=shared)
