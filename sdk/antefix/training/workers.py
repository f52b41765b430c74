"""Runs micro-batches: on a CPU several at once, one thread each.

Two micro-batches on one core each finish more tokens than one micro-batch on both: small operations stay
on one core anyway, and nothing waits for the slower half. Bits do not depend on what runs beside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

from antefix.model.frozen_base import FrozenBase

Batch = TypeVar("Batch")
Result = TypeVar("Result")


class Workers(Generic[Batch, Result]):
    """A fixed number of micro-batches in flight."""

    def __init__(
        self, runner: Callable[[Batch], Result], pool: ThreadPoolExecutor | None, count: int
    ) -> None:
        """Use `workers_of`."""
        self._runner, self._pool, self.count = runner, pool, count
        self._flying: dict[Future[Result], Batch] = {}

    @property
    def full(self) -> bool:
        """Whether another micro-batch would have to wait."""
        return len(self._flying) >= self.count

    @property
    def busy(self) -> bool:
        """Whether anything is in flight or not yet taken."""
        return bool(self._flying)

    def submit(self, batch: Batch) -> None:
        """Start a micro-batch."""
        if self._pool is not None:
            self._flying[self._pool.submit(self._runner, batch)] = batch
            return
        done: Future[Result] = Future()
        done.set_result(self._runner(batch))
        self._flying[done] = batch

    def finished(self) -> Iterator[tuple[Batch, Result]]:
        """Wait for at least one, and give all that are done."""
        done, _ = wait(self._flying, return_when=FIRST_COMPLETED)
        for future in done:
            yield self._flying.pop(future), future.result()


def worker_count(base: FrozenBase) -> int:
    """Micro-batches at once where nobody says otherwise: one per core, and one on a GPU."""
    return torch.get_num_threads() if base.device.type == "cpu" else 1


@contextmanager
def workers_of(runner: Callable[[Batch], Result], count: int) -> Iterator[Workers[Batch, Result]]:
    """`count` workers that share this machine's cores evenly; torch's thread count is put back after."""
    if count == 1:
        yield Workers(runner, None, 1)
        return
    threads = torch.get_num_threads()
    share = max(1, threads // count)
    pool = ThreadPoolExecutor(count, "antefix", torch.set_num_threads, (share,))
    # What is computed here meanwhile would else wait for threads that find no core: 8 ms a square root.
    torch.set_num_threads(share)
    try:
        yield Workers(runner, pool, count)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)
