"""Looks again and again whether grants still hold, and ends what does not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Protocol

from antefix import FrozenBase
from antefix.errors import AntefixError, GrantRefused
from antefix_server.engine.buffer_scrub import scrub
from antefix_server.engine.interface import Granting
from antefix_server.engine.limits import Limits
from antefix_server.engine.output_stream import QueuedRequest
from antefix_server.engine.prefix_cache import PrefixCache
from antefix_server.engine.prefix_key import PrefixKey
from antefix_server.errors import EngineLost, UnknownUser, VaultDamaged

__all__ = ["GrantWatch", "Requests"]

_LOG = logging.getLogger("antefix.server")
_OTHERS_S = 0.025  # of a look, for those who do not run: their prefixes are kept, or they wait


class Requests(Protocol):
    """What runs and waits in an engine."""

    def running_users(self) -> set[bytes]:
        """Whose rows run under a prefix."""

    def waiting_users(self) -> list[bytes]:
        """Who waits for a row under a prefix."""

    def end(self, which: Callable[[QueuedRequest], bool], error: AntefixError | None) -> None:
        """End requests that run or wait."""


class GrantWatch:
    """Of one engine, in its own thread."""

    def __init__(
        self, base: FrozenBase, grants: Granting, limits: Limits, cache: PrefixCache, requests: Requests
    ) -> None:
        """Nothing was looked at yet; nothing runs yet either."""
        self._base, self._grants, self._limits = base, grants, limits
        self._cache, self._requests = cache, requests
        self._next_other = 0
        self._looked = self._sure = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time to look."""
        return time.monotonic() - self._looked > self._limits.look_s

    def postpone(self) -> None:
        """Look again only when the time for a look has passed from now."""
        self._looked = time.monotonic()

    def look(self) -> None:
        """Check everybody who is at it, and a part of those whose prefixes are kept or who wait.

        While the vault cannot be asked, what held a moment ago goes on; soon nothing of a grant does.
        """
        started = time.monotonic()
        cached = [key.user for key in self._cache.keys()]  # noqa: SIM118
        others = list(dict.fromkeys([*cached, *self._requests.waiting_users()]))
        try:
            self._grants.tidy()
            self.check(chain(self._requests.running_users(), self._some(others, started + _OTHERS_S)))
            self._sure = started
        except AntefixError as error:
            if started - self._sure > self._limits.doubt_s:
                _LOG.warning("grants cannot be looked at: %s", type(error).__name__)
                self._requests.end(lambda request: request.key is not None, error)
                if self._cache.drop(lambda _: True):
                    self._scrub()
        self.postpone()  # others compute between two looks, however long these take

    def check(self, users: Iterable[bytes], *, sure: bool = False) -> None:
        """End what does not hold any more; with `sure`, also of whom that cannot be told.

        What is damaged of one user ends that user alone: else it would leave everybody's grants in doubt.

        Raises:
            AntefixError: it cannot be told; or all of them are damaged, as if the vault were.
        """
        dropped, is_any_readable = 0, False
        damaged: AntefixError | None = None
        for user in users:
            valid: set[PrefixKey] = set()
            why: AntefixError = GrantRefused("it does not hold any more")
            try:
                valid = self.valid_keys(user)
                is_any_readable = True
            except (VaultDamaged, EngineLost) as error:
                why = damaged = error
            except AntefixError as error:
                if not sure:
                    raise
                why = error
            dropped += self._cache.drop(partial(_is_over, user, valid))
            self._requests.end(partial(_asks_over, user, valid), why)
        if dropped:
            self._scrub()
        if damaged is not None and not is_any_readable and not sure:
            raise damaged

    def valid_keys(self, user: bytes) -> set[PrefixKey]:
        """What holds of a user's.

        Raises:
            VaultDamaged, EngineLost: about this user's rows, or the whole vault.
            AntefixError: it cannot be told.
        """
        try:
            return {PrefixKey.by(grant) for grant in self._grants.of(user)}
        except UnknownUser:
            return set()
        except AntefixError:
            raise
        except Exception as error:  # a bit of a page makes a row's bytes a text, and nobody thinks of it
            _LOG.error("a user's grants cannot be read: %s", type(error).__name__)
            raise EngineLost from None  # as over a line

    def _some(self, others: Sequence[bytes], until: float) -> Iterator[bytes]:
        """Users in turn, one at least, as long as there is time."""
        for _ in others:
            self._next_other = (self._next_other + 1) % len(others)
            yield others[self._next_other]
            if time.monotonic() > until:
                return

    def _scrub(self) -> None:
        try:
            scrub(self._base)
        except (AntefixError, RuntimeError) as error:  # no memory for it: whoever comes next does the same
            _LOG.warning("nothing was computed over a revoked prefix: %s", type(error).__name__)


def _is_over(user: bytes, valid: set[PrefixKey], key: PrefixKey | None) -> bool:
    """Whether it is a user's, and nothing that holds."""
    return key is not None and key.user == user and key not in valid


def _asks_over(user: bytes, valid: set[PrefixKey], request: QueuedRequest) -> bool:
    return _is_over(user, valid, request.key)
