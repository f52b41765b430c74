"""HTTP that leaves connections for others: so many for each address, and no more."""

from __future__ import annotations

from collections import Counter
from typing import Any

from antefix.http.timeouts import TimeoutProtocol


def per_address_limit(most: int) -> type[TimeoutProtocol]:
    """A protocol for one server.

    Args:
        most: connections of an address. Many devices may share one: it is there for attacks.
    """
    open_now: Counter[str] = Counter()

    class Sparing(TimeoutProtocol):
        """Ends what is over the limit before it says anything."""

        _address = ""

        def connection_made(self, transport: Any) -> None:
            """One more of an address."""
            peer = transport.get_extra_info("peername")
            address = str(peer[0]) if peer else ""
            if open_now[address] >= most:
                transport.abort()
                return
            self._address = address
            open_now[address] += 1
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            """One less, if it was counted."""
            if not self._address:
                return
            open_now[self._address] -= 1
            if open_now[self._address] <= 0:
                del open_now[self._address]
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Nothing is read of one that is over."""
            if self._address:
                super().data_received(data)

    return Sparing
