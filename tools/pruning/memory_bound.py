"""A memo within a bound of bytes, for things that are needed again pass after pass, in the same order each time.

What a pass has used stays for its whole length: were the longest unused item dropped for every new one, a pass over
more than fits would find nothing of the one before, because each item goes just before it is needed. So what fits of a
pass is found again, the rest is made again, and only what no longer is asked for makes room, longest unused first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast


class Sized(Protocol):
    """Anything that knows its size in bytes: a tensor, a factor."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""


Item = TypeVar("Item", bound=Sized)


@dataclass(slots=True)
class _Entry:
    """An item that is kept."""

    item: Sized
    used_in: int  # the last pass that asked for it
    cheap: bool  # goes before others


class MemoryBound:
    """A memo that keeps what fits within a bound in bytes."""

    def __init__(self, limit: int) -> None:
        """`limit` in bytes; an item above it is made each time and never kept."""
        self.limit = limit
        self.used = 0
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._pass = 0

    def __len__(self) -> int:
        return len(self._entries)

    def start_pass(self) -> None:
        """From here on, what was used before may make room for what is used now."""
        self._pass += 1

    def get(self, key: Hashable, make: Callable[[], Item], *, cheap: bool = False) -> Item:
        """The item of `key`, made by `make` if it is not kept.

        A `cheap` item, which saves less work a byte, takes free room only and makes room for all others.
        """
        if (entry := self._entries.get(key)) is not None:
            entry.used_in = self._pass
            self._entries.move_to_end(key)
            return cast(Item, entry.item)
        item = make()
        if self._make_room(item.nbytes, cheap):
            self._entries[key] = _Entry(item, self._pass, cheap)
            self.used += item.nbytes
        return item

    def give_up(self) -> bool:
        """Drop everything and keep at most half as much from here on; whether that freed anything."""
        freed = self.used > 0
        self.limit = min(self.limit, self.used // 2) if freed else 0
        self._entries.clear()
        self.used = 0
        return freed

    def _make_room(self, size: int, cheap: bool) -> bool:
        """Drop what may go until there is room for `size` bytes; where that does not suffice, drop nothing."""
        missing = self.used + size - self.limit
        if missing <= 0:
            return True
        if cheap or size > self.limit:
            return False
        old = [key for key, entry in self._entries.items() if entry.used_in < self._pass]
        old += [key for key, entry in self._entries.items() if entry.used_in == self._pass and entry.cheap]
        dropped = []
        for key in old:
            dropped.append(key)
            missing -= self._entries[key].item.nbytes
            if missing <= 0:
                break
        else:
            return False
        for key in dropped:
            self.used -= self._entries.pop(key).item.nbytes
        return True
