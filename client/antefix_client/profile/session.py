"""An open profile, and whose turn it is to use it.

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
        learning: whoever learns holds it.
    """

    def __init__(self, profile: Profile) -> None:
        """Take an open profile."""
        self._profile = profile
        self._own = threading.RLock()
        self.learning = threading.Lock()

    @property
    def profile(self) -> Profile:
        """The profile, which others may be changing.

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
        with self._own:
            yield self.profile

    def close(self, drop: Callable[[], None]) -> None:
        """Close it, and let go of what was made from it; nothing where that was done already."""
        if self._profile.lock.inherited:  # the threads whose turn it may be stayed with the parent
            self._profile.close()
            drop()
            return
        with suppress(ProfileClosed), self.locked() as profile:
            profile.close()
            drop()
