"""Opens prefixes in threads, beside the steps of others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from antefix import Prefix
from antefix.errors import AntefixError
from antefix_server.engine.interface import Granting
from antefix_server.engine.prefix_cache import PrefixCache
from antefix_server.engine.prefix_key import PrefixKey
from antefix_server.errors import EngineLost

__all__ = ["PrefixLoader", "loader_pool"]

_LOG = logging.getLogger("antefix.server")


class PrefixLoader:
    """Opens granted prefixes into a cache. All but the opening itself is in the engine's own thread.

    Attributes:
        opened: prefixes whose opening was begun.
    """

    def __init__(
        self,
        grants: Granting,
        cache: PrefixCache,
        threads: int,
        post: Callable[[Callable[[], None]], None],
        on_loaded: Callable[[PrefixKey, AntefixError | None], None],
    ) -> None:
        """Open nothing yet.

        Args:
            grants: what opens.
            cache: where prefixes go.
            threads: that open.
            post: has a function called in the engine's own thread.
            on_loaded: called there when a prefix is in the cache, or with why it is not.
        """
        self._grants, self._cache, self._post, self._on_loaded = grants, cache, post, on_loaded
        self._loading: set[PrefixKey] = set()
        self._pool = loader_pool(threads)
        self.opened = 0

    def begin(self, key: PrefixKey) -> None:
        """Open a prefix, if nobody is at it."""
        if key not in self._loading:
            self._loading.add(key)
            self.opened += 1
            self._pool.submit(self._open, key)

    def close(self) -> None:
        """Wait for what is being opened."""
        self._pool.shutdown()

    def _open(self, key: PrefixKey) -> None:
        """In a thread of the pool: vault and keys take milliseconds, in which others' steps go on."""
        prefix: Prefix | None = None
        error: AntefixError | None = None
        try:
            with self._grants.open(key.user, key.grant, key.base) as opened:
                key.require(opened)
                prefix = opened.prefix()
        except AntefixError as refusal:
            error = refusal
        except Exception as failure:  # whatever it is, somebody waits for it
            _LOG.error("opening failed: %s", type(failure).__name__)
            error = EngineLost()
        self._post(lambda: self._finish(key, prefix, error))

    def _finish(self, key: PrefixKey, prefix: Prefix | None, error: AntefixError | None) -> None:
        self._loading.discard(key)
        if prefix is not None:
            self._cache.keep(key, prefix)
        self._on_loaded(key, error)


def loader_pool(count: int) -> ThreadPoolExecutor:
    """So many, all started; each computes by itself.

    A prefix is small. Torch would cut its numbers in parts for all cores, which others compute on, and wait
    for a core to be free: 20 ms where a thread of its own needs 0.2. Other threads keep their number.
    """
    threads, there = torch.get_num_threads(), threading.Barrier(count)
    pool = ThreadPoolExecutor(count, "antefix-opener", _alone)
    list(pool.map(lambda _: there.wait(), range(count)))
    torch.set_num_threads(threads)
    return pool


def _alone() -> None:
    """A thread takes over the number of the others with its first use of torch; then it has its own."""
    torch.get_num_threads()
    torch.set_num_threads(1)
