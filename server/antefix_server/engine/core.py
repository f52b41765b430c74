"""The engine: one thread that lets rows in, computes steps, and ends the rows of who may not stay.

with Engine(base, grants) as engine:
    stream = engine.ask(user, {"prompt": "Dear all,", "max_new_tokens": 24})
    for text in stream:
        …
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Self

from antefix import FrozenBase, Generated, GenerationRequest
from antefix.common.malloc import retain_large_blocks
from antefix.errors import AntefixError, GrantRefused, InvalidArgument, OutOfMemory
from antefix.generation.detokenizer import token_text
from antefix.generation.interface import StepOutput
from antefix.generation.request import Size, TokenizedRequest, tokenize
from antefix_server.engine.batches import BatchSet
from antefix_server.engine.grant_watch import GrantWatch
from antefix_server.engine.interface import Granting
from antefix_server.engine.limits import Limits
from antefix_server.engine.output_stream import OutputStream, QueuedRequest
from antefix_server.engine.prefix_cache import PrefixCache
from antefix_server.engine.prefix_key import PrefixKey
from antefix_server.engine.prefix_loader import PrefixLoader
from antefix_server.engine.request_queue import FairRequestQueue
from antefix_server.errors import EngineClosed, EngineLost, NoGrant

__all__ = ["Engine"]

_LOG = logging.getLogger("antefix.server")


class Engine:
    """Generates for many users at once. Any thread may ask; one of its own computes.

    Attributes:
        counts: of requests and tokens, by what came of them; no personal data.
    """

    def __init__(self, base: FrozenBase, grants: Granting, limits: Limits | None = None) -> None:
        """Begin with an empty batch."""
        self._base, self._grants, self.limits = base, grants, limits or Limits()
        self._fingerprint = bytes.fromhex(base.fingerprint)
        self._position_bytes = base.layout.width * base.head.weight.element_size()
        self._cache = PrefixCache(self.limits.bank_bytes)
        self._queue: FairRequestQueue[QueuedRequest] = FairRequestQueue(
            self.limits.waiting, self.limits.waiting_each
        )
        self._batch = BatchSet(base, self.limits.rows, exact=self.limits.exact)
        self._rows: dict[int, QueuedRequest] = {}
        self._posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock, self._wake, self._closing = threading.Lock(), threading.Event(), threading.Event()
        self._loader = PrefixLoader(grants, self._cache, self.limits.openers, self._post, self._loaded)
        self._watch = GrantWatch(base, grants, self.limits, self._cache, self)
        self.counts: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="antefix-engine", daemon=True)
        self._thread.start()

    def word(self, token: int) -> str:
        """Text of a token."""
        return token_text(self._base.tokenizer, token)

    def ask(self, user: bytes, settings: Mapping[str, Any], *, personal: bool = True) -> OutputStream:
        """Begin a request.

        Args:
            user: whose turn it takes, and whose prefix; from a token.
            settings: keywords of `GenerationRequest`, without `prefix`.
            personal: under the user's own prefix, which must be granted; else under none.

        Raises:
            NoGrant, EngineBusy, EngineClosed; UnknownUser: removed.
            InvalidArgument, TextTooLong, BaseUnsuitable: about the settings.
        """
        key = self._granted_key(user) if personal else None
        prepared = tokenize(self._base, GenerationRequest(**settings))
        self._require_room(prepared)
        stream = OutputStream(len(prepared.inputs), self._wake.set)
        with self._lock:
            if self._closing.is_set():
                raise EngineClosed
            self._queue.add(user, QueuedRequest(user, key, dict(settings), stream), self.limits.retry_s)
        self._wake.set()
        return stream

    def recheck(self, user: bytes) -> None:
        """Look at once whether this user's grants still hold; called after any change."""
        self._post(lambda: self._watch.check([user], sure=True))

    def measured(self) -> dict[str, float]:
        """What is there now, and what has been counted; no personal data."""
        with self._lock:
            waiting = len(self._queue)
        now = {"rows": len(self._rows), "waiting": waiting, "bank_bytes": self._cache.bytes}
        return {
            **now,
            "bank_hits": self._cache.hits,
            "bank_wiped": self._cache.wiped,
            "opened": self._loader.opened,
            **self.counts,
        }

    def close(self) -> None:
        """Take nothing new, let what is there end, and wipe every prefix."""
        with self._lock:
            self._closing.set()
        self._wake.set()
        self._thread.join()
        self._loader.close()

    def __enter__(self) -> Self:
        """The engine."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    # --- in any thread

    def _granted_key(self, user: bytes) -> PrefixKey:
        base = self._fingerprint.hex()
        grants = [grant for grant in self._grants.of(user) if grant.base == base]
        if not grants:
            raise NoGrant
        return PrefixKey.by(max(grants, key=lambda grant: grant.since))

    def _require_room(self, prepared: TokenizedRequest) -> None:
        new, stop = prepared.request.max_new_tokens, prepared.request.stop
        if len(stop) > self.limits.stops or sum(map(len, stop)) > self.limits.stop_chars:
            limit = f"{self.limits.stops:,} of {self.limits.stop_chars:,} characters together"
            raise InvalidArgument(f"{len(stop):,} stop texts, {limit} are allowed")
        if new > self.limits.new_tokens:
            raise InvalidArgument(f"{new:,} new tokens, {self.limits.new_tokens:,} are allowed")
        if self._bytes(prepared.size) > self.limits.batch_bytes:
            raise InvalidArgument(f"there is no memory for {prepared.size.decoder:,} positions")

    def _bytes(self, size: Size) -> int:
        size = size.rounded if self.limits.exact else size
        return self.limits.rows * (size.decoder + size.cross) * self._position_bytes

    def _post(self, work: Callable[[], None]) -> None:
        self._posted.put(work)
        self._wake.set()

    # --- in the engine's own thread

    def _run(self) -> None:
        with retain_large_blocks():
            until = float("inf")
            while self._goes_on(until):
                if self._closing.is_set() and until == float("inf"):
                    until = time.monotonic() + self.limits.drain_s
            self.end(lambda _: True, EngineClosed())
            self._cache.drop(lambda _: True)

    def _goes_on(self, until: float) -> bool:
        """As `_go_on`; after an error that nobody thought of, all begins anew, and nobody waits for ever."""
        try:
            return self._go_on(until)
        except Exception as error:
            _LOG.error("the engine failed: %s", type(error).__name__)
            self.end(lambda _: True, EngineLost())
            self._batch.clear()
            self._cache.drop(lambda _: True)
            self._watch.postpone()
            return time.monotonic() < until

    def _go_on(self, until: float) -> bool:
        """One turn of the loop; False when all is done."""
        while not self._posted.empty():
            self._posted.get()()
        self.end(lambda request: request.stream.cancelled, None)
        if self._watch.is_due:
            self._watch.look()
        self._admit()
        self._prefetch()
        if self._batch.busy:
            self._step()
            return time.monotonic() < until
        with self._lock:
            idle = not self._queue
        if idle and self._closing.is_set():
            return False
        if idle:
            self._batch.shrink()
        self._wake.wait(self.limits.look_s)
        self._wake.clear()
        return time.monotonic() < until

    def _step(self) -> None:
        try:
            pieces = self._batch.step()
        except (AntefixError, RuntimeError) as error:  # nobody knows whose row it was
            self._broken(error)
            return
        for piece in pieces:
            self._deliver(piece)

    def _broken(self, error: Exception) -> None:
        """End all rows of a step that failed, for want of memory most likely, and begin anew."""
        _LOG.error("a step failed: %s", type(error).__name__)
        failure = OutOfMemory("the server could not compute this", "try again in a while")
        self.end(lambda request: bool(request.ticket), failure)
        self._batch.clear()

    def _deliver(self, piece: StepOutput) -> None:
        request = self._rows[piece.request_id]
        if not piece.finite:
            self._batch.cancel(request.ticket)
            self._finish(request, _not_finite())
            return
        request.stream.put(piece.text, piece.logprobs)
        if piece.result is not None:
            self.counts["tokens"] += len(piece.result.tokens)
            self._finish(request, piece.result)

    def _admit(self) -> None:
        while self._batch.free:
            with self._lock:
                request = self._queue.next(self._ready)
            if request is None:
                return
            try:
                self._require_still(request)
                settings = GenerationRequest(**request.settings, prefix=request.prefix)
                prepared = tokenize(self._base, settings)
                self._require_room(prepared)  # with the prefix, which counts too
                request.ticket = self._batch.join(prepared)
                self._rows[request.ticket] = request
            except AntefixError as error:
                self._finish(request, error)
            except Exception as error:  # it neither waits nor runs: nobody else would end it
                _LOG.error("a request could not be let in: %s", type(error).__name__)
                self._finish(request, EngineLost())

    def _require_still(self, request: QueuedRequest) -> None:
        """Of who has waited: so many wait that the watch does not come to all of them in time.

        Raises:
            GrantRefused: what was granted then does not hold any more.
        """
        if request.key is None or time.monotonic() - request.stream.asked_at < self.limits.look_s:
            return
        if request.key not in self._watch.valid_keys(request.user):
            raise GrantRefused("it does not hold any more")

    def _ready(self, request: QueuedRequest) -> bool:
        """Whether its prefix is there; else somebody opens it meanwhile."""
        if request.key is None:
            return True
        request.prefix = self._cache.acquire(request.key)
        if request.prefix is None:
            self._loader.begin(request.key)
        return request.prefix is not None

    def _prefetch(self) -> None:
        """The prefixes of who comes next, before a row is free for them."""
        with self._lock:
            heads = self._queue.heads(self.limits.openers)
        for request in heads:
            if request.key is not None and request.key not in self._cache:
                self._loader.begin(request.key)

    def _loaded(self, key: PrefixKey, error: AntefixError | None) -> None:
        """A prefix is in the cache, or cannot be opened."""
        if error is None:
            self._watch.check([key.user], sure=True)  # it may have been revoked meanwhile
        else:
            self.end(lambda request: request.key == key and not request.ticket, error)

    def running_users(self) -> set[bytes]:
        """Whose rows run under a prefix."""
        return {request.user for request in self._rows.values() if request.key is not None}

    def waiting_users(self) -> list[bytes]:
        """Who waits for a row under a prefix."""
        with self._lock:
            return [request.user for request in self._queue if request.key is not None]

    def end(self, which: Callable[[QueuedRequest], bool], error: AntefixError | None) -> None:
        """End requests that run or wait; nobody is told where nobody reads."""
        for request in list(filter(which, self._rows.values())):
            self._batch.cancel(request.ticket)
            self._finish(request, error)
        with self._lock:
            waiting = self._queue.remove(which)
        for request in waiting:
            self._finish(request, error)

    def _finish(self, request: QueuedRequest, result: Generated | AntefixError | None) -> None:
        self._rows.pop(request.ticket, None)
        if request.key is not None and request.prefix is not None:
            self._cache.release(request.key, request.prefix)
            request.prefix = None
        name = "finished" if isinstance(result, Generated) else "cancelled" if result is None else "failed"
        self.counts[name] += 1
        request.stream.end(result or EngineClosed())


def _not_finite() -> InvalidArgument:
    return InvalidArgument(
        "the model's numbers are NaN or infinite under this prefix", "train it anew, or ask without it"
    )
