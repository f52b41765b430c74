"""The progress bar of long calls."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, ClassVar, Never
from weakref import WeakSet

from tqdm import tqdm

if TYPE_CHECKING:
    _Bar = tqdm[Never]
else:
    _Bar = tqdm


class ProgressBar(_Bar):
    """As tqdm's, for a process that may fork.

    All bars of tqdm, shown or not, share a lock with every fork of their process. A child killed while it
    holds that stops its parent, and all its brothers, at their next bar for ever. These share it with nobody,
    and have no thread that watches them: a fork in the middle of its work would leave the child without.
    """

    monitor_interval = 0
    _instances: ClassVar[WeakSet[Any]] = WeakSet()
    _lock = threading.RLock()

    def __init__(self, **settings: Any) -> None:
        """As tqdm; the clock is looked at after every step, for nobody watches slow ones."""
        super().__init__(miniters=1, **settings)


def _unlocked() -> None:
    ProgressBar.set_lock(threading.RLock())  # the thread that may hold it stayed with the parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlocked)
