"""What a command line says, without carrying it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import click

from self_pruner.agent.command_line.commands import command_line
from self_pruner.agent.command_line.parser import Command
from self_pruner.agent.settings.settings import Settings


def options(words: Sequence[str]) -> dict[str, Any]:
    """What the command is called with."""
    found: dict[str, Any] = {}

    def caught(command: Command, ctx: click.Context) -> int:
        found.update(ctx.params)
        return 0

    with patch.object(Command, "invoke", caught):
        assert command_line.carry_out(words) == 0
    return found


def given(words: Sequence[str]) -> dict[str, Any]:
    """The settings among it."""
    return {name: value for name, value in options(words).items() if name in Settings.model_fields}
