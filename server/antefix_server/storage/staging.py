"""Folders for files that are not whole yet: a kill leaves them, the next run takes them away."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from antefix.common.file_lock import try_lock
from antefix_server.errors import VaultBusy
from antefix_server.storage.os_errors import files


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """An empty folder for this call alone, gone afterwards.

    It has the same name each time. Under a new one, what a killed backup has written would lie for ever where
    nobody looks for it, and removal must know where everything is.

    Raises:
        VaultBusy: somebody else is at the same.
    """
    with files(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        with files(path):
            os.fchmod(handle, 0o700)  # refused if it is somebody else's
            if not try_lock(handle):
                raise VaultBusy(f"somebody else writes to {path}", "wait until that is done")
            for left in path.iterdir():
                left.unlink()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(handle)
