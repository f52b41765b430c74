"""Plain files of a profile, and nothing that only looks like one.

Who can write to the folder could put links and pipes there: what is opened or overwritten must be a file of
the profile itself, never what a link points at.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from antefix.common.file_lock import try_lock
from antefix.common.files import atomic_write, sync_folder
from antefix_client.profile.os_errors import translate_os_errors

_BLOCK = 2**20
_LEFT = re.compile(
    r"\.(profile\.json|keys|texts|state|learning|moving|server|shared\.safetensors"
    r"|\d{8,20}(-[0-9a-f]{8})?\.record)\.[a-z0-9_]{8}"
)


def open_regular(path: Path, flags: int) -> int:
    """Open a file, new ones for their owner alone; the handle.

    Raises:
        OSError: it is a link, a pipe, a folder.
    """
    # A pipe without a writer would be waited for.
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return handle


def open_locked(path: Path) -> int | None:
    """Open a file, new ones for their owner alone, and take its lock; None where another opening has it.

    Raises:
        OSError: it is a link, a pipe, a folder; or its file system has no locks.
    """
    while True:
        handle = open_regular(path, os.O_RDWR | os.O_CREAT)
        try:
            locked = try_lock(handle)
            if locked and has_name(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if not locked:
            return None
        # Whoever held it has moved or deleted the file meanwhile: the lock is on what has no name any more.


def has_name(handle: int, path: Path) -> bool:
    """Whether an open file is the one that has the name; else it was deleted, moved or replaced."""
    try:
        named = os.lstat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(handle))


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole; a folder that is gone is not made again: its profile was destroyed."""
    with translate_os_errors(path):
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "its folder is gone", str(path))
        atomic_write(path, content)


def secure_delete(path: Path) -> None:
    """Overwrite a file with zeros, then delete it. What a drive keeps of old sectors, this does not reach.

    A link is deleted, not what it points at; so is a second name of a file.
    """
    with translate_os_errors(path):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            handle = open_regular(path, os.O_WRONLY)
            try:
                overwrite(handle)
            finally:
                os.close(handle)
        path.unlink()
        sync_folder(path.parent)


def overwrite(handle: int) -> None:
    """Overwrite an open file with zeros; durable on return."""
    size = os.fstat(handle).st_size
    for at in range(0, size, _BLOCK):
        os.pwrite(handle, bytes(min(_BLOCK, size - at)), at)
    os.fsync(handle)


def delete_leftovers(folder: Path) -> None:
    """Delete what writes of ours left that were cut off; other people's hidden files stay."""
    with translate_os_errors(folder):
        left = [path for path in folder.iterdir() if _LEFT.fullmatch(path.name)]
    for path in left:
        if not path.is_dir() or path.is_symlink():
            secure_delete(path)
