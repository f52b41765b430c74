"""The one place where errors of the system and the database become ours."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from antefix_server.errors import VaultBusy, VaultDamaged, VaultError, VaultFull, VaultUnavailable

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_AGAIN = "try again; if it stays so, see what else has the database open"
_PRIMARY = 0xFF  # SQLite's extended codes have the primary one in the low byte


@contextmanager
def files(path: Path) -> Iterator[None]:
    """Translate errors about a file.

    Raises:
        VaultFull, VaultUnavailable: with the path, never with content.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise VaultFull(
                f"no space left for {path}", "free some; nothing that was stored is lost"
            ) from error
        raise VaultUnavailable(f"{path}: {error.strerror}", "check the folder and its owner") from error


@contextmanager
def database(name: str) -> Iterator[None]:
    """Translate errors about a database.

    Args:
        name: what the operator calls it; no password in it.

    Raises:
        VaultBusy, VaultFull, VaultDamaged, VaultUnavailable: never with a value in them.
    """
    try:
        yield
    except DBAPIError as error:
        raise _translated(name, error.orig) from error
    except SQLAlchemyError as error:
        raise VaultUnavailable(
            f"{name}: {type(error).__name__}", "check that it runs and can be reached"
        ) from error
    except sqlite3.Error as error:
        raise _translated(name, error) from error


def _translated(name: str, error: BaseException | None) -> VaultError:
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
    state = getattr(error, "sqlstate", None) or ""
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or state in ("55P03", "40001", "40P01", "57014"):
        return VaultBusy(f"{name} is locked by somebody else", _AGAIN)
    if code == sqlite3.SQLITE_FULL or state == "53100":
        return VaultFull(f"no space left for {name}", "free some; nothing that was stored is lost")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or state.startswith("XX"):
        return VaultDamaged(f"{name} is damaged", "restore it from a backup")
    reason = getattr(error, "sqlite_errorname", None) or state or type(error).__name__
    return VaultUnavailable(
        f"{name} cannot be used ({reason})", "check that it runs and can be reached, then try again"
    )
