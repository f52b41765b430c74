"""The folder of a run: its owner's alone, and one run at a time."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from antefix.common.file_lock import hold_lock
from antefix.errors import InvalidArgument

__all__ = ["damaged_file", "explain_full_disk", "explain_interrupt", "locked"]

_LOCK = ".lock"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder, and keep others out of it meanwhile. One that was made for nothing goes away.

    Raises:
        InvalidArgument: another run is under way in it, or it cannot be made.
    """
    new = not folder.exists()
    busy = InvalidArgument(f"another run is under way in {folder}", "wait for it, or choose another --out")
    with ExitStack() as held:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            held.enter_context(hold_lock(folder / _LOCK, busy))
        except FileExistsError:
            raise InvalidArgument(f"{folder} is not a folder", "choose another --out") from None
        except OSError as error:
            raise InvalidArgument(
                f"{folder} cannot be made: {error.strerror}", "choose another --out"
            ) from None
        try:
            yield
        except BaseException:
            if new and os.listdir(folder) == [_LOCK]:
                (folder / _LOCK).unlink()
                folder.rmdir()
            raise


@contextmanager
def explain_interrupt(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Where Ctrl-C ends the block, say what it leaves."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"what is finished is in {folder}; the same command goes on")
        raise


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Say plainly that the disk is full, or may not be written to, or that the texts there are damaged.

    Raises:
        InvalidArgument: so it is.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise InvalidArgument(
            f"{folder} cannot be written: {error.strerror}", "make room; the same command goes on"
        ) from None
    except sqlite3.DatabaseError:
        raise InvalidArgument(f"{folder / 'population.db'} is damaged", "choose another --out") from None


def damaged_file(path: Path) -> InvalidArgument:
    """What to raise where a file of a run cannot be read."""
    return InvalidArgument(f"{path} is damaged", "delete it: the same command makes it again")
