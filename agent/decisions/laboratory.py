"""The command `decisions`: a decision set, made or found, and brains with prompt sets that are scored on it."""

from __future__ import annotations

import gc
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from self_pruner.agent.compare.tables import ABSENT
from self_pruner.agent.decisions.brains import names_of, open_brain, open_endpoint
from self_pruner.agent.decisions.choosers import Chooser, reads
from self_pruner.agent.decisions.decision_set import FILE, DecisionSet, DecisionSetError, Made, check_same, read_set
from self_pruner.agent.decisions.kinds import KINDS, kinds_of
from self_pruner.agent.decisions.make import make, text_names
from self_pruner.agent.decisions.score import Row, decide
from self_pruner.agent.decisions.scores import SCORES, TABLE, known_rows, read_scores, stamp_of, write_rows
from self_pruner.agent.decisions.table import named, show
from self_pruner.agent.prepare.brain import SELF, load_dense
from self_pruner.agent.prepare.checks import Target, check_target
from self_pruner.agent.prepare.run import in_sentences
from self_pruner.agent.prepare.texts import check_text
from self_pruner.agent.run_files.run_lock import RunLock
from self_pruner.agent.settings.settings import Settings, text_label
from self_pruner.agent.view import View
from self_pruner.memory.errors import SettingsError
from self_pruner.prompts.files import USUAL, available_sets
from self_pruner.prompts.templates import PromptSet
from self_pruner.prompts.workbench import digest
from self_pruner.tools.text.redaction import redact

