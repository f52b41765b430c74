"""One request on its way through the engine, and what its caller reads from it."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from antefix import Generated, Prefix
from antefix.errors import AntefixError
from antefix.generation.request import TokenLogprob
from antefix_server.engine.prefix_key import PrefixKey

__all__ = ["OutputStream", "QueuedRequest", "pieces"]

_GONE_S = 0.5  # how often it is looked whether somebody still reads


@dataclass
class QueuedRequest:
    """A request that waits or runs. Private.

    Attributes:
        user: 16 bytes; whose turn it takes.
        key: whose prefix, of which version; None for none.
        settings: keywords of a `GenerationRequest`, without the prefix.
        stream: where the answer goes.
        prefix: as soon as it is there.
        ticket: of the row; 0 before it joins.
    """

    user: bytes
    key: PrefixKey | None
    settings: dict[str, Any] = field(repr=False)
    stream: OutputStream = field(repr=False)
    prefix: Prefix | None = field(default=None, repr=False)
    ticket: int = 0


class OutputStream:
    """What comes of one request: pieces of text, then the result. Private.

    One thread puts, one takes. It holds no more than the request may be long.

    Attributes:
        prompt_tokens: that were read.
        asked_at: seconds of a monotonic clock: when it was asked.
    """

    def __init__(self, prompt_tokens: int, wake: Callable[[], None]) -> None:
        """Nothing has come yet; `wake` is called when nobody reads any more."""
        self._pieces: queue.SimpleQueue[str | Generated | AntefixError] = queue.SimpleQueue()
        self._ahead: list[AntefixError] = []
        self._logprobs: deque[TokenLogprob] = deque()
        self._cancelled = threading.Event()
        self._listener: Callable[[], None] = _nobody
        self.prompt_tokens, self._wake = prompt_tokens, wake
        self.asked_at = time.monotonic()
        self.result: Generated | None = None

    def put(self, text: str, logprobs: Iterable[TokenLogprob] = ()) -> None:
        """A piece, and how likely its tokens were, if that was asked."""
        self._logprobs.extend(logprobs)
        if text:
            self._pieces.put(text)
            self._listener()

    def end(self, result: Generated | AntefixError) -> None:
        """Nothing comes after this."""
        self._pieces.put(result)
        self._listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call this, in the engine's thread, whenever there is something to take."""
        self._listener = listener

    def taken(self) -> list[str]:
        """What is there now, without waiting; `ended` is true after the last.

        Raises:
            AntefixError: why it ended before; not before all pieces were given.
        """
        result: list[str] = []
        while True:
            try:
                piece = self._ahead.pop() if self._ahead else self._pieces.get_nowait()
            except queue.Empty:
                return result
            if isinstance(piece, str):
                result.append(piece)
            elif isinstance(piece, Generated):
                self.result = piece
                return result
            elif result:
                self._ahead.append(piece)
                return result
            else:
                raise piece

    def logprobs_taken(self) -> list[TokenLogprob]:
        """Those that came since they were last taken; may be of tokens whose text comes later."""
        return [self._logprobs.popleft() for _ in range(len(self._logprobs))]

    @property
    def ended(self) -> bool:
        """Whether all was taken."""
        return self.result is not None

    def cancel(self) -> None:
        """Nobody reads any more; the row ends with its next step."""
        self._cancelled.set()
        self._wake()

    @property
    def cancelled(self) -> bool:
        """Whether nobody reads any more."""
        return self._cancelled.is_set()

    def __iter__(self) -> Iterator[str]:
        """The pieces as they come; at the end `result` is there.

        Raises:
            AntefixError: why it ended before.
        """
        while True:
            piece = self._pieces.get()
            if isinstance(piece, str):
                yield piece
            elif isinstance(piece, Generated):
                self.result = piece
                return
            else:
                raise piece


async def pieces(
    stream: OutputStream, gone: Callable[[], Awaitable[bool]] | None = None
) -> AsyncIterator[str]:
    """Pieces of text as they come; whoever stops reading ends the request.

    Args:
        stream: read by nobody else.
        gone: whether the caller went away; looked at where nothing is sent meanwhile.

    Raises:
        AntefixError: why the request ended before its end.
    """
    loop, more = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop was closed before the row ended
            loop.call_soon_threadsafe(more.set)

    stream.listen(wake)
    try:
        look = loop.time() + _GONE_S
        while not stream.ended:
            for piece in stream.taken():
                yield piece
            if stream.ended:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(_GONE_S):
                    await more.wait()
            more.clear()
            if gone is not None and loop.time() > look:
                look = loop.time() + _GONE_S
                if await gone():
                    return
    finally:
        stream.cancel()


def _nobody() -> None:
    """Nobody listens."""
