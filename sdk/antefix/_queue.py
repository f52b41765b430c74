"""Which waiting rows run next, packed into micro-batches of constant size.

Users are not in lock-step, so rows of many users wait at any time and micro-batches run full. What runs
beside a row never matters to it, so any order is right; this one is first come, first fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from antefix._examples import Row
from antefix._spec import TrainingPlan
from antefix._steps import Shape
from antefix._users import Job


@dataclass(frozen=True)
class MicroBatch:
    """Rows that run together."""

    shape: Shape
    jobs: list[Job]


class RowQueue(Protocol):
    """Holds waiting rows and hands out micro-batches."""

    def add(self, jobs: Iterable[Job]) -> None:
        """Take the rows of one user's next step or evaluation."""
        ...

    def pop(self) -> MicroBatch | None:
        """The next micro-batch; None when no row waits."""
        ...


def row_queue(plan: TrainingPlan) -> RowQueue:
    """The queue that the plan asks for."""
    if plan.batching == "alone":
        return AloneQueue(plan.micro_batch_tokens)
    return StackedQueue(plan.micro_batch_tokens)


class StackedQueue:
    """Rows of all users in micro-batches of constant size."""

    def __init__(self, tokens: int) -> None:
        """Take the tokens of a micro-batch."""
        self._tokens = tokens
        self._waiting: dict[tuple[bool, Shape], list[Job]] = {}

    def add(self, jobs: Iterable[Job]) -> None:
        """Put each row with those of its size class."""
        for job in jobs:
            key = (job.weight is None, shape_class(job.row, self._tokens))
            self._waiting.setdefault(key, []).append(job)

    def pop(self) -> MicroBatch | None:
        """The fullest size class, oldest rows first."""
        if not self._waiting:
            return None
        key = max(self._waiting, key=lambda k: sum(job.row.tokens for job in self._waiting[k]) / k[1].tokens)
        chosen, left = first_fit([job.row for job in self._waiting[key]], key[1])
        jobs = self._waiting.pop(key)
        if left:
            self._waiting[key] = [jobs[i] for i in left]
        return MicroBatch(key[1], [jobs[i] for i in chosen])


class AloneQueue:
    """Rows of one user's step by themselves, in micro-batches of just their size.

    The shape depends on that user's own rows alone, which keeps the promise without dummies.
    """

    def __init__(self, tokens: int) -> None:
        """Take the tokens of a micro-batch at most."""
        self._tokens = tokens
        self._ready: list[MicroBatch] = []

    def add(self, jobs: Iterable[Job]) -> None:
        """Cut one user's rows into micro-batches."""
        left = list(jobs)
        while left:
            most = shape_class(left[0].row, self._tokens)
            chosen, rest = first_fit([job.row for job in left], most)
            group = [left[i] for i in chosen]
            tokens, source = sum(len(j.row.inputs) for j in group), sum(len(j.row.source) for j in group)
            self._ready.append(MicroBatch(Shape(tokens, source), group))
            left = [left[i] for i in rest]

    def pop(self) -> MicroBatch | None:
        """The oldest."""
        return self._ready.pop(0) if self._ready else None


def shape_class(row: Row, tokens: int) -> Shape:
    """Size of the micro-batches that a row takes part in: a function of that row alone."""
    times = max(1, -(-len(row.inputs) // tokens), -(-len(row.source) // tokens))
    return Shape(times * tokens, times * tokens if row.source else 0)


def first_fit(rows: list[Row], shape: Shape) -> tuple[list[int], list[int]]:
    """Numbers of the rows that go into `shape` in order, and of those that do not."""
    tokens, source = shape.tokens, shape.source_tokens
    chosen, left = [], []
    for number, row in enumerate(rows):
        if len(row.inputs) <= tokens and len(row.source) <= source:
            tokens, source = tokens - len(row.inputs), source - len(row.source)
            chosen.append(number)
        else:
            left.append(number)
    return chosen, left
