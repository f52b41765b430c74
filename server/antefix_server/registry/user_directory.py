"""Users by the names that an operator gave them. A name finds its row by an HMAC under a key of the vault."""

from __future__ import annotations

import hmac
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from antefix.crypto.aead import decrypt, encrypt
from antefix.errors import InvalidArgument
from antefix_server.errors import NameTaken, NameUnknown, UnknownUser
from antefix_server.vault import Vault, user_rows
from antefix_server.vault.envelope import UserEnvelope
from antefix_server.vault.user_rows import Kind, UserRow

_LONGEST_NAME = 200
_LABEL = b"antefix/v1/registry name\0"


@dataclass(frozen=True)
class User:
    """A user as the operator sees it.

    Attributes:
        name: as it was added.
        id: 16 random bytes.
        added: seconds since 1970.
        suspended: its devices are not let in for now.
    """

    name: str
    id: bytes
    added: int
    suspended: bool


class UserDirectory:
    """Users of one vault by name. Any thread may call anything."""

    def __init__(self, vault: Vault) -> None:
        """Use an open vault."""
        self._vault = vault
        self._database, self._index_key = vault.shelf.database, vault.identity.index_key

    def mark(self, name: str) -> bytes:
        """What stands for a name in the database; the same for names that the eye does not tell apart.

        Raises:
            InvalidArgument: what is no name.
        """
        return hmac.digest(self._index_key, b"name\0" + _folded(name).encode(), "sha256")

    def refuse_taken(self, name: str, mark: bytes) -> None:
        """Require that nobody has a name.

        Raises:
            NameTaken.
        """
        with self._database.reading() as connection:
            if user_rows.by_mark(connection, Kind.USER, mark) is not None:
                raise NameTaken(f"there is a user {name!r}", "choose another name, or invite that one again")

    def insert(self, connection: Connection, owner: UserEnvelope, user: User, mark: bytes) -> None:
        """Keep a new user."""
        hint = encrypt(self._index_key, _LABEL + mark, user.id)
        user_rows.add(connection, owner, Kind.USER, mark, _content(user), hint)

    def suspend(self, name: str, suspended: bool) -> User:
        """Change whether a user's devices are let in.

        Raises:
            NameUnknown.
        """
        with self.owner_of(name) as owner, self._database.writing() as connection:
            row = self._row(connection, name)
            previous = _user(owner, row)
            user = User(previous.name, previous.id, previous.added, suspended)
            user_rows.change(connection, owner, row, _content(user))
            return user

    def find(self, name: str) -> User:
        """A user by name.

        Raises:
            NameUnknown.
        """
        with self.owner_of(name) as owner, self._database.reading() as connection:
            return _user(owner, self._row(connection, name))

    def all(self) -> Iterator[User]:
        """All users, in the order in which they were added."""
        last = 0
        while True:
            with self._database.reading() as connection:
                rows = user_rows.after(connection, Kind.USER, last)
            if not rows:
                return
            for row in rows:
                try:
                    with self._vault.owner(self._id_in(row)) as owner:
                        yield _user(owner, row)
                except UnknownUser:
                    continue  # removed meanwhile
            last = rows[-1].id

    def count(self) -> int:
        """How many users there are."""
        with self._database.reading() as connection:
            return user_rows.count(connection, Kind.USER)

    def owner_of(self, name: str) -> UserEnvelope:
        """The keys of a user.

        Raises:
            NameUnknown: no user of that name, or removed meanwhile.
        """
        with self._database.reading() as connection:
            row = self._row(connection, name)
        try:
            return self._vault.owner(self._id_in(row))
        except UnknownUser:
            raise _unknown(name) from None

    def _row(self, connection: Connection, name: str) -> UserRow:
        row = user_rows.by_mark(connection, Kind.USER, self.mark(name))
        if row is None:
            raise _unknown(name)
        return row

    def _id_in(self, row: UserRow) -> bytes:
        return user_beside(row, self._index_key, _LABEL) or bytes(16)


def user_beside(row: UserRow, key: bytes, label: bytes) -> bytes | None:
    """The user's id beside a row, 16 bytes; None where it is not there or cannot be decrypted."""
    plain = None if row.hint is None else decrypt(key, label + row.mark, row.hint)
    return None if plain is None else bytes(plain.data)


def _unknown(name: str) -> NameUnknown:
    return NameUnknown(f"there is no user {name!r}", "antefix-server users list")


def _folded(name: object) -> str:
    """A name without what the eye does not tell apart.

    Raises:
        InvalidArgument: what is no name.
    """
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        size = len(name) if isinstance(name, str) else 0
        raise InvalidArgument(f"a name of {size:,} characters", f"1 to {_LONGEST_NAME}")
    folded = unicodedata.normalize("NFKC", name).casefold()
    if not folded.isprintable() or folded != folded.strip() or folded == "":
        raise InvalidArgument("the name has characters in it that do not show", "use letters and digits")
    return folded


def _content(user: User) -> dict[str, Any]:
    return {"name": user.name, "added": user.added, "suspended": user.suspended}


def _user(owner: UserEnvelope, row: UserRow) -> User:
    return User(id=owner.user, **user_rows.opened(owner, row))
