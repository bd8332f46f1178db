"""Settings of older files: those that have another name now, and those that are gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from self_pruner.memory.errors import SettingsError

RENAMED = {"slopes": "sensitivities", "slope_tokens": "sensitivity_tokens"}  # in older files, by their names of then
# Settings that older files state, and the one value at which a search is what it was with them.
FORMER: dict[str, Any] = {"draws": 0, "screen": 4, "step_rule": "adaptive", "later_layers": 1.0}
WITHOUT_EFFECT = ("racing",)  # whose every value made the same search: see benchmarks/results/README.md


def without_former(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an older file by their present names, without those that are gone, if a search is the same.

    Raises:
        SettingsError: one has another value than the only one there is now.
    """
    for name in FORMER.keys() & values.keys():
        if values[name] != FORMER[name]:
            raise SettingsError(
                f"setting {name!r} is of an older format and is gone: a search is made as with {FORMER[name]!r}, "
                f"and not with {values[name]!r}"
            )
    gone = (*FORMER, *WITHOUT_EFFECT)
    return {RENAMED.get(name, name): value for name, value in values.items() if name not in gone}
