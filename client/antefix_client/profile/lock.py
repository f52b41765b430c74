"""One process at a time has a profile open."""

from __future__ import annotations

import os
from pathlib import Path

from antefix.common.file_lock import unlock
from antefix_client.errors import ProfileClosed, ProfileInUse
from antefix_client.profile.os_errors import translate_os_errors
from antefix_client.profile.safe_files import open_locked, open_regular


class Lock:
    """Held until `release`, or until the process ends, however it ends.

    Whoever writes to a profile asks `require` first: after `release` nothing may be written any more.
    """

    def __init__(self, path: Path) -> None:
        """Take it.

        Raises:
            ProfileInUse: another process, or another object of this one, holds it.
            ProfileUnwritable: it is no file of its own.
        """
        self._owner = os.getpid()
        self._path = path
        with translate_os_errors(path):
            handle = open_locked(path)
        if handle is None:
            raise ProfileInUse(
                f"the profile {path.parent} is in use by process {_holder(path)}",
                "close it there, or talk to its service (antefix serve)",
            )
        self._file = handle
        if os.fstat(self._file).st_nlink == 1:  # else it is somebody's file under a second name
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{self._owner}\n".encode(), 0)

    @property
    def held(self) -> bool:
        """Whether it was not released yet, here or in the process that this one was forked from."""
        return self._file >= 0

    @property
    def inherited(self) -> bool:
        """Whether this process is a fork of the one that took it: two would write the same files."""
        return os.getpid() != self._owner

    def require(self) -> None:
        """Refuse to go on without it.

        Raises:
            ProfileClosed: it was released.
            ProfileInUse: this process is a fork of the one that took it.
        """
        if not self.held:
            raise ProfileClosed()
        if self.inherited:
            raise ProfileInUse(
                f"the profile was opened by process {self._owner}, this is its child {os.getpid()}",
                "close it before a fork, and open it after",
            )

    def delete(self) -> None:
        """Delete the file while it is held: whoever waits for it notices, and makes a new one."""
        with translate_os_errors(self._path):
            self._path.unlink(missing_ok=True)

    def release(self) -> None:
        """Let the next one in; the file stays, for deleting it would let two in."""
        if not self.held:
            return
        if not self.inherited:  # said aloud: a fork may have the file open still
            unlock(self._file)
        os.close(self._file)
        self._file = -1


def _holder(path: Path) -> str:
    """Number of the process that has the lock, as it wrote it; `?` where that cannot be read."""
    try:
        handle = open_regular(path, os.O_RDONLY)
    except OSError:
        return "?"
    try:
        content = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
    finally:
        os.close(handle)
    return content if content.isdigit() else "?"
