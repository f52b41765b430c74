"""Makes a new vault."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from antefix._files import sync_folder
from antefix.keys import DevicePublic
from antefix.receipts import LogKey
from antefix_server import _tables
from antefix_server._engine import Database
from antefix_server._keyfile import Identity, KeyFile
from antefix_server._logfile import LogFile
from antefix_server._seam import files
from antefix_server.errors import VaultUnavailable
from antefix_server.settings import KEYS, LOG, RECORDS, Settings

_WAIT_S = 5.0


def create(folder: Path, operator: DevicePublic, settings: Settings) -> None:
    """Make the files of a vault; `vault.json` last, without which there is none.

    Raises:
        VaultUnavailable: the folder has something in it, or the mirror is there already.
        InvalidArgument: no log can have that name.
    """
    LogKey(settings.origin, bytes(32))
    with files(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise VaultUnavailable(f"{folder} is not empty", "give a new folder")
    if settings.mirror is not None and settings.mirror.exists():
        raise VaultUnavailable(f"{settings.mirror} exists", "restore from it, or give another path")
    KeyFile.create(folder / KEYS, Identity.fresh(os.urandom(16), operator))
    if settings.url is None:
        database = Database.of_file(folder / RECORDS, wait_s=_WAIT_S, create=True)
    else:
        database = Database.of_url(settings.url, wait_s=_WAIT_S)
    with closing(database):
        _tables.upgrade(database)
    for path in (folder / LOG, settings.mirror):
        if path is not None:
            with files(path):
                LogFile(path, wait_s=_WAIT_S, create=True).database.close()
    settings.write(folder)
    with files(folder):
        sync_folder(folder.parent)
