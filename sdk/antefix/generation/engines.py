"""The decoding engines, by name. Another one is a file with an `EngineFactory`, and a line here."""

from __future__ import annotations

from antefix.errors import InvalidArgument
from antefix.generation.interface import DecodingEngine, EngineFactory
from antefix.generation.request import Size
from antefix.generation.torch_engine import ContinuousBatch
from antefix.model.frozen_base import FrozenBase

ENGINES: dict[str, EngineFactory] = {
    "torch": ContinuousBatch,
}


def open_engine(
    base: FrozenBase,
    rows: int,
    size: Size,
    *,
    exact: bool = False,
    streaming: bool = True,
    engine: str = "torch",
) -> DecodingEngine:
    """Open a decoding engine without requests.

    Args:
        base: the frozen base.
        rows: requests that run together at most.
        size: positions expected of one request. An exact engine takes requests of this rounded size alone;
            another one grows for a longer request.
        exact: make a request's bits independent of the others; see `DecodingEngine`.
        streaming: give text as it comes; else only with the result.
        engine: a name in `ENGINES`.

    Raises:
        InvalidArgument: an unknown engine, or no memory for so many rows.
    """
    if engine not in ENGINES:
        raise InvalidArgument(
            f"there is no decoding engine {engine!r:.60}", f"use one of {', '.join(sorted(ENGINES))}"
        )
    return ENGINES[engine](base, rows, size, exact=exact, streaming=streaming)
