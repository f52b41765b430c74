"""Who comes next: users take turns, however many requests one of them has sent."""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from antefix_server.errors import EngineBusy

__all__ = ["FairRequestQueue"]

_Item = TypeVar("_Item")


class FairRequestQueue(Generic[_Item]):
    """A queue for each user; the next item is of the user who has waited longest for a turn.

    Not for several threads at once.
    """

    def __init__(self, most: int, most_each: int) -> None:
        """Let so many wait, and so many of one user."""
        self._most, self._each = most, most_each
        self._waiting: OrderedDict[bytes, deque[_Item]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        """Items that wait."""
        return self._count

    def add(self, user: bytes, item: _Item, retry_after_s: float) -> None:
        """Wait behind the same user's others.

        Raises:
            EngineBusy: too many wait already; the message says which.
        """
        mine = len(self._waiting.get(user, ()))
        if mine >= self._each:
            raise EngineBusy(f"{mine} requests of this user wait, {self._each} may", retry_after_s)
        if self._count >= self._most:
            raise EngineBusy(f"{self._count} requests wait, {self._most} may", retry_after_s)
        self._waiting.setdefault(user, deque()).append(item)
        self._count += 1

    def next(self, ready: Callable[[_Item], bool]) -> _Item | None:
        """The first item of the first user whose first item is ready; its user goes to the end."""
        for user, items in self._waiting.items():
            if ready(items[0]):
                item = items.popleft()
                self._count -= 1
                if items:
                    self._waiting.move_to_end(user)
                else:
                    del self._waiting[user]
                return item
        return None

    def heads(self, count: int) -> list[_Item]:
        """The first items of the first users."""
        return [items[0] for items in itertools.islice(self._waiting.values(), count)]

    def remove(self, which: Callable[[_Item], bool]) -> list[_Item]:
        """Take out all items of which `which` is true."""
        result: list[_Item] = []
        for user in list(self._waiting):
            items = self._waiting[user]
            result += [item for item in items if which(item)]
            left = deque(item for item in items if not which(item))
            if left:
                self._waiting[user] = left
            else:
                del self._waiting[user]
        self._count -= len(result)
        return result

    def __iter__(self) -> Iterator[_Item]:
        """All that wait."""
        for items in self._waiting.values():
            yield from items
