"""Small sealed files of a profile."""

from __future__ import annotations

import os
from pathlib import Path

from antefix._files import sync_folder, write_whole
from antefix._sealing import Secret, decrypt, encrypt
from antefix_client._seam import files
from antefix_client.errors import ProfileDamaged

_BLOCK = 2**20


class SealedFiles:
    """Writes and reads files that open under the root key, in this profile, under their own name alone."""

    def __init__(self, folder: Path, profile: bytes, root: Secret) -> None:
        """Take the root key; whoever made it wipes it."""
        self.folder, self.profile, self.root = folder, profile, root

    def write(self, name: str, content: bytes | bytearray) -> None:
        """Replace a file whole; durable on return."""
        sealed = encrypt(self.root.data, self.context(name), content)
        with files(self.folder / name):
            write_whole(self.folder / name, sealed)

    def read(self, name: str) -> Secret | None:
        """What a file holds; None where there is none.

        Raises:
            ProfileDamaged: it does not open.
        """
        path = self.folder / name
        with files(path):
            if not path.is_file():
                return None
            sealed = path.read_bytes()
        found = decrypt(self.root.data, self.context(name), sealed)
        if found is None:
            raise ProfileDamaged(
                f"{path} is damaged", "put it back from a backup; the other files are as they were"
            )
        return found

    def delete(self, name: str) -> None:
        """Overwrite and delete a file, if there is one."""
        shred(self.folder / name)

    def context(self, name: str) -> bytes:
        """What a file is bound to."""
        return b"antefix/v1/profile file\0" + self.profile + name.encode()


def shred(path: Path) -> None:
    """Overwrite a file with zeros, then delete it. What a drive keeps of old sectors, this does not reach."""
    with files(path):
        if not path.is_file():
            path.unlink(missing_ok=True)
            return
        handle = os.open(path, os.O_WRONLY)
        try:
            zero(handle)
        finally:
            os.close(handle)
        path.unlink()
        sync_folder(path.parent)


def zero(handle: int) -> None:
    """Overwrite an open file with zeros; durable on return."""
    size = os.fstat(handle).st_size
    for at in range(0, size, _BLOCK):
        os.pwrite(handle, bytes(min(_BLOCK, size - at)), at)
    os.fsync(handle)
