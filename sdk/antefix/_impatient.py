"""HTTP that does not wait for ever; needs uvicorn, which the extras bring that serve something."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEADERS_S = 10.0


class Impatient(H11Protocol):
    """HTTP for clients that send a request's head within ten seconds; slow-loris attacks do not.

    uvicorn itself waits without end. How long a body may take is the application's business.
    """

    _deadline: asyncio.TimerHandle | None = None

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

    def connection_lost(self, exc: Exception | None) -> None:
        """No clock is left behind."""
        self._stop()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(HEADERS_S, self.transport.abort)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
