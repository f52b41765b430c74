"""Buckets of micro-batches: constants of plan and device, of which a row's own length picks one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from antefix.data.tokenization import Row
from antefix.model.frozen_base import FrozenBase

_CPU_TOKENS, _GPU_TOKENS = 512, 8192
_TOKENS_PER_ROW = 32  # on a GPU there is room for a row per so many tokens
_LEAST_WIDTH = 128


@dataclass(frozen=True)
class Bucket:
    """Constant shape of a micro-batch, dummies included.

    Attributes:
        tokens: of the decoder.
        source_tokens: of the encoder.
        rows: whose attention is computed at once; 0 for row by row.
        width: tokens to which a row is padded in attention at once.
    """

    tokens: int
    source_tokens: int = 0
    rows: int = 0
    width: int = 0


@dataclass(frozen=True)
class Buckets:
    """What micro-batches look like.

    A CPU computes attention row by row, at each row's own size. That would starve a GPU, which computes
    it for all rows at once, padded to one width.

    Attributes:
        tokens: of a micro-batch of rows that are not longer.
        at_once: attention over all rows at once.
    """

    tokens: int
    at_once: bool

    @classmethod
    def of(cls, base: FrozenBase, tokens: int | None) -> Self:
        """Buckets for the base's device; a number of `tokens` is taken as given."""
        gpu = base.device.type != "cpu"
        return cls(tokens or (_GPU_TOKENS if gpu else _CPU_TOKENS), gpu)

    def bucket_for(self, row: Row) -> Bucket:
        """Bucket of the micro-batches that a row takes part in: a function of that row alone."""
        longest = max(len(row.inputs), len(row.source))
        tokens = max(1, -(-longest // self.tokens)) * self.tokens
        rows = max(1, tokens // _TOKENS_PER_ROW) if self.at_once else 0
        return Bucket(tokens, tokens if row.source else 0, rows, self._width(longest))

    def tight_bucket(self, rows: Sequence[Row]) -> Bucket:
        """Bucket that just holds these rows."""
        tokens, source = sum(len(row.inputs) for row in rows), sum(len(row.source) for row in rows)
        longest = max(max(len(row.inputs), len(row.source)) for row in rows)
        return Bucket(tokens, source, len(rows) if self.at_once else 0, self._width(longest))

    def _width(self, longest: int) -> int:
        return max(_LEAST_WIDTH, 1 << (longest - 1).bit_length()) if self.at_once else 0


def first_fit(rows: Sequence[Row], shape: Bucket) -> tuple[list[int], list[int]]:
    """Numbers of the rows that go into `shape` in order, and of those that do not."""
    tokens, source = shape.tokens, shape.source_tokens
    max_rows = shape.rows or len(rows)
    chosen: list[int] = []
    rest: list[int] = []
    for number, row in enumerate(rows):
        if len(chosen) < max_rows and len(row.inputs) <= tokens and len(row.source) <= source:
            tokens, source = tokens - len(row.inputs), source - len(row.source)
            chosen.append(number)
        else:
            rest.append(number)
    return chosen, rest
