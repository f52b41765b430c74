"""Where the operating system's refusals become ours."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from antefix.common.files import atomic_write, ensure_absent
from antefix_client.errors import ProfileFull, ProfileUnwritable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def translate_os_errors(path: Path) -> Iterator[None]:
    """Translate what reading and writing `path` may raise.

    Raises:
        ProfileFull: no space.
        ProfileUnwritable: anything else.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ProfileFull(f"no space left to write {path}; nothing was lost", "free some space") from None
        raise ProfileUnwritable(
            f"{path} cannot be read or written: {error.strerror}", "check the folder and its rights"
        ) from None


def write_new(path: Path, content: bytes, hint: str = "choose a new path") -> None:
    """Write a file that a user named, whole or not at all, for its owner alone.

    Raises:
        InvalidArgument: it is there already.
        ProfileFull, ProfileUnwritable.
    """
    ensure_absent(path, hint)
    with translate_os_errors(path):
        atomic_write(path, content)
