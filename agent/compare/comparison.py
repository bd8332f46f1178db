"""A comparison's folder: its plan, what is finished in it, and the command that made it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from self_pruner.agent.compare.collect import RECORD
from self_pruner.agent.compare.plan import PlanError, PlannedRun, parse_arms, plan
from self_pruner.agent.prepare.checks import check_target
from self_pruner.agent.prepare.latency_timer import check_engine
from self_pruner.agent.prepare.texts import check_text
from self_pruner.agent.result.card_facts import PLACES, TEXTS
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.agent.run_files.run_directory import NoRunError, RunDirectory
from self_pruner.agent.run_files.seal import holds, seal
from self_pruner.agent.settings import Settings, make_settings, text_label
from self_pruner.prompts.templates import PromptSet

PLAN = "plan.json"
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


@dataclass(frozen=True)
class Comparison:
    """A comparison's folder and what is to be run in it."""

    path: Path
    arms: str  # as written
    sparsities: tuple[float, ...]
    seeds: tuple[int, ...]
    settings: Settings  # shared by all arms

    def planned(self) -> list[PlannedRun]:
        """Every run, in the order in which they are carried out."""
        return plan(self.settings, parse_arms(self.arms), self.sparsities, self.seeds)

    def stated_settings(self) -> dict[str, Any]:
        """The shared settings as results state them: no places, and texts by the names of their files."""
        settings = {name: value for name, value in self.settings.to_toml().items() if name not in PLACES}
        for name in TEXTS:
            settings[name] = ",".join(map(text_label, str(settings[name]).split(",")))
        return settings

    def save(self) -> None:
        """Writes `plan.json`."""
        self.path.mkdir(parents=True, exist_ok=True)
        content = {
            "arms": self.arms,
            "sparsities": self.sparsities,
            "seeds": self.seeds,
            "settings": self.settings.to_toml(),
        }
        content["seal"] = seal(PLAN, json.dumps(content))
        atomic_write(self.path / PLAN, json.dumps(content, indent=2) + "\n")

    @classmethod
    def open(cls, path: Path) -> Comparison:
        """The comparison in `path`.

        Raises:
            PlanError: there is none, or its plan is damaged.
        """
        if not is_comparison(path):
            raise PlanError(f"there is no comparison in {path}: it has no {PLAN}")
        try:
            content = json.loads((path / PLAN).read_text(encoding="utf-8"))
            seeds, sparsities = tuple(content["seeds"]), tuple(content["sparsities"])
            if not all(isinstance(seed, int) for seed in seeds) or not all(0 <= share < 1 for share in sparsities):
                raise ValueError(f"seeds {seeds}, sparsities {sparsities}")
            return cls(path, str(content["arms"]), sparsities, seeds, make_settings(content["settings"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise PlanError(f"{path / PLAN} is damaged: {str(error).splitlines()[0]}") from error

    def joined(self, other: Comparison) -> Comparison:
        """This comparison with the arms, sparsities and seeds of `other` added.

        Raises:
            PlanError: their shared settings differ.
        """
        mine, theirs = self.settings.to_toml(), other.settings.to_toml()
        differing = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        if differing:
            name = differing[0]
            raise PlanError(
                f"--into {self.path}: that comparison has {name.replace('_', '-')} {mine.get(name)}, not "
                f"{theirs.get(name)}; all arms of a comparison share their settings"
            )
        known = [spec.text for spec in parse_arms(self.arms)]
        added = [spec.text for spec in parse_arms(other.arms) if spec.text not in known]
        return replace(
            self,
            arms=",".join([*known, *added]),
            sparsities=tuple(dict.fromkeys([*self.sparsities, *other.sparsities])),
            seeds=tuple(dict.fromkeys([*self.seeds, *other.seeds])),
        )


def is_comparison(path: Path) -> bool:
    """Whether `path` is the folder of a comparison."""
    return (path / PLAN).is_file()


def is_sealed(path: Path) -> bool:
    """Whether the plan in `path` is as this user wrote it on this machine.

    Raises:
        PlanError: it is damaged.
    """
    try:
        content = json.loads((path / PLAN).read_text(encoding="utf-8"))
        found = content.pop("seal", None)
    except (OSError, ValueError, AttributeError) as error:
        raise PlanError(f"{path / PLAN} is damaged: {error}") from error
    return holds(found, PLAN, json.dumps(content))


def check(comparison: Comparison) -> None:
    """Refuse what can be refused before a model is loaded."""
    checked = set()
    for run in comparison.planned():
        if (run.preparation, run.sparsity) not in checked:
            check_target(run.settings)
            check_engine(run.settings)
            checked.add((run.preparation, run.sparsity))
        check_text(run.settings)
        if run.spec.arm.asks_brain:
            PromptSet(run.settings.prompts_of_arm, run.settings.prompts).check()


def record_path(comparison: Comparison, run: PlannedRun) -> Path | None:
    """The record of a finished run, or None; one that was finished elsewhere has no run directory around it."""
    folder = folder_of(comparison, run)
    if (folder / RECORD).is_file():
        return folder / RECORD
    try:
        path = RunDirectory.latest(folder) / RECORD
    except NoRunError:
        return None
    return path if path.is_file() else None


def folder_of(comparison: Comparison, run: PlannedRun) -> Path:
    """The folder of one planned run: its run directory and its memory."""
    return comparison.path / "runs" / run.slug


def options(comparison: Comparison) -> str:
    """The options of `compare` that are not settings."""
    count = len(comparison.seeds)
    listed = ",".join(map(str, comparison.seeds)) + ("," if count == 1 else "")
    seeds = str(count) if comparison.seeds == tuple(range(count)) else listed
    return f"--arms {comparison.arms} --seeds {seeds} --sparsity {','.join(f'{s:g}' for s in comparison.sparsities)}"
