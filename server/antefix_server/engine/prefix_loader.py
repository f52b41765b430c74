"""Threads that open prefixes beside the steps of others."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["openers"]


def openers(count: int) -> ThreadPoolExecutor:
    """So many, all started; each computes by itself.

    A prefix is small. Torch would cut its numbers in parts for all cores, which others compute on, and wait
    for a core to be free: 20 ms where a thread of its own needs 0.2. Other threads keep their number.
    """
    threads, there = torch.get_num_threads(), threading.Barrier(count)
    made = ThreadPoolExecutor(count, "antefix-opener", _alone)
    list(made.map(lambda _: there.wait(), range(count)))
    torch.set_num_threads(threads)
    return made


def _alone() -> None:
    """A thread takes over the number of the others with its first use of torch; then it has its own."""
    torch.get_num_threads()
    torch.set_num_threads(1)
