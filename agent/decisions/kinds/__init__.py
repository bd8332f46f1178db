"""The kinds of decision, by name."""

from __future__ import annotations

from self_pruner.agent.decisions.kinds.edit import Edits
from self_pruner.agent.decisions.kinds.kind import Kind
from self_pruner.agent.decisions.kinds.shift import Shifts
from self_pruner.agent.decisions.kinds.survive import Survivors
from self_pruner.agent.decisions.kinds.vectors import Initials, Vectors
from self_pruner.memory.errors import SettingsError

KINDS: dict[str, Kind] = {kind.name: kind for kind in (Edits(), Shifts(), Survivors(), Vectors(), Initials())}
DEFAULT = ("shift", "edit", "survive")  # what brains decide where they are asked for no whole vectors


def kinds_of(text: str | None) -> tuple[str, ...]:
    """The names in a list such as `edit,survive`; the default ones where there is none.

    Raises:
        SettingsError: one is unknown or named twice.
    """
    names = DEFAULT if text is None else tuple(word.strip() for word in text.split(","))
    for name in names:
        if name not in KINDS:
            raise SettingsError(f"--kinds: there is no kind of decision {name!r}; the kinds are {', '.join(KINDS)}")
        if names.count(name) > 1:
            raise SettingsError(f"--kinds names {name!r} twice")
    return names
