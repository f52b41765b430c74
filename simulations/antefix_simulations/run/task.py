"""What a worker is asked, and what it answers: plain data, so that any process can do it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from antefix.errors import AntefixError

__all__ = ["Result", "Task", "WorkerFailed"]


class WorkerFailed(AntefixError):
    """A worker could not do its task, and neither could another."""


@dataclass(frozen=True)
class Task:
    """One cohort's work.

    Attributes:
        kind: `round`, `newcomers`, `personal`, `history`, the name of an arm, or `tune_` and a method.
        number: of the cohort.
        users: by their number in the population.
        round: of `round` and `newcomers`; 0 else.
        shared: bytes of the shared prefix.
        rate: learning rate; 0 where the kind has none, or that of the settings.
    """

    kind: str
    number: int
    users: list[int]
    round: int
    shared: bytes = field(repr=False)
    rate: float = 0.0

    @property
    def name(self) -> str:
        """Of its result's file."""
        return f"{self.kind}-{self.round:05}-{self.number:06}"

    @staticmethod
    def kind_and_round(name: str) -> tuple[str, int]:
        """What a task of that name is."""
        kind, round, _ = name.rsplit("-", 2)
        return kind, int(round)


@dataclass
class Result:
    """A cohort's answer.

    Attributes:
        facts: a line for each user. Names of users are not in it, numbers are.
        weight: of the sum.
        sum: of the users' clipped updates, float64; None where there is none.
        records: sealed, by user; they go to the vault and are in no file of their own.
        seconds: that it took.
        tokens: that were computed.
        peak_mb: memory that the process had at most.
        micro_batch_tokens: of micro-batches, where they were halved for want of memory; 0 where not.
    """

    facts: list[dict[str, Any]] = field(default_factory=list)
    weight: float = 0.0
    sum: NDArray[np.float64] | None = None
    records: dict[int, bytes] = field(default_factory=dict)
    seconds: float = 0.0
    tokens: int = 0
    peak_mb: float = 0.0
    micro_batch_tokens: int = 0

    def to_bytes(self) -> bytes:
        """For a file; without records."""
        names = ("facts", "weight", "seconds", "tokens", "peak_mb", "micro_batch_tokens")
        values = {name: getattr(self, name) for name in names}
        buffer = io.BytesIO()
        numbers = np.zeros(0) if self.sum is None else self.sum
        np.save(buffer, numbers, allow_pickle=False)
        return json.dumps(values).encode() + b"\n" + buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """As it was written."""
        values, _, numbers = content.partition(b"\n")
        sum = np.load(io.BytesIO(numbers), allow_pickle=False)
        return cls(**json.loads(values), sum=sum if len(sum) else None)
