"""Workers and what they are given: shares of work in, answers in the order of the shares out.

A worker that dies is replaced and its share done again; one that makes no step within a bound is ended and counts as
dead. A share is not given out for ever: what loses three workers ends the run, which can be resumed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from self_pruner.memory.errors import EngineError
from self_pruner.tools.evaluation.workers.cluster import connected
from self_pruner.tools.evaluation.workers.worker import Walks, Worker

PLACE_SECONDS = 120.0  # for a worker to be given a GPU or cores
LOAD_SECONDS = 3600.0  # for it to read a checkpoint and what is kept of it
STEP_SECONDS = 900.0  # between two steps of a walk: a layer asked for, or a block passed by one state
POLL_SECONDS = 0.5
LOSSES = 3  # of workers, by one share
PIECE = 16 << 20  # bytes of a file that are sent together


class Recipe(Protocol):
    """What a worker makes its walks from."""

    @property
    def files(self) -> Sequence[Path]:
        """Those that it reads beside the checkpoint; they are sent to where they are not."""

    def __call__(self) -> Walks:
        """The walks; called in the worker."""


@dataclass(frozen=True, slots=True)
class Share:
    """Some work for one worker."""

    method: str
    arguments: tuple[Any, ...]
    preferred: int  # the worker that kept states for it the last time, if it is there


class Room(NamedTuple):
    """How workers are spread."""

    workers: int
    neighbours: int  # of them on one machine, whose cores they share


class Workers:
    """As many workers as asked for, from the first share on and until `close`."""

    def __init__(
        self, room: Room, address: str | None, device: str, recipe: Recipe, say: Callable[[str], None]
    ) -> None:
        """Start nothing yet.

        Args:
            room: how many, and how spread.
            address: of a Ray cluster; None for this machine alone.
            device: what each computes on: "cpu", or "cuda" for a GPU of its own.
            recipe: what they begin with.
            say: shows a sentence to the user.
        """
        self.count = room.workers
        self.replaced = 0
        self.say = say
        self._room, self._address, self._device, self.recipe = room, address, device, recipe
        self._members: list[_Member] = []
        self._open = ExitStack()

    def close(self) -> None:
        """End all workers, and Ray where it is our own; what comes later starts them anew."""
        self._members = []
        self._open.close()

    def carry_out(self, shares: Sequence[Share]) -> Iterator[Any]:
        """The answers, in the order of the shares.

        Raises:
            EngineError: workers cannot be had, or are lost again and again.
            SelfPrunerError: what a share raised, once those before it are answered and no worker is busy.
        """
        if not self._members:
            self._start()
        waiting = deque(range(len(shares)))
        losses = [0] * len(shares)
        answers: dict[int, Any] = {}
        error: Exception | None = None
        given = 0
        try:
            while given < len(shares):
                if given in answers:
                    yield answers.pop(given)
                    given += 1
                    continue
                if error is not None and all(member.share is None for member in self._members):
                    raise error
                for member in self._members:
                    if member.actor is None:
                        member.begin()
                    elif waiting and member.pending is None and error is None:
                        mine = (one for one in waiting if shares[one].preferred % self.count == member.number)
                        chosen = next(mine, waiting[0])
                        waiting.remove(chosen)
                        member.give(chosen, shares[chosen])
                for member, share, answer, failure in self._heard():
                    if isinstance(failure, Lost):
                        if share is not None:
                            losses[share] += 1
                            waiting.appendleft(share)
                        self._replace(member, failure, 0 if share is None else losses[share])
                    elif failure is not None and share is None:  # it cannot even begin, and so cannot the others
                        self.close()
                        raise failure
                    elif failure is not None:
                        error = error or failure
                    elif share is not None:
                        answers[share] = answer
        finally:
            for member in self._members:
                if member.share is not None:  # whoever asked has left
                    member.end()

    def _start(self) -> None:
        gpus = self.count if self._device == "cuda" else 0
        ray = self._open.enter_context(connected(self._address, self.count, gpus))
        try:
            for path in self.recipe.files:
                if not path.is_file():
                    raise EngineError(f"workers read {path.name} from the cache, and it cannot be written to {path}")
            begin = _Beginning(ray, self.recipe, self._device, torch.get_num_threads(), self._room.neighbours)
            self._members = [_Member(number, begin) for number in range(self.count)]
        except BaseException:
            self.close()
            raise

    @property
    def where(self) -> str:
        """Where they are, in words."""
        return "on this machine" if self._address is None else f"in the Ray cluster at {self._address}"

    def _heard(self) -> Iterator[tuple[_Member, int | None, Any, Exception | None]]:
        """What has happened to members within a short time."""
        ray = self._members[0].beginning.ray
        pending = {member.pending: member for member in self._members if member.pending is not None}
        ready, _ = ray.wait([*pending], timeout=POLL_SECONDS)
        for reference in ready:
            member = pending[reference]
            share, failure, answer = member.share, None, None
            try:
                answer = ray.get(reference)
                member.go_on(answer)
            except ray.exceptions.RayTaskError as error:
                failure = error.cause
                member.share = member.pending = None
            except ray.exceptions.RayError as error:
                failure = Lost(_reason(error))
            yield member, share, answer, failure
        for member in [*self._members]:
            if member.pending is not None and member.pending not in ready and (silence := member.silent_for()):
                yield member, member.share, None, Lost(f"it made no step for {silence:.0f} s")

    def _replace(self, member: _Member, lost: Lost, losses: int) -> None:
        """Count a loss; another worker begins in its place, unless there is none to be had."""
        unplaced, again = not member.host, ", and its share done again" if member.share is not None else ""
        member.losses += 1
        member.end()
        if unplaced:
            self._members.remove(member)
        if not self._members or max(losses, member.losses) >= LOSSES:
            raise EngineError(f"workers are lost again and again, the last because {lost}")
        if unplaced:
            self.say(f"there is no room for worker {member.number} {self.where}: {len(self._members)} go on")
            return
        self.replaced += 1
        self.say(f"worker {member.number} on {member.host} is replaced{again}: {lost}")


class Lost(Exception):
    """A worker is gone; says why."""


@dataclass(frozen=True)
class _Beginning:
    """What all members begin with."""

    ray: Any
    recipe: Recipe
    device: str
    threads: int
    neighbours: int


class _Member:
    """One worker as the driver knows it: placed first, then loaded, then ready for one share after the other."""

    def __init__(self, number: int, beginning: _Beginning) -> None:
        self.number, self.beginning = number, beginning
        self.actor: Any = None  # None where it is to begin, or to begin anew
        self.pending: Any = None  # what was asked of it last; None where it can be given a share
        self.share: int | None = None
        self.host = ""  # empty where it has no place yet
        self.losses = 0  # in a row
        self._stage = "place"
        self._since = 0.0  # when it was asked, or made its last step
        self._steps = -1
        self._asked: Any = None  # how many steps it made

    def begin(self) -> None:
        """Ask for a place."""
        on_gpu = self.beginning.device == "cuda"
        kind = self.beginning.ray.remote(Worker).options(
            num_cpus=0 if on_gpu else 1,
            num_gpus=1 if on_gpu else 0,
            max_concurrency=2,  # one share, and `steps` meanwhile
            scheduling_strategy="SPREAD",
        )
        self.actor, self.host, self._stage = kind.remote(), "", "place"
        self._ask(self.actor.place.remote(self.beginning.recipe.files))

    def give(self, number: int, share: Share) -> None:
        """Ask for a share."""
        self.share, self._stage = number, "share"
        self._ask(getattr(self.actor, share.method).remote(*share.arguments))

    def go_on(self, answer: Any) -> None:
        """Do what follows from an answer."""
        self.pending = self.share = None
        if self._stage == "place":
            self.host, absent = answer
            begin = self.beginning
            if absent:  # still, when another worker on the same machine may have got them
                _, absent = begin.ray.get(self.actor.place.remote(absent), timeout=PLACE_SECONDS)
            for path in absent:
                self._send(path)
            self._stage = "load"
            self._ask(self.actor.start.remote(begin.recipe, begin.threads, begin.neighbours))
        elif self._stage == "share":
            self.losses = 0

    def silent_for(self) -> float:
        """Seconds without a step, where they are too many; 0 where not."""
        if self._stage == "share":
            steps, _ = self.beginning.ray.wait([self._asked], timeout=0)
            if steps:
                with suppress(self.beginning.ray.exceptions.RayError):  # its death is heard by what is pending
                    if (now := self.beginning.ray.get(steps[0])) != self._steps:
                        self._steps, self._since = now, time.monotonic()
                    self._asked = self.actor.steps.remote()
        bound = {"place": PLACE_SECONDS, "load": LOAD_SECONDS, "share": STEP_SECONDS}[self._stage]
        silence = time.monotonic() - self._since
        return silence if silence > bound else 0.0

    def end(self) -> None:
        """End it at once."""
        with suppress(self.beginning.ray.exceptions.RayError):
            self.beginning.ray.kill(self.actor)
        self.actor = self.pending = self.share = None

    def _ask(self, reference: Any) -> None:
        self.pending, self._since, self._steps = reference, time.monotonic(), -1
        if self._stage == "share":
            self._asked = self.actor.steps.remote()

    def _send(self, path: Path) -> None:
        size = path.stat().st_size
        with path.open("rb") as file:
            for at in range(0, size, PIECE):
                sent = self.actor.receive.remote(path, file.read(PIECE), at, size)
                self.beginning.ray.get(sent, timeout=STEP_SECONDS)


def _reason(error: Exception) -> str:
    """Why Ray says that a worker is gone, in a few words."""
    text = " ".join(str(error).split())
    if "End of file" in text:  # all that is known of a process that is there no more
        return "its process has ended, perhaps for want of memory"
    detail = text.partition("Worker exit detail: ")[2] or text.partition("The actor is dead because ")[2] or text
    return detail[:200].rstrip(". ")
