"""Rows that run: one batch of all of them, or in exact mode one for each rounded size of a request."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from antefix import FrozenBase
from antefix.generation.engines import open_engine
from antefix.generation.interface import DecodingEngine, StepOutput
from antefix.generation.request import Size, TokenizedRequest

__all__ = ["BatchSet"]

_SMALL = 64  # positions that are kept for the next request when nothing runs


class BatchSet:
    """At most `most` rows together. Not for several threads at once.

    In exact mode a row's bits depend on nothing but its request and `most`: it is computed in a batch of
    `most` rows, dummies where nobody is, with requests of the same rounded size. Batches of different sizes
    take turns.
    """

    def __init__(self, base: FrozenBase, most: int, *, exact: bool) -> None:
        """Begin empty."""
        self._base, self._most, self._exact = base, most, exact
        self._batches: OrderedDict[Size, DecodingEngine] = OrderedDict()
        self._places: dict[int, tuple[Size, int]] = {}
        self._tickets = 0

    @property
    def free(self) -> int:
        """Rows that can join now."""
        return self._most - len(self._places)

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self._places)

    def join(self, prepared: TokenizedRequest) -> int:
        """Let a row in; return the ticket that its pieces will carry.

        Raises:
            InvalidArgument: no row is free, or it cannot join a batch.
        """
        size = prepared.size.rounded if self._exact else Size(_SMALL)
        if size not in self._batches:
            self._batches[size] = open_engine(self._base, self._most, size, exact=self._exact)
        inner = self._batches[size].add(prepared)
        self._tickets += 1
        self._places[self._tickets] = (size, inner)
        return self._tickets

    def cancel(self, ticket: int) -> None:
        """Let a row go before its end, if it is there."""
        if ticket in self._places:
            size, inner = self._places.pop(ticket)
            self._batches[size].cancel(inner)

    def step(self) -> list[StepOutput]:
        """One forward pass of the batch whose turn it is."""
        size, batch = next((size, batch) for size, batch in self._batches.items() if batch.busy)
        self._batches.move_to_end(size)
        tickets = {inner: ticket for ticket, (at, inner) in self._places.items() if at == size}
        pieces = [replace(piece, request_id=tickets[piece.request_id]) for piece in batch.step()]
        for piece in pieces:
            if piece.result is not None:
                del self._places[piece.request_id]
        return pieces

    def shrink(self) -> None:
        """Give back the memory of what nobody is in, but that of short rows."""
        for size, batch in list(self._batches.items()):
            if not batch.busy and batch.capacity.decoder > _SMALL:
                del self._batches[size]

    def clear(self) -> None:
        """Forget all rows and batches."""
        self._batches.clear()
        self._places.clear()
