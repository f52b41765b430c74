"""Streams read from asyncio without a thread for each: a piece wakes the loop that waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from antefix_server.engine.output_stream import OutputStream

__all__ = ["pieces"]

_GONE_S = 0.5  # how often it is looked whether somebody still reads


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
