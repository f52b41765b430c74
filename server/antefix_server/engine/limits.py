"""How much an engine takes at once."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Of one engine.

    Attributes:
        rows: that run together.
        waiting, waiting_each: requests that wait, of all and of one user.
        batch_bytes: keys and values of the running batch.
        bank_bytes: opened prefixes.
        openers: threads that open prefixes.
        new_tokens: of one request.
        stops, stop_chars: texts that end one request, and characters of all of them: each is looked for after
            every token.
        look_s: how often it looks whether grants still hold.
        doubt_s: how long what runs may go on while the vault cannot be asked whether grants hold.
        retry_s: what a caller is told when too many wait.
        drain_s: how long requests may take to end when it closes.
        exact: compute each row so that its bits do not depend on who else is there, at the cost of dummies.
    """

    rows: int = 16
    waiting: int = 1024
    waiting_each: int = 8
    batch_bytes: int = 2**31
    bank_bytes: int = 2**30
    openers: int = 2
    new_tokens: int = 1024
    stops: int = 16
    stop_chars: int = 1024
    look_s: float = 0.25
    doubt_s: float = 1.0
    retry_s: float = 2.0
    drain_s: float = 30.0
    exact: bool = False
