"""One process at a time: the advisory lock of an open file, let go when its holder ends, however that is."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def try_lock(handle: int) -> bool:
    """Take the lock of an open file or folder until it is closed; False where another opening of it has it.

    Raises:
        OSError: this file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(handle: int) -> None:
    """Let go of the lock though a fork may have the file open still."""
    fcntl.flock(handle, fcntl.LOCK_UN)


@contextmanager
def hold_lock(path: Path, busy: Exception) -> Iterator[None]:
    """Hold the lock of a file, which is made for its owner alone if it is not there.

    Args:
        path: of the file.
        busy: raised where somebody else holds it.

    Raises:
        OSError: the file cannot be made, or its file system has no locks.
    """
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        if not try_lock(handle):
            raise busy
        yield
    finally:
        os.close(handle)
