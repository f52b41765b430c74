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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Self

from antefix import FrozenBase, Generated, GenerationRequest, Prefix
from antefix.common.malloc import retain_large_blocks
from antefix.errors import AntefixError, GrantRefused, InvalidArgument, OutOfMemory
from antefix.generation.detokenizer import token_text
from antefix.generation.interface import StepOutput
from antefix.generation.request import Size, TokenizedRequest, tokenize
from antefix_server.engine.access import Granting
from antefix_server.engine.batches import Rows
from antefix_server.engine.buffer_scrub import scrub
from antefix_server.engine.limits import Limits
from antefix_server.engine.output_stream import Asked, Stream
from antefix_server.engine.prefix_cache import Bank
from antefix_server.engine.prefix_key import Applied
from antefix_server.engine.prefix_loader import openers
from antefix_server.engine.request_queue import Turns
from antefix_server.errors import EngineClosed, EngineLost, NoGrant, UnknownUser, VaultDamaged

__all__ = ["Engine"]

_LOG = logging.getLogger("antefix.server")
_OTHERS_S = 0.025  # of a look, for those who do not run: their prefixes are kept, or they wait


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
        self._bank = Bank(self.limits.bank_bytes)
        self._turns: Turns[Asked] = Turns(self.limits.waiting, self.limits.waiting_each)
        self._batch = Rows(base, self.limits.rows, exact=self.limits.exact)
        self._rows: dict[int, Asked] = {}
        self._opening: set[Applied] = set()
        self._posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock, self._wake, self._closing = threading.Lock(), threading.Event(), threading.Event()
        self._openers = openers(self.limits.openers)
        self._looked = self._sure = time.monotonic()
        self._seen = 0
        self.counts: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="antefix-engine", daemon=True)
        self._thread.start()

    def word(self, token: int) -> str:
        """Text of a token."""
        return token_text(self._base.tokenizer, token)

    def ask(self, user: bytes, settings: Mapping[str, Any], *, personal: bool = True) -> Stream:
        """Begin a request.

        Args:
            user: whose turn it takes, and whose prefix; from a token.
            settings: keywords of `GenerationRequest`, without `prefix`.
            personal: under the user's own prefix, which must be granted; else under none.

        Raises:
            NoGrant, EngineBusy, EngineClosed; UnknownUser: removed.
            InvalidArgument, TextTooLong, BaseUnsuitable: about the settings.
        """
        applied = self._applied(user) if personal else None
        prepared = tokenize(self._base, GenerationRequest(**settings))
        self._require_room(prepared)
        stream = Stream(len(prepared.inputs), self._wake.set)
        with self._lock:
            if self._closing.is_set():
                raise EngineClosed
            self._turns.add(user, Asked(user, applied, dict(settings), stream), self.limits.retry_s)
        self._wake.set()
        return stream

    def recheck(self, user: bytes) -> None:
        """Look at once whether this user's grants still hold; called after any change."""
        self._post(lambda: self._check([user], sure=True))

    def measured(self) -> dict[str, float]:
        """What is there now, and what has been counted; no personal data."""
        with self._lock:
            waiting = len(self._turns)
        now = {"rows": len(self._rows), "waiting": waiting, "bank_bytes": self._bank.bytes}
        return {**now, "bank_hits": self._bank.hits, "bank_wiped": self._bank.wiped, **self.counts}

    def close(self) -> None:
        """Take nothing new, let what is there end, and wipe every prefix."""
        with self._lock:
            self._closing.set()
        self._wake.set()
        self._thread.join()
        self._openers.shutdown()

    def __enter__(self) -> Self:
        """The engine."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    # --- in any thread

    def _applied(self, user: bytes) -> Applied:
        base = self._fingerprint.hex()
        grants = [one for one in self._grants.of(user) if one.base == base]
        if not grants:
            raise NoGrant
        return Applied.by(max(grants, key=lambda one: one.since))

    def _require_room(self, prepared: TokenizedRequest) -> None:
        new, stop = prepared.request.max_new_tokens, prepared.request.stop
        if len(stop) > self.limits.stops or sum(map(len, stop)) > self.limits.stop_chars:
            most = f"{self.limits.stops:,} of {self.limits.stop_chars:,} characters together"
            raise InvalidArgument(f"{len(stop):,} stop texts, {most} are allowed")
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

    def _open(self, applied: Applied) -> None:
        """In an opener's thread: vault and keys take milliseconds, in which others' steps go on."""
        try:
            with self._grants.open(applied.user, applied.grant, applied.base) as opened:
                applied.require(opened)
                prefix = opened.prefix()
        except AntefixError as error:
            failed = error
            self._post(lambda: self._failed(applied, failed))
        except Exception as error:  # whatever it is, somebody waits for it
            _LOG.error("opening failed: %s", type(error).__name__)
            self._post(lambda: self._failed(applied, EngineLost()))
        else:
            self._post(lambda: self._opened(applied, prefix))

    # --- in the engine's own thread

    def _run(self) -> None:
        with retain_large_blocks():
            until = float("inf")
            while self._goes_on(until):
                if self._closing.is_set() and until == float("inf"):
                    until = time.monotonic() + self.limits.drain_s
            self._end(lambda _: True, EngineClosed())
            self._bank.drop(lambda _: True)

    def _goes_on(self, until: float) -> bool:
        """As `_go_on`; after an error that nobody thought of, all begins anew, and nobody waits for ever."""
        try:
            return self._go_on(until)
        except Exception as error:
            _LOG.error("the engine failed: %s", type(error).__name__)
            self._end(lambda _: True, EngineLost())
            self._batch.clear()
            self._bank.drop(lambda _: True)
            self._looked = time.monotonic()
            return time.monotonic() < until

    def _go_on(self, until: float) -> bool:
        """One turn of the loop; False when all is done."""
        while not self._posted.empty():
            self._posted.get()()
        self._end(lambda asked: asked.stream.cancelled, None)
        if time.monotonic() - self._looked > self.limits.look_s:
            self._look()
        self._let_in()
        self._open_soon()
        if self._batch.busy:
            self._step()
            return time.monotonic() < until
        with self._lock:
            idle = not self._turns
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
        said = OutOfMemory("the server could not compute this", "try again in a while")
        self._end(lambda asked: bool(asked.ticket), said)
        self._batch.clear()

    def _deliver(self, piece: StepOutput) -> None:
        asked = self._rows[piece.request_id]
        if not piece.finite:
            self._batch.cancel(asked.ticket)
            self._finish(asked, _not_finite())
            return
        asked.stream.put(piece.text, piece.logprobs)
        if piece.result is not None:
            self.counts["tokens"] += len(piece.result.tokens)
            self._finish(asked, piece.result)

    def _let_in(self) -> None:
        while self._batch.free:
            with self._lock:
                asked = self._turns.next(self._ready)
            if asked is None:
                return
            try:
                self._require_still(asked)
                request = GenerationRequest(**asked.settings, prefix=asked.prefix)
                prepared = tokenize(self._base, request)
                self._require_room(prepared)  # with the prefix, which counts too
                asked.ticket = self._batch.join(prepared)
                self._rows[asked.ticket] = asked
            except AntefixError as error:
                self._finish(asked, error)
            except Exception as error:  # it neither waits nor runs: nobody else would end it
                _LOG.error("a request could not be let in: %s", type(error).__name__)
                self._finish(asked, EngineLost())

    def _require_still(self, asked: Asked) -> None:
        """Of who has waited: so many wait that `_look` does not come to all of them in time.

        Raises:
            GrantRefused: what was granted then does not hold any more.
        """
        if asked.applied is None or time.monotonic() - asked.stream.asked_at < self.limits.look_s:
            return
        if asked.applied not in self._holding(asked.user):
            raise GrantRefused("it does not hold any more")

    def _ready(self, asked: Asked) -> bool:
        """Whether its prefix is there; else somebody opens it meanwhile."""
        if asked.applied is None:
            return True
        asked.prefix = self._bank.lease(asked.applied)
        if asked.prefix is None:
            self._begin_opening(asked.applied)
        return asked.prefix is not None

    def _open_soon(self) -> None:
        """The prefixes of who comes next, before a row is free for them."""
        with self._lock:
            heads = self._turns.heads(self.limits.openers)
        for asked in heads:
            if asked.applied is not None and asked.applied not in self._bank:
                self._begin_opening(asked.applied)

    def _begin_opening(self, applied: Applied) -> None:
        if applied not in self._opening:
            self._opening.add(applied)
            self.counts["opened"] += 1
            self._openers.submit(self._open, applied)

    def _opened(self, applied: Applied, prefix: Prefix) -> None:
        self._opening.discard(applied)
        self._bank.keep(applied, prefix)
        self._check([applied.user], sure=True)  # it may have been revoked meanwhile

    def _failed(self, applied: Applied, error: AntefixError) -> None:
        self._opening.discard(applied)
        self._end(lambda asked: asked.applied == applied and not asked.ticket, error)

    def _look(self) -> None:
        """Of everybody who is at it, and of a part of those whose prefixes are kept or who wait.

        While the vault cannot be asked, what held a moment ago goes on; soon nothing of a grant does.
        """
        started = time.monotonic()
        with self._lock:
            waiting = {one.user: None for one in self._turns if one.applied is not None}
        others = list({one.user: None for one in self._bank.keys()} | waiting)  # noqa: SIM118
        at_it = {one.user for one in self._rows.values() if one.applied is not None}
        try:
            self._grants.tidy()
            self._check(chain(at_it, self._some(others, started + _OTHERS_S)))
            self._sure = started
        except AntefixError as error:
            if started - self._sure > self.limits.doubt_s:
                _LOG.warning("grants cannot be looked at: %s", type(error).__name__)
                self._end(lambda asked: asked.applied is not None, error)
                if self._bank.drop(lambda _: True):
                    self._scrub()
        self._looked = time.monotonic()  # others compute between two looks, however long these take

    def _some(self, others: Sequence[bytes], until: float) -> Iterator[bytes]:
        """Users in turn, one at least, as long as there is time."""
        for _ in others:
            self._seen = (self._seen + 1) % len(others)
            yield others[self._seen]
            if time.monotonic() > until:
                return

    def _check(self, users: Iterable[bytes], *, sure: bool = False) -> None:
        """End what does not hold any more; with `sure`, also of whom that cannot be told.

        What is damaged of one user ends that user alone: else it would leave everybody's grants in doubt.

        Raises:
            AntefixError: it cannot be told; or all of them are damaged, as if the vault were.
        """
        dropped, told = 0, False
        damaged: AntefixError | None = None
        for user in users:
            holds: set[Applied] = set()
            why: AntefixError = GrantRefused("it does not hold any more")
            try:
                holds = self._holding(user)
                told = True
            except (VaultDamaged, EngineLost) as error:
                why = damaged = error
            except AntefixError as error:
                if not sure:
                    raise
                why = error
            dropped += self._bank.drop(partial(_over, user, holds))
            self._end(partial(_asks_over, user, holds), why)
        if dropped:
            self._scrub()
        if damaged is not None and not told and not sure:
            raise damaged

    def _holding(self, user: bytes) -> set[Applied]:
        """What holds of a user's.

        Raises:
            VaultDamaged, EngineLost: about this user's rows, or the whole vault.
            AntefixError: it cannot be told.
        """
        try:
            return {Applied.by(one) for one in self._grants.of(user)}
        except UnknownUser:
            return set()
        except AntefixError:
            raise
        except Exception as error:  # a bit of a page makes a row's bytes a text, and nobody thinks of it
            _LOG.error("a user's grants cannot be read: %s", type(error).__name__)
            raise EngineLost from None  # as over a line

    def _scrub(self) -> None:
        try:
            scrub(self._base)
        except (AntefixError, RuntimeError) as error:  # no memory for it: whoever comes next does the same
            _LOG.warning("nothing was computed over a revoked prefix: %s", type(error).__name__)

    def _end(self, which: Callable[[Asked], bool], error: AntefixError | None) -> None:
        """End requests that run or wait; nobody is told where nobody reads."""
        for asked in [one for one in self._rows.values() if which(one)]:
            self._batch.cancel(asked.ticket)
            self._finish(asked, error)
        with self._lock:
            waiting = self._turns.remove(which)
        for asked in waiting:
            self._finish(asked, error)

    def _finish(self, asked: Asked, result: Generated | AntefixError | None) -> None:
        self._rows.pop(asked.ticket, None)
        if asked.applied is not None and asked.prefix is not None:
            self._bank.release(asked.applied, asked.prefix)
            asked.prefix = None
        name = "finished" if isinstance(result, Generated) else "cancelled" if result is None else "failed"
        self.counts[name] += 1
        asked.stream.end(result or EngineClosed())


def _not_finite() -> InvalidArgument:
    return InvalidArgument(
        "the model's numbers are NaN or infinite under this prefix", "train it anew, or ask without it"
    )


def _over(user: bytes, holds: set[Applied], one: Applied | None) -> bool:
    """Whether it is a user's, and nothing that holds."""
    return one is not None and one.user == user and one not in holds


def _asks_over(user: bytes, holds: set[Applied], asked: Asked) -> bool:
    return _over(user, holds, asked.applied)
