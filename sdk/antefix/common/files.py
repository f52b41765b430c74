"""Writes files whole or not at all, and says what is wrong with one that a user named."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from antefix.errors import InvalidArgument


def atomic_write(target: Path, content: bytes) -> None:
    """Write beside `target` and rename, so that a crash leaves the old file or the new one.

    It outlives a power cut once this returns. It is readable by its owner only: prefixes and checkpoints are
    private.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder down to the disk; the content of a file is synced without its name."""
    if os.name == "nt":
        return  # there a folder is no file
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems over a network have nothing to sync
            raise
    finally:
        os.close(handle)


def ensure_absent(path: Path, hint: str = "choose a new path") -> None:
    """Refuse to write over what somebody has there.

    Raises:
        InvalidArgument: there is something, be it a link that leads nowhere.
    """
    if os.path.lexists(path):
        raise InvalidArgument(f"{path} is there already", hint)


@contextmanager
def readable(path: Path | str) -> Iterator[None]:
    """While a file is read that a user named: what the system says against it is the user's to mend.

    Raises:
        InvalidArgument: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}", "check the path") from None
