"""A comparison's folder: its plan, the records of its finished runs, and the dense model's figures."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from self_pruner.agent.compare.plan import PlannedRun, parse_arms, plan
from self_pruner.agent.compare.results import DenseResult, Results, RunResult
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.run_files.binding import FILE, read_file
from self_pruner.agent.run_files.conditions import Conditions
from self_pruner.agent.run_files.environment import installed, this_machine_in_words
from self_pruner.agent.run_files.run_lock import RunLock
from self_pruner.agent.run_files.seal import holds, seal
from self_pruner.agent.settings.settings import Settings, make_settings, text_label
from self_pruner.agent.settings.stated import PLACES, command_line, shareable, without_places
from self_pruner.memory.errors import SelfPrunerError, SettingsError
from self_pruner.prompts.templates import PromptSet
from self_pruner.prompts.workbench import differences

PLAN = "plan.json"
DENSE = "dense.json"
RESULTS = "results.json"
RECORD = "comparison.json"  # of a finished run
# What a comparison does unless told otherwise: cost alone ends a search, and only what is compared is measured.
DEFAULTS: dict[str, Any] = {
    "tokens": 150_000,
    "evaluations": 1_000_000,
    "patience": 1_000_000,
    "benchmarks": 0,
    "export": False,
    "recalibrate": False,
    "remembered": 0,
}
MOST_LINES = 4_000  # of a diff between two prompt sets
Content = TypeVar("Content", bound=BaseModel)


@dataclass(frozen=True)
class ComparisonFolder:
    """A comparison's folder and what is to be run in it."""

    path: Path
    arms: tuple[str, ...]  # as written
    sparsities: tuple[float, ...]
    seeds: tuple[int, ...]
    settings: Settings  # shared by all arms
    places: Mapping[str, str] = field(default_factory=dict, compare=False)  # of relative paths in arms, by arm
    sealed: bool = field(default=False, compare=False)  # its plan is as this user wrote it on this machine

    @classmethod
    def open(cls, path: Path) -> ComparisonFolder:
        """The comparison in `path`.

        Raises:
            SettingsError: there is none, or its plan is damaged.
        """
        if not is_comparison(path):
            raise SettingsError(f"there is no comparison in {path}: it has no {PLAN}")
        try:
            content = json.loads((path / PLAN).read_text(encoding="utf-8"))
            sealed = holds(content.pop("seal", None), PLAN, json.dumps(content))
            arms, seeds, sparsities = content["arms"], tuple(content["seeds"]), tuple(content["sparsities"])
            if not all(isinstance(seed, int) for seed in seeds) or not all(0 <= share < 1 for share in sparsities):
                raise ValueError(f"seeds {seeds}, sparsities {sparsities}")
            arms = arms.split(",") if isinstance(arms, str) else arms  # plans of before have them in one text
            places = {str(arm): str(place) for arm, place in content.get("places", {}).items()}
            settings = make_settings(content["settings"])
            return cls(path, tuple(map(str, arms)), sparsities, seeds, settings, places, sealed)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SettingsError(f"{path / PLAN} is damaged: {str(error).splitlines()[0]}") from error

    def saved(self) -> ComparisonFolder:
        """This comparison, written down, with what other processes have added to its plan meanwhile."""
        self.path.mkdir(parents=True, exist_ok=True)
        with closing(RunLock(self.path, wait=True)):
            whole = self.open(self.path).grown(self) if is_comparison(self.path) else self
            whole.save()
        return whole

    def save(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        content = {
            "arms": self.arms,
            "sparsities": self.sparsities,
            "seeds": self.seeds,
            "settings": self.settings.to_toml(),
            "places": dict(self.places),
        }
        content["seal"] = seal(PLAN, json.dumps(content))
        atomic_write(self.path / PLAN, json.dumps(content, indent=2) + "\n")

    def grown(self, other: ComparisonFolder) -> ComparisonFolder:
        """This comparison with the arms, sparsities and seeds of `other` added.

        Raises:
            SettingsError: their shared settings differ.
        """
        whose = f"--into {self.path}: that comparison has"
        own, added = (
            {name: value for name, value in one.settings.to_toml().items() if name not in PLACES}
            for one in (self, other)
        )
        check_same_settings(whose, own, added)
        return replace(
            self,
            arms=tuple(dict.fromkeys([*self.arms, *other.arms])),
            sparsities=tuple(dict.fromkeys([*self.sparsities, *other.sparsities])),
            seeds=tuple(dict.fromkeys([*self.seeds, *other.seeds])),
            places={**other.places, **self.places},  # an arm of before is what it was
        )

    def planned(self) -> list[PlannedRun]:
        """Every run, in the order in which they are carried out."""
        return plan(self.settings, parse_arms(self.arms, self.places), self.sparsities, self.seeds)

    def command(self) -> str:
        """A command that makes the same comparison."""
        commas = any("," in arm for arm in self.arms)
        quoted = [shlex.quote(arm) for arm in self.arms]
        arms = " ".join(f"--arm {arm}" for arm in quoted) if commas else f"--arms {shlex.quote(','.join(self.arms))}"
        count = len(self.seeds)
        listed = ",".join(map(str, self.seeds)) + ("," if count == 1 else "")
        seeds = str(count) if self.seeds == tuple(range(count)) else listed
        sparsities = ",".join(str(share) for share in self.sparsities)
        settings = command_line(self.settings, "compare", DEFAULTS)
        return f"{settings} {arms} --seeds {seeds} --sparsity {sparsities}"

    # --- what is finished -------------------------------------------------------------------------------------------

    def folder_of(self, run: PlannedRun) -> Path:
        """The folder of one planned run: its run directory, its memory and, once it is finished, its record."""
        return self.path / "runs" / run.slug

    def record_path(self, run: PlannedRun) -> Path | None:
        """The record of a finished run, or None; versions of before wrote it into the run directory."""
        folder = self.folder_of(run)
        return next((path for path in [folder / RECORD, *folder.glob(f"*/{RECORD}")] if path.is_file()), None)

    def keep(self, run: PlannedRun, result: RunResult) -> None:
        """Write the record of a finished run."""
        folder = self.folder_of(run)
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / RECORD, result.model_dump_json(indent=1) + "\n")

    def record_of(self, run: PlannedRun) -> RunResult | None:
        """What is known of a finished run, or None.

        Raises:
            SettingsError: its record is damaged.
        """
        path = self.record_path(run)
        return None if path is None else _read(path, RunResult, "delete it to run that arm again")

    def dense(self) -> DenseResult | None:
        """The dense model's figures; None before anything was prepared.

        Raises:
            SettingsError: they are damaged.
        """
        path = self.path / DENSE
        return _read(path, DenseResult, "delete it, and it is measured again") if path.is_file() else None

    def keep_dense(self, dense: DenseResult) -> None:
        atomic_write(self.path / DENSE, dense.model_dump_json() + "\n")

    def bound(self) -> Conditions | None:
        """What it is measured with; None before anything was, or by a version that kept no note.

        Raises:
            RunDirectoryError: the file is damaged or cannot be read.
        """
        return read_file(self.path / FILE, Conditions)

    def keep_bound(self, conditions: Conditions) -> None:
        atomic_write(self.path / FILE, conditions.model_dump_json(indent=1) + "\n")


