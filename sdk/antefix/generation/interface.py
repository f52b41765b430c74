"""What every decoding engine does: take tokenised requests, and give their tokens step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from antefix.generation.request import Generated, Size, TokenizedRequest, TokenLogprob
from antefix.model.frozen_base import FrozenBase


@dataclass(frozen=True)
class StepOutput:
    """What one step gave one request.

    Attributes:
        request_id: what `add` returned.
        text: what can be shown now; may be empty.
        result: of a request that is done.
        logprobs: of the token of this step, if the request asked for it; its text may come later.
        finite: whether the numbers are that chose this step's token; else the token means nothing.
    """

    request_id: int
    text: str
    result: Generated | None
    logprobs: tuple[TokenLogprob, ...] = ()
    finite: bool = True


class DecodingEngine(Protocol):
    """Requests that generate together, each under its own prefix and with its own settings.

    An engine is used by one thread at a time. Every engine keeps these promises:

    - A result belongs to its request: nothing of one user's prefix, prompt or logits, infinite and NaN ones
      included, reaches another request's tokens. Each request gets exactly one output with a `result`.
    - What an engine computed for a request is overwritten with zeros when the request is done or cancelled,
      before its memory serves another one.
    - A greedy request gives the tokens of a plain forward pass over prefix, prompt and tokens, up to ties
      within rounding; a drawn one depends on its own seed alone.
    - `exact` promises more: tokens and logits are a function of the request, the number of rows, the machine
      and the library versions, bit for bit. An engine that cannot promise it refuses `exact`.

    Attributes:
        on_logits: called with request id and logits [vocabulary], fp32, of every token; None calls nobody.
    """

    on_logits: Callable[[int, Tensor], None] | None

    @property
    def free(self) -> int:
        """Requests that can be added now."""

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""

    @property
    def capacity(self) -> Size:
        """Positions of one request that memory is held for."""

    def add(self, request: TokenizedRequest) -> int:
        """Let a request in, and return the id that its outputs will carry.

        Raises:
            InvalidArgument: no row is free, the engine does not do what the request asks (a beam search,
                say), or an exact engine is for another rounded size.
        """

    def step(self) -> list[StepOutput]:
        """Do the next piece of work: the first tokens of requests that wait, or one token of every other."""

    def cancel(self, request_id: int) -> bool:
        """Let a request go before its end, and overwrite what was computed. False where it is not there."""


class EngineFactory(Protocol):
    """Opens an engine."""

    def __call__(
        self, base: FrozenBase, rows: int, size: Size, *, exact: bool, streaming: bool
    ) -> DecodingEngine:
        """As `open_engine`."""
