"""Settings of a file with all that it does not name, as a stranger may read them, and the command that states them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from self_pruner.agent.settings.settings import Settings, text_label
from self_pruner.memory.paths import expanded
from self_pruner.tools.models.aliases import names

# settings that say where things are kept: of no interest to anybody else
PLACES = ("runs", "memory", "cache", "task_data", "vllm_python", "llama_python", "latency_table")
TEXTS = ("calibration", "fitness_text", "reporting_text")  # stated by the name of the file, not by where it lies


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name as they were given, and the others by their defaults; nothing of them is checked."""
    return {name: field.get_default() for name, field in Settings.model_fields.items()} | dict(values)


def without_places(settings: Settings) -> dict[str, Any]:
    """The settings without where things lie: no places, and texts by the names of their files."""
    values = {name: value for name, value in settings.to_toml().items() if name not in PLACES}
    return values | {name: ",".join(map(text_label, values[name].split(","))) for name in TEXTS}


def shareable(settings: Settings) -> dict[str, Any]:
    """The settings as a stranger may read them: without where things lie, and who was asked."""
    values = without_places(settings)
    if is_local(settings):
        values["model"] = expanded(settings.model).resolve().name
    if Path(settings.brain).is_absolute():
        values["brain"] = Path(settings.brain).name
    if settings.brain_url is not None:
        values["brain_url"] = "URL"
    if settings.prompts is not None:
        values["prompts"] = settings.prompts.name
    return values


def is_local(settings: Settings) -> bool:
    """Whether the target model is a folder of this machine."""
    return names_folder(settings.model)


def names_folder(model: str) -> bool:
    """Whether a model's name is a folder of this machine; an alias is none, whatever folder is called like it."""
    path = expanded(model)
    return model.lower() not in names() and (path.is_absolute() or path.is_dir())


def command_line(settings: Settings, command: str = "", defaults: Mapping[str, Any] | None = None) -> str:
    """A command that makes the same run: every setting that is not the default, as far as it is `shareable`.

    Args:
        settings: those of the run.
        command: other than run.
        defaults: of that command, where they are not those of a run.
    """
    default = Settings(**(defaults or {}))
    words = ["python main.py", *([command] if command else [])]
    for name, value in shareable(settings).items():
        if value == default.to_toml().get(name):
            continue
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            words.append(f"{option} {shlex.quote(text)}")
    return " ".join(words)
