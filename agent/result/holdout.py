"""Fitness on tokens of the fitness text that the search never saw: what final choices are made by.

A search fits the tokens it sees, so its own figures flatter its best candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from self_pruner.agent.search.history import SearchHistory
from self_pruner.agent.search.initial_population import best_of_each
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluate import measure
from self_pruner.tools.evaluation.averages import mean
from self_pruner.tools.workbench import FITNESS, Progress, Workbench

FINISH_STEP = -2  # measurements made after the last turn


def choose_on_holdout(
    bench: Workbench, settings: Settings, progress: Progress | None = None
) -> tuple[str | None, dict[str, float]]:
    """Whom a run ends with, None of nobody, and the fitness on the holdout of all that are compared there, by id.

    Compared are the best few of the search, of which the least on the holdout is taken, and the best of every closed
    form. One of these takes its place where it is better there by more than a standard error: it was worse on the text
    searched, and the holdout alone, a few sequences, is too little to make up for that.
    """
    history = SearchHistory(bench).read()
    rows, ranked = history.candidates, history.ranked(list(history.candidates))
    few = ranked[: settings.final_candidates]
    forms = [row.id for row in best_of_each(rows[name] for name in ranked) if row.id not in few]
    fitness = holdout_fitness(bench, [rows[name].profile for name in (*few, *forms)], progress)
    compared = {name: fitness[rows[name].profile] for name in (*few, *forms) if rows[name].profile in fitness}
    best = best_on_holdout({name: compared[name] for name in few if name in compared})

    def is_better(name: str) -> bool:
        beside = best and bench.difference(rows[name].profile, rows[best].profile, bench.holdout)
        return not beside or beside.standard_error is not None and beside.mean < -beside.standard_error

    better = {name: compared[name] for name in forms if name in compared and is_better(name)}
    return best_on_holdout(better) or best, compared


def best_on_holdout(holdout: Mapping[str, float]) -> str | None:
    """The id of the least KL on the holdout, of equals the first by name; None of nobody."""
    return min(holdout, key=lambda name: (holdout[name], name), default=None)


def holdout_fitness(
    bench: Workbench, profiles: Sequence[Profile], progress: Progress | None = None
) -> dict[Profile, float]:
    """Mean KL of `profiles` in nats a token on the holdout, without those that could not be measured."""
    measure(replace(bench, progress=progress), profiles, bench.holdout, FINISH_STEP)
    fitness = {}
    for profile in profiles:
        scores = bench.scores(profile, FITNESS)
        known = [scores[index].kl for index in bench.holdout if index in scores]
        values = [value for value in known if value is not None]
        if len(values) == len(bench.holdout):
            fitness[profile] = mean(values)
    return fitness
