"""One process at a time has a profile open."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from antefix_client.errors import ProfileClosed, ProfileInUse
from antefix_client.profile.os_errors import translate_os_errors
from antefix_client.profile.safe_files import has_name, open_regular


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
        while True:
            with translate_os_errors(path):
                self._file = open_regular(path, os.O_RDWR | os.O_CREAT)
            self._take()
            if has_name(self._file, path):
                break
            os.close(self._file)  # whoever held it deleted it with the profile
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
            fcntl.flock(self._file, fcntl.LOCK_UN)
        os.close(self._file)
        self._file = -1

    def _take(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            said = os.pread(self._file, 20, 0).decode("ascii", "replace").strip()
            os.close(self._file)
            raise ProfileInUse(
                f"the profile {self._path.parent} is in use by process {said if said.isdigit() else '?'}",
                "close it there, or talk to its service (antefix serve)",
            ) from None
