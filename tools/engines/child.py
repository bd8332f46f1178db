"""A process of its own that answers in lines, and ends when the one that started it does."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Timer

from self_pruner.memory.errors import EngineError
from self_pruner.tools.engines.leashed import leashed
from self_pruner.tools.engines.server import last_error

LOG = "errors.txt"
PATIENCE = 20.0  # seconds that a process may take to end when it is asked to


@dataclass(frozen=True, slots=True)
class Child:
    """A running process."""

    process: subprocess.Popen[str]
    log: Path

    def lines(self) -> Iterator[str]:
        """Its answers, until there are no more."""
        assert self.process.stdout is not None
        yield from self.process.stdout

    def ask(self, line: str, seconds: float) -> str:
        """Its answer to one line, empty where it has ended; it is ended where the answer takes longer than `seconds`.

        Raises:
            EngineError: it gave no answer in that time.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        late = Event()

        def end() -> None:
            late.set()
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # its own children hold the pipe too

        timer = Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            timer.cancel()
        if late.is_set():
            raise EngineError(f"no answer within {seconds:.0f} s")
        return answer

    def fault(self) -> str:
        """The last error it named, once it has ended."""
        self.process.wait()
        return last_error(self.log.read_text(encoding="utf-8", errors="replace"))


@contextmanager
def child(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[Child]:
    """Run `command` for as long as the block lasts.

    Args:
        command: the program and its arguments.
        folder: where it runs and its errors are written; also its cache of model code, so that the code it loads is
            read from where the model lies and not left from an earlier load.
        environment: variables beside those of this process.
    """
    variables = {**os.environ, "HF_MODULES_CACHE": str(folder), "HF_HUB_OFFLINE": "1", **environment}
    log = folder / LOG
    with leashed(command) as start, log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            **start,
            env=variables,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield Child(process, log)
        finally:
            process.terminate()  # of no effect on one that has ended
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(BrokenPipeError):  # what was said to one that had ended is still there to be sent
                    if pipe is not None:
                        pipe.close()
