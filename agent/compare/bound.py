"""One table, one model: what a comparison's runs are measured with, held against what is there when it grows.

A folder in whose place other weights lie now, or results from a machine where the same name stands for another model,
would fill a table with figures that compare nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from self_pruner.agent.compare.collect import read_dense
from self_pruner.agent.compare.results import Results
from self_pruner.agent.prepare.texts import reporting_key
from self_pruner.agent.prepare.workbench import Prepared
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.run_files.binding import FILE, SAID, BindingError, read_file, refuse
from self_pruner.agent.run_files.conditions import Conditions
from self_pruner.agent.settings import Settings, text_label
from self_pruner.agent.view import View
from self_pruner.tools.workbench import Workbench

SAID_OF_ARMS = (*SAID, "versions")  # arms are compared by what they differ in, not by the last digit
SAME_NLL = 0.01  # nats a token, mean over sequences: more is another model or text, whatever the device


def read_bound(folder: Path) -> Conditions | None:
    """What the comparison in `folder` is measured with; None before anything was, or by a version that kept no note.

    Raises:
        RunDirectoryError: the file is damaged or cannot be read.
    """
    return read_file(folder / FILE, Conditions)


def check_bound(folder: Path, settings: Settings, conditions: Conditions, view: View) -> None:
    """Refuse to go on with a comparison under other conditions than it was begun with.

    Raises:
        BindingError: they differ.
    """
    begun = read_bound(folder)
    if begun is not None:
        _refuse(f"the comparison {folder} was begun", begun, _shared(settings, conditions), view)


def bind_comparison(folder: Path, settings: Settings, prepared: Prepared) -> None:
    """Bind a comparison that is not yet bound to what was prepared for it.

    One that has figures already, from a version that bound nothing, has those of the dense model, which tell whether it
    is the same.

    Raises:
        BindingError: it is not.
    """
    if read_bound(folder) is not None:
        return
    _check_dense(folder, prepared.bench)
    write_bound(folder, _shared(settings, prepared.conditions))


def check_finished(folder: Path, paths: Sequence[Path], found: Sequence[Results], view: View) -> None:
    """Refuse results from elsewhere that were measured under other conditions than the comparison's, or each other's.

    Args:
        folder: of the comparison, which may not be there yet.
        paths: where the results were found.
        found: the results.
        view: where differences that are no reason are said.

    Raises:
        BindingError: they differ.
    """
    known, where = read_bound(folder), str(folder)
    for path, results in zip(paths, found, strict=True):
        if results.bound is None:
            continue
        if known is None:
            known, where = results.bound, str(path)
        _refuse(f"--from {path}: its runs were made", results.bound, known, view, f"in {where}")


def write_bound(folder: Path, conditions: Conditions) -> None:
    """Write what `read_bound` reads."""
    atomic_write(folder / FILE, conditions.model_dump_json(indent=1) + "\n")


def _refuse(begun: str, then: Conditions, now: Conditions, view: View, where: str = "now") -> None:
    refuse(begun, then.differences(now, where), SAID_OF_ARMS, view)


def _shared(settings: Settings, conditions: Conditions) -> Conditions:
    """What all arms of a comparison share: no memory, and of the texts the reported ones, by the names of tables."""
    texts = {f"reporting {text_label(name)}": reporting_key(name) for name in settings.reporting_texts}
    return conditions.model_copy(
        update={"memory": "", "texts": {name: conditions.texts[key] for name, key in texts.items()}}
    )


def _check_dense(folder: Path, bench: Workbench) -> None:
    known, _ = read_dense(folder)
    for text in known:
        if text.text not in bench.reporting:
            continue
        now = bench.walks[bench.reporting[text.text]].targets.nll
        then = text.nll_by_sequence
        if len(then) == len(now):
            apart = sum(abs(one - float(other)) for one, other in zip(then, now, strict=True)) / len(then)
        if len(then) != len(now) or apart > SAME_NLL:
            raise BindingError(
                f"the comparison {folder} was begun with a dense model of perplexity {text.perplexity:.2f} on "
                f"{text.text}, and the one that is there now has other figures: put that back or start anew"
            )
