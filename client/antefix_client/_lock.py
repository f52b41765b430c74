"""One process at a time has a profile open."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from antefix_client._seam import files
from antefix_client.errors import ProfileInUse


class Lock:
    """Held until `release`, or until the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Take it.

        Raises:
            ProfileInUse: another process, or another object of this one, holds it.
        """
        with files(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._file, 20, 0).decode("ascii", "replace").strip() or "?"
            os.close(self._file)
            raise ProfileInUse(
                f"the profile {path.parent} is in use by process {holder}",
                "close it there, or talk to its service (antefix serve)",
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next one in; the file stays, for deleting it would let two in."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
