"""Which waiting rows run next, packed into micro-batches of constant size.

Users are not in lock-step, so rows of many users wait at any time and micro-batches run full. What runs
beside a row never matters to it, so any order is right; this one is first come, first fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from antefix.model.frozen_base import FrozenBase
from antefix.training.bucketing import Bucket, Buckets, first_fit
from antefix.training.config import TrainingPlan
from antefix.training.user_state import PendingRow


@dataclass(frozen=True)
class MicroBatch:
    """Rows that run together."""

    shape: Bucket
    rows: list[PendingRow]


class RowQueue(Protocol):
    """Holds waiting rows and hands out micro-batches."""

    def add(self, rows: Iterable[PendingRow]) -> None:
        """Take the rows of one user's next step or evaluation."""
        ...

    def pop(self) -> MicroBatch | None:
        """The next micro-batch; None when no row waits."""
        ...


def row_queue(base: FrozenBase, plan: TrainingPlan) -> RowQueue:
    """The queue that the plan asks for."""
    buckets = Buckets.of(base, plan.micro_batch_tokens)
    return PerUserQueue(buckets) if plan.batching == "per-user" else SharedQueue(buckets)


class SharedQueue:
    """Rows of all users in micro-batches of constant size."""

    def __init__(self, buckets: Buckets) -> None:
        """Take the sizes of micro-batches."""
        self._buckets = buckets
        self._waiting: dict[tuple[bool, Bucket], list[PendingRow]] = {}

    def add(self, rows: Iterable[PendingRow]) -> None:
        """Put each row with those of its size class."""
        for pending in rows:
            key = (pending.weight is None, self._buckets.bucket_for(pending.row))
            self._waiting.setdefault(key, []).append(pending)

    def pop(self) -> MicroBatch | None:
        """The fullest size class, oldest rows first."""
        if not self._waiting:
            return None
        key = max(
            self._waiting, key=lambda k: sum(pending.row.tokens for pending in self._waiting[k]) / k[1].tokens
        )
        chosen, left = first_fit([pending.row for pending in self._waiting[key]], key[1])
        rows = self._waiting.pop(key)
        if left:
            self._waiting[key] = [rows[i] for i in left]
        return MicroBatch(key[1], [rows[i] for i in chosen])


class PerUserQueue:
    """Rows of one user's step by themselves, in micro-batches of just their size.

    The shape depends on that user's own rows alone, which keeps the promise without dummies.
    """

    def __init__(self, buckets: Buckets) -> None:
        """Take the largest sizes of micro-batches."""
        self._buckets = buckets
        self._ready: list[MicroBatch] = []

    def add(self, rows: Iterable[PendingRow]) -> None:
        """Cut one user's rows into micro-batches."""
        left = list(rows)
        while left:
            bucket = self._buckets.bucket_for(left[0].row)
            chosen, rest = first_fit([pending.row for pending in left], bucket)
            group = [left[i] for i in chosen]
            self._ready.append(
                MicroBatch(self._buckets.tight_bucket([pending.row for pending in group]), group)
            )
            left = [left[i] for i in rest]

    def pop(self) -> MicroBatch | None:
        """The oldest."""
        return self._ready.pop(0) if self._ready else None
