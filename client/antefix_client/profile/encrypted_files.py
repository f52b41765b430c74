"""Small sealed files of a profile."""

from __future__ import annotations

from pathlib import Path

from antefix.crypto.aead import SecretBytes, decrypt, encrypt
from antefix_client.errors import ProfileDamaged
from antefix_client.profile.lock import Lock
from antefix_client.profile.os_errors import translate_os_errors
from antefix_client.profile.safe_files import replace_file, secure_delete


class EncryptedFiles:
    """Writes and reads files that open under the root key, in this profile, under their own name alone."""

    def __init__(self, folder: Path, profile: bytes, root: SecretBytes, lock: Lock) -> None:
        """Take the root key, which whoever made it wipes, and the lock that who writes must hold."""
        self.folder, self.profile, self.root, self.lock = folder, profile, root, lock

    def write(self, name: str, content: bytes | bytearray) -> None:
        """Replace a file whole; durable on return.

        Raises:
            ProfileClosed, ProfileInUse, ProfileFull, ProfileUnwritable.
        """
        self.lock.require()
        replace_file(self.folder / name, encrypt(self.root.data, self.context(name), content))

    def read(self, name: str) -> SecretBytes | None:
        """What a file holds; None where there is none.

        Raises:
            ProfileDamaged: it does not open.
        """
        path = self.folder / name
        with translate_os_errors(path):
            if not path.is_file():
                return None
            sealed = path.read_bytes()
        content = decrypt(self.root.data, self.context(name), sealed)
        if content is None:
            raise ProfileDamaged(
                f"{path} is damaged", "put it back from a backup; the other files are as they were"
            )
        return content

    def delete(self, name: str) -> None:
        """Overwrite and delete a file, if there is one."""
        self.lock.require()
        secure_delete(self.folder / name)

    def context(self, name: str) -> bytes:
        """What a file is bound to."""
        return b"antefix/v1/profile file\0" + self.profile + name.encode()
