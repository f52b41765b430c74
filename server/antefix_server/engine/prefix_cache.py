"""Opened prefixes in memory, the least recently used first out; wiped when nobody uses them any more."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from antefix import Prefix
from antefix_server.engine.prefix_key import PrefixKey

__all__ = ["PrefixCache"]


@dataclass
class _Entry:
    prefix: Prefix
    uses: int = 0
    over: bool = False


class PrefixCache:
    """Not for several threads at once: the engine's own thread has it.

    Attributes:
        hits: of `acquire`.
        wiped: prefixes that were let go.
    """

    def __init__(self, most_bytes: int) -> None:
        """Keep so many bytes of prefixes, those in use included; those in use are never let go."""
        self._most, self._bytes = most_bytes, 0
        self._entries: OrderedDict[PrefixKey, _Entry] = OrderedDict()
        self._leaving: list[_Entry] = []
        self.hits = self.wiped = 0

    @property
    def bytes(self) -> int:
        """That are kept now."""
        return self._bytes

    def acquire(self, key: PrefixKey) -> Prefix | None:
        """A prefix for a row, until `release`; None where it has to be opened first."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self.hits += 1
        entry.uses += 1
        self._entries.move_to_end(key)
        return entry.prefix

    def keep(self, key: PrefixKey, prefix: Prefix) -> None:
        """Take over an opened prefix, which is wiped here; others make room."""
        if key in self._entries:
            prefix.wipe()
            return
        self._entries[key] = _Entry(prefix)
        self._bytes += prefix.size
        for other in list(self._entries):
            if self._bytes <= self._most:
                break
            if other != key and not self._entries[other].uses:
                self._let_go(other)

    def release(self, key: PrefixKey, prefix: Prefix) -> None:
        """A row is done with a prefix."""
        entry = self._entries.get(key)
        if entry is None or entry.prefix is not prefix:
            entry = next(candidate for candidate in self._leaving if candidate.prefix is prefix)
        entry.uses -= 1
        if entry.over and not entry.uses:
            self._leaving.remove(entry)
            self._wipe(entry)

    def drop(self, which: Callable[[PrefixKey], bool]) -> int:
        """Forget all prefixes of which `which` is true; those in use when their rows are done."""
        keys = [key for key in self._entries if which(key)]
        for key in keys:
            self._let_go(key)
        return len(keys)

    def __contains__(self, key: object) -> bool:
        """Whether it is kept; does not count as a use."""
        return key in self._entries

    def keys(self) -> list[PrefixKey]:
        """What is kept, the least recently used first."""
        return list(self._entries)

    def _let_go(self, key: PrefixKey) -> None:
        entry = self._entries.pop(key)
        entry.over = True
        if entry.uses:
            self._leaving.append(entry)
        else:
            self._wipe(entry)

    def _wipe(self, entry: _Entry) -> None:
        self._bytes -= entry.prefix.size
        entry.prefix.wipe()
        self.wiped += 1
