"""What a run ran on: enough to tell two runs on two machines apart, and to build the first one's surroundings again."""

from __future__ import annotations

import os
import platform
import sys
from datetime import datetime
from importlib import metadata
from typing import Any

from self_pruner.tools.text.redaction import redact

_PACKAGES = (
    "self-pruner",
    "torch",
    "transformers",
    "safetensors",
    "llguidance",
    "langgraph",
    "langgraph-checkpoint-sqlite",
    "langchain-core",
)


def describe(device: str, seed: int, now: datetime) -> dict[str, Any]:
    """The content of a run's `environment.json`."""
    return {
        "created": now.isoformat(timespec="seconds"),
        "device": device,
        "seed": seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "command": [redact(word) for word in sys.argv],
        "versions": {package: version_of(package) for package in _PACKAGES},
    }


def this_machine_in_words() -> str:
    """The processors and the system, as tables state them."""
    return f"{os.cpu_count()} processors, {platform.system()} {platform.machine()}"


def installed() -> dict[str, str]:
    """The versions of the packages that matter, of those that are installed."""
    return {package: version for package in _PACKAGES if (version := version_of(package)) is not None}


def version_of(package: str) -> str | None:
    """The installed version of a package, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None  # run from a checkout that was not installed
