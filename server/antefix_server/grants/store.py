"""Grants of a user as they are kept: facts under its shred key, so that a removal leaves none."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from antefix.grants import Grant
from antefix.wire import Signed
from antefix_server.vault import user_rows
from antefix_server.vault.envelope import UserEnvelope
from antefix_server.vault.user_rows import Kind, UserRow

_MOST = 256


@dataclass(frozen=True)
class Kept:
    """A grant that the server has, or had.

    Attributes:
        grant: as its device signed it; None of one that was revoked, whose sealed key is gone.
        id: 16 bytes.
        until: seconds since 1970.
    """

    grant: Grant | None
    id: bytes
    until: int


def keep(connection: Connection, owner: UserEnvelope, signed: Signed, grant: Grant, now: float) -> bool:
    """Keep a grant in place of others for its prefix; False if it was revoked, or there are too many."""
    rows = user_rows.of(connection, owner, Kind.GRANT)
    left = 0
    for row in rows:
        stored = user_rows.opened(owner, row)
        if stored["id"] == grant.id:
            return bool(stored["body"])
        replaced = bool(stored["body"]) and stored["prefix"] == grant.prefix
        if stored["until"] <= now or (replaced and not _of_the_same_record(stored, grant)):
            user_rows.drop(connection, row)
            continue
        if replaced:
            # Its id stays: sent once more after a revocation, it would open what was revoked.
            _forget(connection, owner, row)
        left += 1
    if left >= _MOST:
        return False
    content = {
        "id": grant.id,
        "prefix": grant.prefix,
        "until": grant.until,
        "body": signed.body,
        "signature": signed.signature,
    }
    user_rows.add(connection, owner, Kind.GRANT, _mark(owner, grant.id), content)
    return True


def read(owner: UserEnvelope, rows: Iterable[UserRow]) -> list[Kept]:
    """What rows say."""
    return [_grant_from(user_rows.opened(owner, row)) for row in rows]


def revoked(connection: Connection, owner: UserEnvelope, id: bytes) -> bool:
    """Forget the sealed key of a grant, and remember its id while it could be sent again; counted."""
    row: UserRow | None = user_rows.by_mark(connection, Kind.GRANT, _mark(owner, id.hex()))
    if row is None:
        return False
    _forget(connection, owner, row)
    _count(connection, owner)
    return True


def all_revoked(connection: Connection, owner: UserEnvelope) -> int:
    """The same of all of them, counted as one revocation even where there was none; so many there were."""
    rows = [
        row for row in user_rows.of(connection, owner, Kind.GRANT) if user_rows.opened(owner, row)["body"]
    ]
    for row in rows:
        _forget(connection, owner, row)
    _count(connection, owner)
    return len(rows)


def revocations(connection: Connection, owner: UserEnvelope) -> int:
    """How often something was revoked. It only grows, while the user is there."""
    rows = user_rows.of(connection, owner, Kind.REVOCATIONS)
    return int(user_rows.opened(owner, rows[0])["count"]) if rows else 0


def _count(connection: Connection, owner: UserEnvelope) -> None:
    content = {"count": revocations(connection, owner) + 1}
    rows = user_rows.of(connection, owner, Kind.REVOCATIONS)
    if rows:
        user_rows.change(connection, owner, rows[0], content)
    else:
        mark = hmac.digest(owner.key.data, b"antefix/v1/registry revocations\0", "sha256")
        user_rows.add(connection, owner, Kind.REVOCATIONS, mark, content)


def _forget(connection: Connection, owner: UserEnvelope, row: UserRow) -> None:
    user_rows.change(connection, owner, row, {**user_rows.opened(owner, row), "body": "", "signature": ""})


def _of_the_same_record(stored: dict[str, Any], grant: Grant) -> bool:
    """One for another version cannot come back: what it is for is not stored any more."""
    return Grant.model_validate_json(stored["body"]).record == grant.record


def _grant_from(stored: dict[str, Any]) -> Kept:
    grant = Grant.model_validate_json(stored["body"]) if stored["body"] else None
    return Kept(grant, bytes.fromhex(stored["id"]), stored["until"])


def _mark(owner: UserEnvelope, id: str) -> bytes:
    return hmac.digest(owner.key.data, b"antefix/v1/registry grant\0" + id.encode(), "sha256")
