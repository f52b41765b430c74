"""Refuses arguments that cannot be meant; a message names their type, for their value may be private."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from antefix.errors import InvalidArgument


def require(value: object, kind: type[object], what: str, hint: str = "") -> None:
    """Raise `InvalidArgument` if `value`, called `what`, is not a `kind`."""
    if not isinstance(value, kind):
        raise InvalidArgument(f"{what} is {_a(type(value))}, not {_a(kind)}", hint)


def require_text(value: object, what: str) -> None:
    """Raise `InvalidArgument` if `value`, called `what`, is no text.

    JSON can hold half of a surrogate pair, which is no character: no tokenizer takes it, no file either.
    """
    require(value, str, what)
    try:
        str(value).encode()
    except UnicodeEncodeError:  # the error keeps the whole text, so it is not chained
        raise InvalidArgument(
            f"{what} holds half of a surrogate pair, which is no character", "replace or leave out that half"
        ) from None


def require_users(users: object, what: str) -> None:
    """Raise `InvalidArgument` if `users`, called `what`, is no mapping whose keys are users' names."""
    require(users, Mapping, what, "write {user: …}")
    for user in users if isinstance(users, Mapping) else ():
        require(user, str, "the name of a user")


def path_of(value: object, what: str) -> Path:
    """The path that `value`, called `what`, names.

    Raises:
        InvalidArgument: it names none.
    """
    hint = "give a str or a pathlib.Path"
    if not isinstance(value, str | os.PathLike):
        raise InvalidArgument(f"{what} is {_a(type(value))}, not a path", hint)
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidArgument(f"{what} is empty, in bytes, or has a zero in it", hint)
    return Path(text)


def _a(kind: type[object]) -> str:
    """Its name with an article."""
    return f"{'an' if kind.__name__[0] in 'AEIOaeio' else 'a'} {kind.__name__}"
