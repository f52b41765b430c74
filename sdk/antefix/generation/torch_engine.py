"""The decoding engine on torch: rows that generate together, each with its own prefix and settings."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from antefix.attention.kv_cache import KVCache
from antefix.errors import InvalidArgument
from antefix.generation.detokenizer import IncrementalDetokenizer
from antefix.generation.forward import forward_decode
from antefix.generation.interface import StepOutput
from antefix.generation.prefill import PrefillShape, capacity_for, exact_shape, prefill
from antefix.generation.request import Finish, Generated, Size, TokenizedRequest, TokenLogprob, banned_tokens
from antefix.generation.sampling import choose, logprob_of, sampler_of
from antefix.model.frozen_base import FrozenBase

_PACK_TOKENS = 2048  # of one prefill, padding between the rows included


class ContinuousBatch:
    """A `DecodingEngine`: rows join at any time, and leave when they are done; their slots are used again.

    In `exact` mode every decoding step has the same shape, whoever is there: `rows` rows, dummies where
    nobody is, all looking at the same number of slots. Then a row's bits depend on that row alone. All
    requests of an exact batch have the same rounded size, which belongs to the shape.

    Attributes:
        on_logits: called with request id and logits [vocabulary] of every token, for tests.
    """

    def __init__(
        self, base: FrozenBase, rows: int, size: Size, *, exact: bool = False, streaming: bool = True
    ) -> None:
        """Make room for `rows` rows of `size`; unless exact, longer ones make it grow.

        Args:
            base: the frozen base.
            rows: rows at most.
            size: expected; rounded up to powers of two if exact.
            exact: see above.
            streaming: give text as it comes; else only with the result.
        """
        self.on_logits: Callable[[int, Tensor], None] | None = None
        self._base, self._exact, self._streaming = base, exact, streaming
        self._size = size.rounded if exact else size
        try:
            self._cache = KVCache(base, rows, capacity_for(self._size))
        except (RuntimeError, TypeError) as error:  # no memory, and sizes beyond 64 bits, in torch's words
            raise InvalidArgument(
                f"there is no memory for {rows} rows of {self._size.decoder} positions",
                "use a smaller max_rows",
            ) from error
        self._rows: list[_Row | None] = [None] * rows
        self._waiting: deque[_Row] = deque()
        self._last_id = 0
        self._banned = banned_tokens(base)

    @property
    def free(self) -> int:
        """Rows that can join now."""
        return self._rows.count(None) - len(self._waiting)

    @property
    def capacity(self) -> Size:
        """Positions of a row that memory is held for."""
        kinds = self._cache.capacity
        return Size(max(kinds.values()))

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self._waiting) or any(self._rows)

    def add(self, request: TokenizedRequest) -> int:
        """Let a row in; return the id that its outputs will carry.

        Raises:
            InvalidArgument: no row is free, it wants a beam search, or an exact batch is for another size.
        """
        if self.free < 1:
            raise InvalidArgument(f"all {len(self._rows)} rows are taken", "step until one is free")
        if request.request.num_beams > 1:
            raise InvalidArgument("a beam search cannot join a running batch", "use generate()")
        if self._exact and request.size.rounded != self._size:
            raise InvalidArgument(
                f"an exact batch of size {self._size} cannot take a request of {request.size.rounded}",
                "keep one batch per rounded size",
            )
        self._last_id += 1
        live = self._streaming or bool(request.request.stop)
        self._waiting.append(_Row(self._base, self._last_id, request, live))
        return self._last_id

    def cancel(self, request_id: int) -> bool:
        """Let a row go before its end; what it computed is zeroed. False where it is not there any more."""
        for row in self._waiting:
            if row.request_id == request_id:
                self._waiting.remove(row)
                return True
        for slot, occupant in enumerate(self._rows):
            if occupant is not None and occupant.request_id == request_id:
                self._rows[slot] = None
                self._cache.clear(slot)
                if not self._exact:
                    self._close_gaps()
                return True
        return False

    @torch.no_grad()
    def step(self) -> list[StepOutput]:
        """One forward pass: rows that wait are prefilled first; else every row gets its next token."""
        if self._waiting:
            return self._prefill(self._next_pack())
        return self._decode()

    def _next_pack(self) -> list[_Row]:
        """Rows to prefill together."""
        pack = [self._waiting.popleft()]
        if self._exact:
            shape = self._shape(pack[0])
            others = [row for row in self._waiting if shape is not None and self._shape(row) == shape]
            pack += others[: shape.rows - 1 if shape is not None else 0]
            self._waiting = deque(row for row in self._waiting if row not in pack)
            return pack
        longest = pack[0].tokens_to_read
        while self._waiting:
            longest = max(longest, self._waiting[0].tokens_to_read)
            if longest * (len(pack) + 1) > _PACK_TOKENS:
                break
            pack.append(self._waiting.popleft())
        return pack

    def _shape(self, row: _Row) -> PrefillShape | None:
        return exact_shape(self._base, self._cache, row.prepared, len(self._rows)) if self._exact else None

    def _prefill(self, pack: list[_Row]) -> list[StepOutput]:
        slots = []
        for row in pack:
            self._ensure_capacity(row.prepared.size)
            slots.append(self._rows.index(None))
            self._rows[slots[-1]] = row
        prepared = [row.prepared for row in pack]
        hidden = prefill(self._base, self._cache, slots, prepared, self._shape(pack[0]))
        return self._sample(hidden, slots)

    def _decode(self) -> list[StepOutput]:
        last = max((n for n, row in enumerate(self._rows) if row is not None), default=-1)
        if last < 0:
            return []
        rows = self._rows if self._exact else self._rows[: last + 1]
        tokens = [0 if row is None else row.tokens[-1] for row in rows]
        lengths = [None if row is None else row.filled for row in rows]
        hidden = forward_decode(self._base, self._cache, tokens, lengths, self._used(lengths))
        return self._sample(hidden, range(len(rows)))

    def _used(self, lengths: Sequence[Size | None]) -> Size:
        """Slots that a decoding step looks at."""
        if self._exact:
            return self._size
        longest = Size(0)
        for filled in lengths:
            longest = longest if filled is None else longest.union(filled)
        return Size(longest.decoder + 1, longest.cross)

    def _sample(self, hidden: Tensor, slots: Sequence[int]) -> list[StepOutput]:
        """Choose the next token of each row from `hidden` [slots, hidden]; rows that are done leave."""
        finite = hidden.isfinite().all(-1).tolist()
        logits = self._base.head.logits(hidden).float()  # of dummies too, for the shape is part of the bits
        rows = [(slot, row, n) for n, slot in enumerate(slots) if (row := self._rows[slot]) is not None]
        if self._banned:
            logits[:, self._banned] = float("-inf")
        if len(rows) < len(logits):
            logits = logits[[n for _, _, n in rows]]
        tokens = choose(logits, [row.sampler for _, row, _ in rows])
        outputs = []
        for (slot, row, n), token, row_logits in zip(rows, tokens, logits, strict=True):
            if self.on_logits is not None:
                self.on_logits(row.request_id, row_logits.clone())
            outputs.append(replace(row.take(token, row_logits), finite=finite[n]))
            if outputs[-1].result is not None:
                self._rows[slot] = None
                self._cache.clear(slot)
        if not self._exact:
            self._close_gaps()
        return outputs

    def _close_gaps(self) -> None:
        """Move the last rows into the gaps, so that a step computes no dummies."""
        count = sum(row is not None for row in self._rows)
        for gap in range(count):
            if self._rows[gap] is None:
                last = max(n for n, row in enumerate(self._rows) if row is not None)
                self._cache.move(last, gap)
                self._rows[gap], self._rows[last] = self._rows[last], None

    def _ensure_capacity(self, size: Size) -> None:
        for kind, positions in capacity_for(size).items():
            if positions > self._cache.capacity[kind]:
                self._cache.grow(kind, positions)


class _Row:
    """One request on its way."""

    def __init__(self, base: FrozenBase, request_id: int, prepared: TokenizedRequest, live: bool) -> None:
        self.request_id, self.prepared, self._live = request_id, prepared, live
        self.sampler = sampler_of(prepared.request)
        self.tokens: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._text = IncrementalDetokenizer(base.tokenizer, prepared.request.stop)

    @property
    def tokens_to_read(self) -> int:
        return max(len(self.prepared.inputs), len(self.prepared.source))

    @property
    def filled(self) -> Size:
        """Positions in the cache; those of the last token come with the next step."""
        decoder = self.prepared.length + len(self.prepared.inputs) + len(self.tokens) - 1
        return Size(decoder, self.prepared.size.cross)

    def take(self, token: int, logits: Tensor) -> StepOutput:
        """Add one token, chosen by logits [vocabulary]; the piece has the result if it is the last one."""
        if token in self.prepared.stop_token_ids:
            return self._finish("", "end", ())
        self.tokens.append(token)
        count, logprobs = self.prepared.request.logprobs, tuple[TokenLogprob, ...]()
        if count is not None:
            logprobs = (logprob_of(logits, token, count),)
            self._logprobs += logprobs
        text = self._text.push(token) if self._live else ""
        if self._text.stopped:
            return self._finish(text, "stop", logprobs)
        if len(self.tokens) == self.prepared.request.max_new_tokens:
            return self._finish(text, "length", logprobs)
        return StepOutput(self.request_id, text, None, logprobs)

    def _finish(self, text: str, finish: Finish, logprobs: tuple[TokenLogprob, ...]) -> StepOutput:
        if not self._live:
            for token in self.tokens:
                self._text.push(token)
        text += self._text.finish()
        finish = "stop" if self._text.stopped else finish
        result = Generated(self._text.text, tuple(self.tokens), finish, tuple(self._logprobs))
        return StepOutput(self.request_id, text, result, logprobs)
