"""How much memory a program takes, with all that it starts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

__all__ = ["Peak", "peak_memory", "poll"]

_EVERY_S = 0.5


class Peak:
    """The most there was.

    Attributes:
        mb: of all processes together; what they share counts once where the system tells (Linux).
    """

    mb = 0.0

    def look(self) -> None:
        """Now."""
        total = 0
        for process in psutil.Process().children(recursive=True):
            try:
                total += _bytes(process)
            except psutil.Error:  # it ended meanwhile
                continue
        self.mb = max(self.mb, total / 2**20)


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Of all that this process starts, while the block runs; looked at twice a second."""
    peak = Peak()
    with poll(peak.look, _EVERY_S):
        yield peak


@contextmanager
def poll(look: Callable[[], None], every_s: float) -> Iterator[None]:
    """Look every so many seconds, while the block runs."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(every_s):
            look()

    watching = threading.Thread(target=watch, name="antefix-memory", daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def _bytes(process: psutil.Process) -> int:
    memory = process.memory_full_info()
    # Two processes that read one file of weights have its pages once: a share of each, not twice the whole.
    return int(getattr(memory, "pss", memory.rss))
