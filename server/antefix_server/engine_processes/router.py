"""Several engines: each user has one, as long as it is there, so that its prefix is opened once.

Which one follows from the user's id and the engines' numbers alone (rendezvous hashing, Thaler and
Ravishankar 1998): when an engine goes away its users alone move, each to the next in its own order, and they
return with it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

from antefix.errors import AntefixError
from antefix_server.engine.output_stream import OutputStream
from antefix_server.engine_processes.client import RemoteEngine
from antefix_server.errors import EngineLost

__all__ = ["EngineRouter", "rendezvous_order"]


def rendezvous_order(user: bytes, engines: int) -> list[int]:
    """Numbers of the engines, the user's own first."""
    return sorted(range(engines), key=lambda index: hashlib.blake2b(user, key=index.to_bytes(4)).digest())


class EngineRouter:
    """Asked like one `Engine`. Any thread may call anything."""

    def __init__(self, engines: Sequence[RemoteEngine]) -> None:
        """Take over engines, and wait until all of them answer.

        Raises:
            AntefixError: why one does not; all are closed then.
        """
        self._engines = list(engines)
        try:
            for engine in self._engines:
                engine.ready()
        except AntefixError:
            self.close()
            raise

    def ask(self, user: bytes, settings: Mapping[str, Any], *, personal: bool = True) -> OutputStream:
        """Begin a request at the user's engine, or at the next while that one is away.

        Raises:
            EngineLost: none is there.
            AntefixError: as `Engine.ask`.
        """
        for number in rendezvous_order(user, len(self._engines)):
            if self._engines[number].there:
                try:
                    return self._engines[number].ask(user, settings, personal=personal)
                except EngineLost:
                    continue
        raise EngineLost

    def recheck(self, user: bytes) -> None:
        """At all of them: more than one may have had it."""
        for engine in self._engines:
            engine.recheck(user)

    def word(self, token: int) -> str:
        """Text of a token that came with logprobs."""
        return next(word for engine in self._engines if (word := engine.word(token)) is not None)

    def measured(self) -> dict[str, float]:
        """Of all together, and how many are there."""
        totals: Counter[str] = Counter()
        for engine in self._engines:
            totals.update(engine.measured())
        return {**totals, "engines": sum(engine.there for engine in self._engines)}

    def close(self) -> None:
        """All at once, each as it closes."""
        closing = [threading.Thread(target=engine.close) for engine in self._engines]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()

    def __enter__(self) -> Self:
        """The engines."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        self.close()
