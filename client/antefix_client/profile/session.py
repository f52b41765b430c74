"""An open profile, and whose turn it is to use it.

Everything in this package that needs the profile of an open model goes through its session.
Locks are taken in this order and in no other: learning, loading the base, the profile's own. The last one is
held for moments; who holds it never waits for another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from antefix_client.errors import ProfileClosed
from antefix_client.profile.profile import Profile


class ProfileSession:
    """One profile, for any number of threads.

    Attributes:
        learning_lock: whoever learns holds it.
    """

    def __init__(self, profile: Profile) -> None:
        """Take an open profile."""
        self._profile = profile
        self._lock = threading.RLock()
        self.learning_lock = threading.Lock()

    @property
    def profile(self) -> Profile:
        """The profile without the lock: others may be changing it.

        Raises:
            ProfileClosed, ProfileInUse.
        """
        self._profile.lock.require()
        return self._profile

    @contextmanager
    def locked(self) -> Iterator[Profile]:
        """The profile, which nobody else changes meanwhile.

        Raises:
            ProfileClosed, ProfileInUse: also where it was closed while this waited.
        """
        self._profile.lock.require()  # in a fork the lock may be held by a thread that is not there
        with self._lock:
            yield self.profile

    def close(self, unload: Callable[[], None]) -> None:
        """Close it, and let go of what was made from it; nothing where that was done already."""
        if self._profile.lock.inherited:  # the threads whose turn it may be stayed with the parent
            self._profile.close()
            unload()
            return
        with suppress(ProfileClosed), self.locked() as profile:
            profile.close()
            unload()
