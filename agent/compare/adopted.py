"""Finished runs of other comparisons, counted in: what was measured elsewhere, or long ago, is not run again.

All that a table, a page or a test is made of stands in `results.json`. So a comparison can be split over folders or
machines and put together, and one whose run directories are gone can still grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from self_pruner.agent.compare.bound import read_bound, write_bound
from self_pruner.agent.compare.collect import DENSE, RECORD, keep_dense
from self_pruner.agent.compare.comparison import Comparison, folder_of, record_path
from self_pruner.agent.compare.plan import PlanError
from self_pruner.agent.compare.report import RESULTS
from self_pruner.agent.compare.results import Results
from self_pruner.agent.result.card_facts import PLACES
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.settings import Settings, without_former


def read_finished(comparison: Comparison, paths: Sequence[Path]) -> list[Results]:
    """The results at `paths`, each a comparison's folder or its `results.json`.

    Raises:
        PlanError: one is missing or damaged, or its runs have other settings than `comparison`.
    """
    found = []
    later = {name: value for name, value in Settings().to_toml().items() if name not in PLACES}
    for path in paths:
        file = path / RESULTS if path.is_dir() else path
        try:
            results = Results.model_validate_json(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(f"--from {path}: {file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise PlanError(f"--from {path}: {file} is not the results of a comparison") from error
        # a setting that results do not state came after them, and its default is what they were made with
        mine, theirs = comparison.stated_settings(), {**later, **without_former(results.settings)}
        for name in {**mine, **theirs}:
            if mine.get(name) != theirs.get(name):
                raise PlanError(
                    f"--from {path}: its runs have {name.replace('_', '-')} {theirs.get(name)}, not {mine.get(name)}; "
                    "all arms of a comparison share their settings"
                )
        found.append(results)
    return found


def adopt(comparison: Comparison, found: Sequence[Results]) -> None:
    """Write the records of planned runs that `comparison` has not, and the dense figures."""
    for results in found:
        known = {(run.arm, run.sparsity, run.seed): run for run in results.runs}
        for planned in comparison.planned():
            run = known.get((planned.spec.text, planned.sparsity, planned.seed))
            if run is not None and record_path(comparison, planned) is None:
                folder = folder_of(comparison, planned)
                folder.mkdir(parents=True, exist_ok=True)
                atomic_write(folder / RECORD, run.model_dump_json(indent=1) + "\n")
        if results.dense and not (comparison.path / DENSE).is_file():
            keep_dense(comparison.path, results.dense, results.units)
        if results.bound is not None and read_bound(comparison.path) is None:
            write_bound(comparison.path, results.bound)