SITUATIONS = 24  # of each kind, where nothing else is asked for
LEAST = 2  # situations of a kind, below which there is no interval


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for besides settings."""

    brains: Sequence[str]
    prompts: str
    kinds: str | None
    situations: int | None  # of each kind; None for as many as the set has
    into: Path | None


def decisions(settings: Settings, wishes: Wishes, view: View) -> list[Row]:
    """Make the set where it is not there or not whole, score every brain with every prompt set, and show it.

    Rows of earlier calls stay in the table as long as their situations do; the same brain with the same prompt set at
    the same temperature is scored anew.

    Raises:
        SelfPrunerError: one sentence for each thing that may be wrong; see docs/decisions.md.
    """
    kinds, sets = kinds_of(wishes.kinds), prompt_sets(wishes.prompts)
    names = names_of(wishes.brains, settings)
    if wishes.situations is not None and wishes.situations < LEAST:
        raise SettingsError(f"--situations: at least {LEAST}, got {wishes.situations}")
    target = check_target(settings)
    folder = wishes.into or settings.runs / "decisions" / f"{target.outline.name}-{target.budget.target_params}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    with closing(RunLock(folder)), in_sentences(settings):
        read_scores(folder)  # a damaged file is refused before anything is measured
        found = _set(settings, wishes, kinds, target, folder, view)
        scoring = _Scoring(found, kinds, sets, folder, view)
        own = None
        if SELF in names or settings.brain_url is not None:
            own = load_dense(SELF, settings, view)
            check_same(folder / FILE, found.made, {"weights": own.fingerprint})
        for name in names:
            scoring.ask(open_brain(name, settings, own, view))
            gc.collect()  # one model at a time
        if own is not None and settings.brain_url is not None:
            scoring.ask(open_endpoint(settings, own.tokenizer, view))
    rows = scoring.rows
    show(found, rows, tuple(dict.fromkeys(row.kind for row in rows)), view)
    view.line(f"Set    {folder / FILE}", whole=True)
    view.line(f"Table  {folder / TABLE}", whole=True)
    return rows


def prompt_sets(text: str) -> dict[str, PromptSet]:
    """The prompt sets in a list of names and folders, by how they are called in a table.

    Raises:
        SettingsError: a name that is neither a set nor a folder, or one twice.
        PromptError: a template is wrong.
    """
    found: dict[str, PromptSet] = {}
    for word in (each.strip() for each in text.split(",")):
        if word in available_sets():
            name, prompts = word, PromptSet(word)
        elif word and Path(word).is_dir():
            name, prompts = Path(word).resolve().name, PromptSet(USUAL, Path(word))
        else:
            sets = ", ".join(available_sets())
            raise SettingsError(f"--prompts: {word!r} is no prompt set and no folder; the sets are {sets}")
        if name in found:
            raise SettingsError(f"--prompts names {name!r} twice: a table tells sets by their names")
        prompts.check()
        found[name] = prompts
    return found


def _set(
    settings: Settings, wishes: Wishes, kinds: Sequence[str], target: Target, folder: Path, view: View
) -> DecisionSet:
    """The set in `folder`, made, made whole or grown where it is not what is asked for."""
    situations, found = wishes.situations or SITUATIONS, None
    if (folder / FILE).exists():
        found = read_set(folder / FILE)
        named = {"model": target.outline.name, "params": target.budget.target_params, "text": text_names(settings)}
        check_same(folder / FILE, found.made, named | _given(settings, target, found.made))
        situations = max(wishes.situations or 0, found.made.situations)
    if found is None or not found.complete or set(kinds) - set(found.kinds) or situations > found.made.situations:
        check_text(settings)
        command = shlex.join(redact(word) for word in ["python", "main.py", *sys.argv[1:]])
        found = make(settings, folder, kinds, situations, command, view)
    for one in found.situations:
        if one.kind in kinds and (fault := KINDS[one.kind].fault(one, target.budget)):
            raise DecisionSetError(f"{folder / FILE} has a situation that is not legal, {one.id}: {fault}")
    return found


def _given(settings: Settings, target: Target, there: Made) -> dict[str, Any]:
    """What the options that were given say of what a set is of; one that is left at its default says nothing."""
    calibration = next(one for one in target.texts if one.part == "calibration")
    said: dict[str, dict[str, Any]] = {  # by the option
        "dtype": {"dtype": target.dtype} if settings.dtype != "auto" else {},
        "sequence_length": {"length": settings.sequence_length},
        "fidelity": {"first": settings.fidelity[-1] // there.length},
        "final_tokens": {"tokens": settings.final_tokens},
        "importance": {"importance": settings.importance},
        "compensation": {"compensation": settings.compensation},
        "calibration": {"calibration": text_label(settings.calibration)},
        "calibration_sequences": {"calibration_sequences": calibration.sequences},
        "calibration_length": {"calibration_length": calibration.length},
    }
    return {name: value for option in settings.model_fields_set & said.keys() for name, value in said[option].items()}


class _Scoring:
    """The rows that are known of a set, and those of every brain that is asked."""

    def __init__(
        self, found: DecisionSet, kinds: Sequence[str], sets: dict[str, PromptSet], folder: Path, view: View
    ) -> None:
        self.found, self.kinds, self.sets, self.folder, self.view = found, kinds, sets, folder, view
        self.rows, gone = known_rows(folder, found)
        if gone:
            view.warn(f"rows of {folder / SCORES} go, since their situations changed: {', '.join(map(named, gone))}")

    def ask(self, chooser: Chooser) -> None:
        """Score one brain with every prompt set; a row is written as soon as it is known."""
        shown = self.sets if reads(chooser) else {ABSENT: next(iter(self.sets.values()))}
        for prompts, each in shown.items():
            for kind in self.kinds:
                situations = self.found.of(kind)
                decided = []
                with self.view.phase(f"{chooser.name} with {prompts}: {kind}") as progress:
                    for number, situation in enumerate(situations, start=1):
                        decided.append(decide(situation, chooser, each))
                        progress(number, len(situations))
                row = Row(
                    chooser.name,
                    prompts,
                    chooser.how,
                    kind,
                    tuple(decided),
                    stamp=stamp_of(self.found, decided),
                    temperature=chooser.temperature,
                    digest=digest(each) if reads(chooser) else None,
                    fingerprint=chooser.fingerprint,
                    place=chooser.place,
                )
                others = [one for one in self.rows if not row.is_again(one)]
                self.rows = sorted([*others, row], key=lambda one: list(KINDS).index(one.kind))
                write_rows(self.folder, self.found, self.rows)
