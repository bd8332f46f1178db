"""Thousands of invented inputs: whatever comes in, a sentence or an answer comes out, soon, and in its place.

Every sort of input is tried in a fork of its own, in a folder of its own. An input is at fault where it raises what is
no SelfPrunerError, takes more than five seconds of the processor, takes gigabytes, or writes outside of that folder.
Faults of one kind at one place are one fault, told by its shortest input.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from self_pruner.memory.errors import SelfPrunerError
from tests.campaign.kills import Tally

SECONDS = 5.0  # of the processor that one input may take: on a clock it takes as long as other work lets it
WAITING = 300.0  # seconds on a clock, for an input that waits
MEMORY = 4 << 30  # bytes that an input may take beside what is there already
PER_PROCESS = 2000  # inputs; a new process and folder for each so many, so that what is kept does not add up

Attempt = Callable[[Any], object]
Target = Callable[[Path], tuple[SearchStrategy[Any], Attempt]]  # in this folder


class HangError(BaseException):
    """An input took too long; no handler of the program may swallow this."""


class OutsideError(BaseException):
    """Something was written where it should not."""


def campaign(targets: dict[str, Target], inputs: int, number: int, say: Callable[[str], None]) -> Tally:
    """`inputs` inputs of every sort."""
    tally = Tally()
    for name, target in targets.items():
        faults: dict[str, str] = {}
        left = inputs
        while left > 0:
            count = min(left, PER_PROCESS)
            tried, found = _apart(target, count, f"{number}/{name}/{left}")
            left -= count
            tally.tried[name] += tried
            for where, shortest in found.items():
                faults[where] = min(faults.get(where, shortest), shortest, key=len)
        for where, shortest in sorted(faults.items()):
            tally.faults.append(f"{name}: {where}\n  input: {shortest[:600]}")
        say(f"{name}: {tally.tried[name]} inputs, {len(faults)} faults")
        for fault in tally.faults[-len(faults) :] if faults else []:
            say(f"  FAULT {fault}")
    return tally


def _apart(target: Target, count: int, drawn_by: str) -> tuple[int, dict[str, str]]:
    """The inputs in a fork: how many were tried, and the faults by place with their shortest inputs."""
    with tempfile.TemporaryDirectory(
        prefix="campaign-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None
    ) as folder:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                tried, faults = _tried(target, Path(folder) / "inside", count, drawn_by)
                (Path(folder) / "found.json").write_text(json.dumps([tried, faults]), encoding="utf-8")
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        found = Path(folder) / "found.json"
        if status or not found.exists():
            return 0, {f"the process ended with {os.waitstatus_to_exitcode(status)}": ""}
        tried, faults = json.loads(found.read_text(encoding="utf-8"))
        return tried, faults


def _tried(target: Target, folder: Path, count: int, drawn_by: str) -> tuple[int, dict[str, str]]:
    folder.mkdir()
    os.chdir(folder)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    sys.dont_write_bytecode = True  # a module that is first imported on the way is no file that the input had written
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    strategy, attempt = target(folder)
    _room()
    faults: dict[str, str] = {}
    tried = 0
    watch = Watch(folder)

    @seed(drawn_by)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(strategy)
    def each(value: Any) -> None:
        nonlocal tried
        tried += 1
        try:
            with watch.on(), timed():
                attempt(value)
        except SelfPrunerError:
            pass
        except SystemExit as end:  # --help and --version
            if end.code:
                raise
        except (Exception, HangError, OutsideError) as error:
            where, shown = place(error), repr(value)
            faults[where] = min(faults.get(where, shown), shown, key=len)

    each()
    return tried, faults


def place(error: BaseException) -> str:
    """The kind of an error and the innermost line of the program on its way."""
    root = Path(__file__).parents[2]
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(root)
        and "/tests/" not in frame.filename
        and ".venv" not in frame.filename
    ]
    where = f"{Path(own[-1].filename).relative_to(root)}:{own[-1].lineno}" if own else "the campaign"
    said = re.sub(r"\W.*", "", str(error)) if own else str(error)[:30]  # its values would make every fault another one
    return f"{type(error).__name__} at {where}: {said}"


@contextmanager
def timed() -> Iterator[None]:
    """Raises HangError in a block that takes too long."""

    def hung(number: int, frame: object) -> None:
        raise HangError(f"more than {SECONDS if number == signal.SIGPROF else WAITING:.0f} s")

    clocks = ((signal.ITIMER_PROF, signal.SIGPROF, SECONDS), (signal.ITIMER_REAL, signal.SIGALRM, WAITING))
    before = [signal.signal(number, hung) for _, number, _ in clocks]
    for clock, _, seconds in clocks:
        signal.setitimer(clock, seconds)
    try:
        yield
    finally:
        for clock, _, _ in clocks:
            signal.setitimer(clock, 0)
        for (_, number, _), handler in zip(clocks, before, strict=True):
            signal.signal(number, handler)


class Watch:
    """Looks at what is opened, made, renamed and removed."""

    def __init__(self, folder: Path) -> None:
        """Only `folder` may be written in."""
        self.allowed = (str(folder), str(folder.resolve()), "/dev/null", "/proc/self")
        self.active = False
        sys.addaudithook(self._audited)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watches for as long as the block lasts."""
        self.active = True
        try:
            yield
        finally:
            self.active = False

    def _audited(self, name: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if name == "open":
            path, _, flags = arguments
            if (
                isinstance(flags, int)
                and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                and isinstance(path, str | bytes)
            ):
                self._check(name, path)
        elif name in ("os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate", "os.symlink"):
            for path in arguments[:2]:
                if isinstance(path, str | bytes | os.PathLike):
                    self._check(name, path)
        elif name in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
            raise OutsideError(f"{name} {arguments[:2]}")

    def _check(self, name: str, path: str | bytes | os.PathLike[str]) -> None:
        whole = os.path.abspath(os.fsdecode(path))
        if not whole.startswith(self.allowed):
            self.active = False
            raise OutsideError(f"{name} {whole}")


def _room() -> None:
    """No input may take gigabytes: what asks for more gets a MemoryError."""
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
