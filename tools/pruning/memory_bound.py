"""A memo that keeps within a bound of bytes what was used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar, cast


class Sized(Protocol):
    """Anything that knows its size in bytes: a tensor, a factor."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""


Item = TypeVar("Item", bound=Sized)


class MemoryBound:
    """A memo that drops what was used longest ago once its items outgrow a bound in bytes."""

    def __init__(self, limit: int) -> None:
        """`limit` in bytes; an item above it is made each time and never kept."""
        self.limit = limit
        self.used = 0
        self._items: OrderedDict[Hashable, Sized] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Hashable, make: Callable[[], Item]) -> Item:
        """The item of `key`, made by `make` if it is not kept."""
        if key in self._items:
            self._items.move_to_end(key)
            return cast(Item, self._items[key])
        item = make()
        if item.nbytes <= self.limit:
            self._items[key] = item
            self.used += item.nbytes
            while self.used > self.limit:
                self.used -= self._items.popitem(last=False)[1].nbytes
        return item
