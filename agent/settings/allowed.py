"""What a setting takes, in words, for whoever gave it something else."""

from __future__ import annotations

import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from self_pruner.memory.errors import meant

TAKES = "takes"  # in the `json_schema_extra` of a setting with a pattern: what that allows, unless its help says so


def refusal(field: FieldInfo, value: object) -> str:
    """What a setting takes in the place of `value`, and of words that which is most like it."""
    given = f"{value:g}" if isinstance(value, float) else repr(value)
    finite = "finite " if given in ("inf", "-inf", "nan") else ""
    return f"it takes {allowed(field, finite)}, got {given}{meant(str(value), _words(field.annotation), before=': ')}"


def allowed(field: FieldInfo, finite: str = "") -> str:
    """What a setting takes, as the end of a sentence; `finite` is what else to say of a number."""
    if any(getattr(each, "pattern", None) for each in field.metadata):
        said = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        return str(said.get(TAKES, field.description))
    kinds = [kind for kind in _kinds(field.annotation) if kind is not type(None)]
    others = [kind for kind in kinds if get_origin(kind) is not Literal]
    if words := _words(field.annotation):
        choices = [*words, *(_one(kind, field.metadata, finite) for kind in others)]
        return f"{', '.join(choices[:-1])} or {choices[-1]}"
    return _one(others[0], field.metadata, finite)


def _one(kind: Any, limits: Iterable[Any], finite: str) -> str:
    """What is of one type, within limits."""
    kind, limits = _plain(kind, limits)
    if get_origin(kind) is tuple:
        each, limits = _plain(get_args(kind)[0], ())
        return f"whole numbers{_range(limits)} with commas between"
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return f"a {'whole ' if kind is int else finite}number{_range(limits)}"
    return "the path of a file or folder" if kind is Path else "text that is not empty"


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The types that a setting may be of."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _plain(kind: Any, limits: Iterable[Any]) -> tuple[Any, list[Any]]:
    """The type behind an Annotated, and its limits with those that are known already."""
    if get_origin(kind) is not Annotated:
        return kind, list(limits)
    kind, *more = get_args(kind)
    return kind, [*limits, *(one for each in more for one in getattr(each, "metadata", [each]))]


def _words(annotation: Any) -> list[str]:
    """The words that a setting takes, where it takes some."""
    return [str(word) for kind in _kinds(annotation) if get_origin(kind) is Literal for word in get_args(kind)]


def _range(limits: Iterable[Any]) -> str:
    """The numbers within limits."""
    names = ("ge", "gt", "le", "lt", "multiple_of")
    found = {name: getattr(each, name) for each in limits for name in names if hasattr(each, name)}
    said = []
    if "ge" in found:
        said.append(f"from {found['ge']}" + (f" to {found['le']}" if "le" in found else " on"))
    elif "gt" in found:
        said.append(f"above {found['gt']}" + (f" and at most {found['le']}" if "le" in found else ""))
    if "lt" in found:
        said.append(f"below {found['lt']}")
    if "multiple_of" in found:
        said.append(f"a multiple of {found['multiple_of']}")
    return f" {' and '.join(said)}" if said else ""
