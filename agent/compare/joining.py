"""From the command line to a comparison's folder, and what may be put together in one.

A comparison is new, or an old one that goes on and grows (`--into`), and counts runs in that were finished elsewhere
(`--from`): all that a table, a page or a test is made of stands in `results.json`. So a comparison can be split over
machines and put together, and one whose run directories are gone can still grow.

One table holds one model. A folder in whose place other weights lie now, or results from a machine where the same name
stands for another model, would fill it with figures that compare nothing. So settings and conditions of all that is put
together must agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from self_pruner.agent.compare.folder import (
    DEFAULTS,
    DENSE,
    RESULTS,
    ComparisonFolder,
    check_same_settings,
    is_comparison,
)
from self_pruner.agent.compare.kinds import base_name
from self_pruner.agent.compare.plan import parse_arms, parse_seeds, parse_sparsities
from self_pruner.agent.compare.results import DenseResult, Results
from self_pruner.agent.prepare.checks import check_target
from self_pruner.agent.prepare.latency_timer import check_engine
from self_pruner.agent.prepare.texts import check_text, reporting_key
from self_pruner.agent.prepare.workbench import Prepared
from self_pruner.agent.report.telemetry.listeners import check_listeners
from self_pruner.agent.run_files.binding import SAID, refuse
from self_pruner.agent.run_files.conditions import Conditions
from self_pruner.agent.settings.former import without_former
from self_pruner.agent.settings.settings import Settings, make_settings, text_label
from self_pruner.agent.settings.stated import PLACES, without_places
from self_pruner.agent.view import View
from self_pruner.memory.errors import RunDirectoryError, SettingsError
from self_pruner.memory.paths import new_folder, numbered
from self_pruner.prompts.templates import PromptSet

SAID_OF_ARMS = (*SAID, "versions")  # arms are compared by what they differ in, not by the last digit
SAME_NLL = 0.01  # nats a token, mean over sequences: more is another model or text, whatever the device


def begin(
    given: dict[str, Any],
    arms: Sequence[str],
    sparsities: str | None,
    seeds: str | None,
    into: Path | None,
    finished: Sequence[Path],
    view: View,
) -> ComparisonFolder:
    """The comparison that is asked for, checked, with its plan and what was finished elsewhere written.

    Args:
        given: the settings that all arms share, as far as they are given.
        arms: as they are written, `NAME:PROMPTS+SETTING=VALUE`.
        sparsities: shares to remove, with commas between; None for those of a comparison that goes on, or 0.3.
        seeds: how many, or which, with commas between; None for those of a comparison that goes on, or 3.
        into: the comparison's folder; None for a new one beside the runs.
        finished: other comparisons whose runs count.
        view: where it is shown.

    Raises:
        SelfPrunerError: an option is wrong or contradicts what is in `--into` or `--from`; nothing is written then.
    """
    settings = make_settings({**DEFAULTS, **given}).anchored()
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(settings.model).name)
    new = settings.runs / f"compare-{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    path = into or next(path for path in numbered(new) if not path.exists())
    begun = ComparisonFolder.open(path.resolve()) if is_comparison(path) else None
    named = tuple(spec.text for spec in parse_arms(arms, begun.places if begun else {}))
    places = {arm: str(Path.cwd()) for arm in named if base_name(arm) != arm}
    usual = (begun.sparsities, begun.seeds) if begun else ((0.3,), tuple(range(3)))
    removed = usual[0] if sparsities is None else parse_sparsities(sparsities)
    numbers = usual[1] if seeds is None else parse_seeds(seeds)
    comparison = ComparisonFolder(path.resolve(), named, removed, numbers, settings, places)
    if begun is not None:
        comparison = begun.grown(comparison)
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise SettingsError(f"--into {path} is neither empty nor a comparison")
    elsewhere = finished_elsewhere(comparison, finished, view)
    check_planned(comparison)
    check_prompts(comparison, elsewhere)
    if into is None:  # another comparison may have been begun in the same second
        comparison = replace(comparison, path=new_folder(new).resolve())
    comparison = comparison.saved()
    for results in elsewhere:
        count_in(comparison, results)
    return comparison


def check_planned(comparison: ComparisonFolder) -> None:
    """Refuse what can be refused before a model is loaded."""
    checked = set()
    for run in comparison.planned():
        if (run.preparation, run.sparsity) not in checked:
            check_target(run.settings)
            check_engine(run.settings)
            check_listeners(run.settings)
            checked.add((run.preparation, run.sparsity))
        check_text(run.settings)
        if run.spec.arm.asks_brain:
            PromptSet(run.settings.prompts_of_arm, run.settings.prompts).check()


# --- runs that were finished elsewhere ----------------------------------------------------------------------------


def finished_elsewhere(comparison: ComparisonFolder, paths: Sequence[Path], view: View) -> list[Results]:
    """The results at `paths`, each a comparison's folder or its `results.json`.

    Args:
        comparison: that they are for; its folder may not be there yet.
        paths: where they are.
        view: where differences that are no reason to refuse them are said.

    Raises:
        SettingsError: one is missing or damaged, or its runs have other settings than `comparison`.
        RunDirectoryError: they were measured under other conditions than `comparison`, or than each other.
    """
    known, where = comparison.bound(), comparison.path
    records = [comparison.record_of(run) for run in comparison.planned()] if is_comparison(comparison.path) else []
    brains = {record.arm: record.brain for record in records if record is not None}
    # a setting that results do not state came after them, and its default is what they were made with
    later = {name: value for name, value in Settings().to_toml().items() if name not in PLACES}
    found = []
    for path in paths:
        file = path / RESULTS if path.is_dir() else path
        try:
            results = Results.model_validate_json(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"--from {path}: {file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise SettingsError(f"--from {path}: {file} is not the results of a comparison") from error
        theirs = {**later, **without_former(results.settings)}
        check_same_settings(f"--from {path}: its runs have", theirs, without_places(comparison.settings))
        if results.bound is not None and known is not None:
            differences = results.bound.differences(known, f"in {where}")
            refuse(f"--from {path}: its runs were made", differences, SAID_OF_ARMS, view)
        elif results.bound is not None:
            known, where = results.bound, path
        theirs_asked = {run.arm: run.brain for run in results.runs if run.brain is not None}
        check_brains(brains, theirs_asked, f"in {where}")
        brains |= theirs_asked
        found.append(results)
    return found


def check_brains(known: Mapping[str, str | None], found: Mapping[str, str | None], where: str) -> None:
    """Refuse to put runs of an arm together whose brain was another one, however it is called.

    Args:
        known: by arm the fingerprint of the model that was asked; None where there was none, or it is not known.
        found: the same of others.
        where: the first are.

    Raises:
        RunDirectoryError: one differs.
    """
    for arm, brain in found.items():
        if None not in (brain, known.get(arm)) and brain != known[arm]:
            raise RunDirectoryError(
                f"the brain of {arm} has other weights or another tokenizer now than in its runs {where}: put that "
                "back, or start anew"
            )


def check_prompts(comparison: ComparisonFolder, elsewhere: Sequence[Results] = (), arm: str | None = None) -> None:
    """Refuse runs of one arm whose brain reads other prompts in one than in another, begun or not.

    Args:
        comparison: whose planned runs these are; its folder may not be there yet.
        elsewhere: results of which runs are to be counted in.
        arm: the only one that is looked at; None for all.

    Raises:
        RunDirectoryError: the prompts of an arm differ.
        SelfPrunerError: a record or a prompt set cannot be read.
    """
    finished = {(run.arm, run.sparsity, run.seed): run for results in reversed(elsewhere) for run in results.runs}
    known: dict[str, tuple[str, str]] = {}  # by arm: a digest, and of which run
    read: dict[tuple[str, Path | None], str | None] = {}  # digests, by arm and the copy that a begun run has
    for planned in comparison.planned():
        text = planned.spec.text
        if arm not in (None, text):
            continue
        run = comparison.record_of(planned) or finished.get((text, planned.sparsity, planned.seed))
        kept = next(comparison.folder_of(planned).glob("*/prompts/turn.j2"), None)
        if run is None and (text, kept) not in read:
            read[text, kept] = planned.prompts(kept.parent if kept else None)
        found = read[text, kept] if run is None else run.prompts
        if found is None:
            continue
        other, slug = known.setdefault(text, (found, planned.slug))
        if found != other:
            raise RunDirectoryError(
                f"the prompts of {text} are others in {planned.slug} than in {slug}, and the runs of an arm are of one "
                "set: put back those of before, or give the others a name of their own"
            )


def count_in(comparison: ComparisonFolder, results: Results) -> None:
    """Write the records of planned runs that `comparison` has not, the dense figures, and what they are bound to."""
    known = {(run.arm, run.sparsity, run.seed): run for run in results.runs}
    for planned in comparison.planned():
        run = known.get((planned.spec.text, planned.sparsity, planned.seed))
        if run is not None and comparison.record_path(planned) is None:
            made = {"versions": run.versions or results.versions, "machine": run.machine or results.machine}
            comparison.keep(planned, run.model_copy(update=made))
    if results.dense and not (comparison.path / DENSE).is_file():
        comparison.keep_dense(DenseResult(texts=results.dense, units=results.units))
    if results.bound is not None and comparison.bound() is None:
        comparison.keep_bound(results.bound)


# --- what a comparison is bound to --------------------------------------------------------------------------------


def check_bound(comparison: ComparisonFolder, settings: Settings, conditions: Conditions, view: View) -> None:
    """Refuse to go on with a comparison under other conditions than it was begun with.

    Raises:
        RunDirectoryError: they differ.
    """
    begun = comparison.bound()
    if begun is not None:
        differences = begun.differences(_shared(settings, conditions))
        refuse(f"the comparison {comparison.path} was begun", differences, SAID_OF_ARMS, view)
    for run in comparison.planned() if conditions.brain is not None else ():  # else there is nothing to compare
        if run.settings.other_brain == settings.other_brain and (record := comparison.record_of(run)) is not None:
            check_brains({run.spec.text: record.brain}, {run.spec.text: conditions.brain}, f"in {comparison.path}")


def bind_comparison(comparison: ComparisonFolder, settings: Settings, prepared: Prepared) -> None:
    """Bind a comparison that is not yet bound to what was prepared for it.

    One that has figures already, from a version that bound nothing, has those of the dense model, which tell whether it
    is the same.

    Raises:
        RunDirectoryError: it is not.
    """
    if comparison.bound() is not None:
        return
    bench, dense = prepared.bench, comparison.dense()
    for text in dense.texts if dense else []:
        if text.text not in bench.reporting:
            continue
        now, then = bench.walks[bench.reporting[text.text]].targets.nll, text.nll_by_sequence
        if (
            len(then) != len(now)
            or fmean(abs(one - float(other)) for one, other in zip(then, now, strict=True)) > SAME_NLL
        ):
            raise RunDirectoryError(
                f"the comparison {comparison.path} was begun with a dense model of perplexity {text.perplexity:.2f} on "
                f"{text.text}, and the one that is there now has other figures: put that back or start anew"
            )
    comparison.keep_bound(_shared(settings, prepared.conditions))


def _shared(settings: Settings, conditions: Conditions) -> Conditions:
    """What all arms of a comparison share: no memory, no brain, and of the texts the reported ones, as tables do."""
    keys = {f"reporting {text_label(name)}": reporting_key(name) for name in settings.reporting_texts}
    texts = {name: conditions.texts[key] for name, key in keys.items()}
    return conditions.model_copy(update={"memory": "", "brain": None, "texts": texts})
