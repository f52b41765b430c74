"""What a worker is asked, and what it answers: plain data, so that any process can do it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Kind", "Result", "Task"]

Kind = Literal[
    "round",
    "newcomers",
    "personal",
    "history",
    "context",
    "retrieved",
    "lora",
    "full",
    "tune_private",
    "tune_lora",
    "tune_full",
]
"""What a task can be."""


@dataclass(frozen=True)
class Task:
    """One cohort's work.

    Attributes:
        kind: what to do.
        number: of the cohort.
        users: by their number in the population.
        round: of `round` and `newcomers`; 0 else.
        shared: bytes of the shared prefix.
        rate: learning rate; 0 where the kind has none, or that of the settings.
    """

    kind: Kind
    number: int
    users: list[int]
    round: int
    shared: bytes = field(repr=False)
    rate: float = 0.0

    @property
    def name(self) -> str:
        """Of its result's file."""
        return f"{self.kind}-{self.round:05}-{self.number:06}"


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
        told = {name: getattr(self, name) for name in names}
        held = io.BytesIO()
        numbers = np.zeros(0) if self.sum is None else self.sum
        np.save(held, numbers, allow_pickle=False)
        return json.dumps(told).encode() + b"\n" + held.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """As it was written."""
        told, _, numbers = content.partition(b"\n")
        sum = np.load(io.BytesIO(numbers), allow_pickle=False)
        return cls(**json.loads(told), sum=sum if len(sum) else None)
