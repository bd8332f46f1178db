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


def version_of(package: str) -> str | None:
    """The installed version of a package, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None  # run from a checkout that was not installed
