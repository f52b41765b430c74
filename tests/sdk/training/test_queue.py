"""Packing of rows into micro-batches."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antefix.data.tokenization import Row
from antefix.training.bucketing import Bucket, Buckets, first_fit
from antefix.training.queue import PerUserQueue, SharedQueue
from antefix.training.user_state import PendingRow


def row(tokens: int, source: int = 0) -> Row:
    return Row((5,) * tokens, (5,), (6,) * source)


def jobs(sizes: list[tuple[int, int]], weight: float | None = 1.0) -> list[PendingRow]:
    user: Any = SimpleNamespace(name="u")
    return [PendingRow(user, row(*size), place, weight) for place, size in enumerate(sizes)]


def drain(queue: Any) -> list[Any]:
    batches = []
    while batch := queue.pop():
        batches.append(batch)
    return batches


sizes = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 200)), min_size=1, max_size=40)


@pytest.mark.slow
@given(sizes=sizes, at_once=st.booleans())
def test_every_row_runs_once_at_a_shape_that_it_alone_names(
    sizes: list[tuple[int, int]], at_once: bool
) -> None:
    queue = SharedQueue(Buckets(64, at_once))
    waiting = jobs(sizes)
    queue.add(waiting)
    batches = drain(queue)
    assert sorted(id(job) for batch in batches for job in batch.rows) == sorted(map(id, waiting))
    for batch in batches:
        assert sum(len(job.row.inputs) for job in batch.rows) <= batch.shape.tokens
        assert sum(len(job.row.source) for job in batch.rows) <= batch.shape.source_tokens
        assert not at_once or len(batch.rows) <= batch.shape.rows
        assert not at_once or max(max(len(j.row.inputs), len(j.row.source)) for j in batch.rows) <= (
            batch.shape.width
        )
        assert all(Buckets(64, at_once).bucket_for(job.row) == batch.shape for job in batch.rows)


@given(sizes=sizes)
def test_alone_there_are_no_dummies(sizes: list[tuple[int, int]]) -> None:
    queue = PerUserQueue(Buckets(64, at_once=False))
    queue.add(jobs(sizes))
    for batch in drain(queue):
        assert batch.shape.tokens == sum(len(job.row.inputs) for job in batch.rows)


def test_evaluations_and_steps_do_not_mix() -> None:
    queue = SharedQueue(Buckets(64, at_once=False))
    queue.add(jobs([(5, 0)]))
    queue.add(jobs([(5, 0)], weight=None))
    assert [len(batch.rows) for batch in drain(queue)] == [1, 1]


def test_first_fit_fills_gaps_with_later_rows() -> None:
    assert first_fit([row(40), row(30), row(24), row(1)], Bucket(64)) == ([0, 2], [1, 3])