def collect(comparison: ComparisonFolder, failed: Mapping[str, str] | None = None) -> Results:
    """Everything that is known so far; `failed` says by its slug why a run is missing.

    Raises:
        SettingsError: a record is damaged.
    """
    runs: list[RunResult] = []
    missing = []
    planned = comparison.planned()
    for run in planned:
        found = comparison.record_of(run)
        if found is not None:
            runs.append(found)
        else:
            missing.append(f"{run.slug}: {(failed or {}).get(run.slug, 'not finished')}")
    dense, settings = comparison.dense(), comparison.settings
    machines = dict.fromkeys(run.machine for run in runs if run.machine) or {this_machine_in_words(): None}
    return Results(
        command=comparison.command(),
        model=shareable(settings)["model"],
        settings=without_places(settings),
        versions=_versions([run.versions for run in runs if run.versions] or [installed()]),
        machine=" and ".join(machines),
        dense=dense.texts if dense else [],
        units=dense.units if dense else {},
        measured_on=(
            f"{', '.join(map(text_label, settings.reporting_texts))} (reporting parts), "
            f"{settings.reporting_tokens} tokens each in sequences of {settings.sequence_length}"
        ),
        arms={run.spec.text: run.meaning for run in planned},
        missing=missing,
        prompts=prompt_differences(comparison),
        bound=comparison.bound(),
        runs=runs,
    )


def _versions(found: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The versions of all of them; where they differ, each that there is."""
    names = dict.fromkeys(name for one in found for name in one)
    return {name: " and ".join(dict.fromkeys(one[name] for one in found if name in one)) for name in names}


def known_failures(path: Path) -> dict[str, str]:
    """Why runs of the comparison at `path` were missing when its results were written last, by their slugs."""
    try:
        found = Results.model_validate_json((path / RESULTS).read_text(encoding="utf-8")).missing
    except (OSError, ValueError):
        return {}
    return {slug: reason for slug, _, reason in (line.partition(": ") for line in found)}


def prompt_differences(comparison: ComparisonFolder) -> dict[str, list[str]]:
    """By arm with prompts of its own: a unified diff from those that it has without.

    They are the templates of its runs, or those that were named where it has none yet; what cannot be read is left out.
    """
    found = {}
    for run in comparison.planned():
        own = run.spec.overrides.keys() & {"prompts", "prompt_set"}
        if not own or run.spec.text in found:
            continue
        usual = run.settings.model_copy(update={"prompts": None, "prompt_set": None}).prompts_of_arm
        named = run.spec.text.partition("+")[0].partition(":")[2]
        kept = next(comparison.folder_of(run).glob("*/prompts/turn.j2"), None)
        with suppress(SelfPrunerError):
            sets = (
                PromptSet(usual),
                PromptSet(run.settings.prompts_of_arm, kept.parent if kept else run.settings.prompts),
            )
            found[run.spec.text] = differences(*sets, (usual, named))[:MOST_LINES]
    return found


def is_comparison(path: Path) -> bool:
    """Whether `path` is the folder of a comparison."""
    return (path / PLAN).is_file()


def check_same_settings(whose: str, theirs: Mapping[str, object], ours: Mapping[str, object]) -> None:
    """Refuse to put runs with other settings into one comparison.

    Args:
        whose: the first have which settings, as the beginning of a sentence.
        theirs: those of the first.
        ours: those of the others.

    Raises:
        SettingsError: one differs.
    """
    for name in {**ours, **theirs}:
        if theirs.get(name) != ours.get(name):
            raise SettingsError(
                f"{whose} {name.replace('_', '-')} {theirs.get(name)}, not {ours.get(name)}; all arms of a comparison "
                "share their settings"
            )


def _read(path: Path, kind: type[Content], remedy: str) -> Content:
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} is damaged: {str(error).splitlines()[0]}; {remedy}") from error
