"""A decision set: situations of real searches, each with fixed options whose outcomes are all measured.

One JSON file holds it, written aside and renamed, with a digest of its own content. It is written after every
situation, so a process that is killed loses the one in hand. What situations share (the variables of `system.j2`,
profiles) is in it once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.memory.errors import SelfPrunerError
from self_pruner.prompts.variables import Variables

FORMAT = 1
FILE = "decisions.json"
LARGEST = 1 << 24  # bytes of a file that is read


class DecisionSetError(SelfPrunerError):
    """A decision set cannot be used; the sentence says why and what to do."""


@dataclass(frozen=True, slots=True)
class Option:
    """One legal call and what comes of it."""

    call: dict[str, Any]  # {"name", "arguments"}
    profiles: tuple[str, ...]  # keys of the profiles that it leaves; its outcome is the mean over them
    outcome: float | None = None  # KL less that of the reference on the same tokens, nats a token: negative is better
    error: float | None = None  # standard error of the outcome over sequences; None also for a single sequence


@dataclass(frozen=True, slots=True)
class DecisionSituation:
    """One decision: what the brain is shown, and all that it may choose from."""

    id: str
    kind: str
    origin: str  # the search and the generation that it is from
    variables: Variables
    options: tuple[Option, ...]
    reference: tuple[str, ...]  # keys of the profiles that outcomes are differences to
    tool: int  # the option that the tool itself would take

    @property
    def measured(self) -> bool:
        """Whether the outcome of every option is known."""
        return all(option.outcome is not None for option in self.options)

    @property
    def outcomes(self) -> list[float]:
        """The outcome of every option, in nats a token; only of a situation that is measured."""
        return [option.outcome for option in self.options if option.outcome is not None]


@dataclass(frozen=True, slots=True)
class Made:
    """What a set is of and how it was made: all that its outcomes depend on."""

    model: str
    weights: str  # fingerprint of config and weights
    dtype: str
    params: int  # the budget: parameters of every profile
    texts: dict[str, str]  # digests of the token ids, by what they are for
    text: str  # names of the texts that outcomes are measured on
    first: int  # the first sequence of them that outcomes are measured on: behind all that the searches saw
    tokens: int  # of an outcome
    length: int  # tokens of a sequence
    situations: int  # of each kind; it may grow
    # None in what follows: not known, in a set of before it was kept.
    importance: str | None = None  # order of units in a layer
    compensation: str | None = None  # what makes up for removed units
    calibration: str | None = None  # name of the text
    calibration_sequences: int | None = None
    calibration_length: int | None = None  # tokens of one of them


@dataclass(frozen=True, slots=True)
class DecisionSet:
    """A whole set, or one in the making."""

    made: Made
    kinds: tuple[str, ...]
    situations: tuple[DecisionSituation, ...] = ()
    searches: tuple[int, ...] = ()  # seeds of the searches that are done
    command: str = ""
    versions: dict[str, str | None] = field(default_factory=dict)

    def of(self, kind: str) -> list[DecisionSituation]:
        """The situations of one kind."""
        return [one for one in self.situations if one.kind == kind]

    def missing(self, kind: str) -> int:
        """Situations of that kind that no search has brought yet."""
        return max(0, self.made.situations - len(self.of(kind)))

    @property
    def complete(self) -> bool:
        """Whether every kind has its situations, and every option its outcome."""
        return not any(map(self.missing, self.kinds)) and all(one.measured for one in self.situations)

    def replaced(self, situation: DecisionSituation) -> DecisionSet:
        """The same with one situation exchanged for another of its id."""
        return replace(self, situations=tuple(situation if one.id == situation.id else one for one in self.situations))

    def save(self, path: Path) -> None:
        """Write it to the file `path`; raises WriteError."""
        content = _WHOLE.dump_python(self, mode="json")
        keys: dict[str, int] = {}  # of profiles, which situations have in common: written once
        runs = []
        for one in content["situations"]:
            runs.append(one["variables"].pop("run"))
            for place in (one, *one["options"]):
                name = "reference" if place is one else "profiles"
                place[name] = [keys.setdefault(key, len(keys)) for key in place[name]]
        content |= {"run": runs[0] if runs else None, "profiles": list(keys)}
        for one, run in zip(content["situations"], runs, strict=True):
            if run != content["run"]:  # of another search
                one["variables"]["run"] = run
        text = json.dumps({"format": FORMAT, "digest": _digest(content), **content}, separators=(",", ":"))
        atomic_write(path, text + "\n")


_WHOLE = TypeAdapter(DecisionSet)


def read_set(path: Path) -> DecisionSet:
    """The decision set in the file `path`.

    Raises:
        DecisionSetError: no such file, one that is cut short, changed or of another format.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise DecisionSetError(f"{path} is no decision set: it has more than {LARGEST >> 20} MB")
        content = json.loads(text)
    except OSError as error:
        raise DecisionSetError(f"cannot read the decision set {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DecisionSetError(f"the decision set {path} is cut short or is none: fetch or make it again") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise DecisionSetError(f"{path} is no decision set of format {FORMAT}: make it again with this version")
    if content.pop("digest", None) != _digest(content):
        raise DecisionSetError(f"the decision set {path} was changed or is damaged: fetch or make it again")
    try:
        run, keys = content.pop("run"), content.pop("profiles")
        for one in content["situations"]:
            one["variables"].setdefault("run", run)
            for place in (one, *one["options"]):
                name = "reference" if place is one else "profiles"
                place[name] = [keys[index] for index in place[name]]
        return _WHOLE.validate_python(content)
    except (ValidationError, LookupError, TypeError, AttributeError) as error:
        raise DecisionSetError(f"the decision set {path} has a form that this version does not know") from error


def check_same(path: Path, there: Made, wanted: dict[str, Any]) -> None:
    """Refuse a set of another model, budget or text, or one that was measured in another way.

    Args:
        path: of the set.
        there: what it is of; what it does not know is not refused.
        wanted: what is asked for, by the names of the fields; what it does not name may be anything.

    Raises:
        DecisionSetError: names the first difference.
    """
    words = {
        "model": "another model",
        "weights": "other weights",
        "dtype": "another number type",
        "importance": "another importance",
        "compensation": "another compensation",  # before the budget, which counts what it adds
        "params": "another budget, in parameters",
        "texts": "other text",
        "text": "another text",
        "length": "another sequence length",
        "first": "outcomes from another sequence on",
        "tokens": "another number of outcome tokens",
        "calibration": "another calibration text",
        "calibration_sequences": "another number of calibration sequences",
        "calibration_length": "another length of calibration sequences",
    }
    for name, word in words.items():
        known = getattr(there, name)
        if name in wanted and known is not None and known != wanted[name]:
            shown = "" if name in ("texts", "weights") else f" {known}, not {wanted[name]}"
            raise DecisionSetError(
                f"the decision set {path} is of {word}{':' if shown else ''}{shown}; give the settings that it was "
                "made with, or another --into"
            )


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
