"""HTTP that does not wait for ever; needs uvicorn, which the extras bring that serve something."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEADERS_S = 10.0
STALLED_S = 60.0


class TimeoutProtocol(H11Protocol):
    """HTTP for clients that send a request's head within ten seconds, and go on reading what they asked for.

    Slow-loris attacks do neither, and uvicorn itself waits without end. Who takes nothing of what waits for a
    minute is let go: an answer would stay in memory for as long. How long a body may take is the
    application's business.
    """

    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """The first head is awaited."""
        super().connection_made(transport)
        self._await_head()

    def handle_events(self) -> None:
        """A head that is there stops the clock; the next one starts it."""
        super().handle_events()
        cycle: RequestResponseCycle | None = self.cycle  # None before the first head
        waiting = cycle is None or cycle.response_complete
        if waiting and self._deadline is None:
            self._await_head()
        elif not waiting:
            self._stop()

    def pause_writing(self) -> None:
        """The other side does not read."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It does."""
        super().resume_writing()
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """No clock is left behind."""
        self._stop()
        self._go_on()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(HEADERS_S, self.transport.abort)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _go_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
