"""Makes a new vault."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from antefix.common.files import sync_folder
from antefix.keys import DevicePublic
from antefix.receipts import LogKey
from antefix_server.errors import VaultUnavailable
from antefix_server.removal_log.log_file import LogFile
from antefix_server.storage import migrate
from antefix_server.storage.database import Database
from antefix_server.storage.os_errors import files
from antefix_server.vault.key_file import Identity, KeyFile
from antefix_server.vault.settings import KEYS, LOG, RECORDS, Settings

_WAIT_S = 5.0


@contextmanager
def created(folder: Path, operator: DevicePublic, settings: Settings) -> Iterator[None]:
    """Make the files of a vault for a block that opens it first; where either fails there are none again.

    Those of a database of its own stay, where only the opening failed: it may belong to them by then.

    Raises:
        VaultUnavailable: the folder has something in it, or the mirror is there already.
        InvalidArgument: no log can have that name, or no database that URL.
    """
    LogKey(settings.origin, bytes(32))
    with files(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise VaultUnavailable(f"{folder} is not empty", "give a new folder")
    if settings.mirror is not None and settings.mirror.exists():
        raise VaultUnavailable(f"{settings.mirror} exists", "restore from it, or give another path")
    with files(folder):  # of two who begin at once one is refused here, and clears nothing
        (folder / KEYS).touch(mode=0o600, exist_ok=False)
    claimed = False
    try:
        _make(folder, operator, settings)
        claimed = settings.url is not None  # from here on that database may know these keys' vault
        yield
    except BaseException:  # else the next try, with a better URL, would find a folder that is not empty
        if not claimed:
            _clear(folder, settings.mirror)
        raise


def _make(folder: Path, operator: DevicePublic, settings: Settings) -> None:
    """The files; `vault.json` last, without which there is no vault."""
    KeyFile.create(folder / KEYS, Identity.fresh(os.urandom(16), operator))
    if settings.url is None:
        database = Database.of_file(folder / RECORDS, wait_s=_WAIT_S, create=True)
    else:
        database = Database.of_url(settings.url, wait_s=_WAIT_S)
    with closing(database):
        migrate.upgrade(database)
    for path in (folder / LOG, settings.mirror):
        if path is not None:
            with files(path):
                LogFile(path, wait_s=_WAIT_S, create=True).database.close()
    settings.write(folder)
    with files(folder):
        sync_folder(folder.parent)


def _clear(folder: Path, mirror: Path | None) -> None:
    """Delete what was made. All of it is ours: the folder was empty, and there was no mirror."""
    mirror_files = [] if mirror is None or not (folder / LOG).exists() else _database_files(mirror)
    for path in [*mirror_files, *folder.iterdir()]:
        with suppress(OSError):
            path.unlink()


def _database_files(path: Path) -> list[Path]:
    return [path, *(path.with_name(f"{path.name}-{suffix}") for suffix in ("wal", "shm", "journal"))]
