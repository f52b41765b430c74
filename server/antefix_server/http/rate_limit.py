"""How often somebody may ask: a token bucket for each of them, in constant memory."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

_MOST = 100_000


class RateLimiter:
    """Lets each one ask so many times a minute, a minute's worth at once."""

    def __init__(self, per_minute: int) -> None:
        """Start with nobody known."""
        self._most, self._lock = float(per_minute), threading.Lock()
        self._left: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def retry_after_s(self, who: bytes) -> float:
        """0 where one may ask now, which is counted; else how long to wait.

        Who has not asked for longest is forgotten first: by then the bucket is full again, unless more than
        100,000 ask at once.
        """
        now = time.monotonic()
        with self._lock:
            left, at = self._left.pop(who, (self._most, now))
            left = min(self._most, left + (now - at) * self._most / 60)
            wait = 0.0 if left >= 1 else (1 - left) * 60 / self._most
            self._left[who] = (left if wait else left - 1, now)
            if len(self._left) > _MOST:
                self._left.popitem(last=False)
        return wait
