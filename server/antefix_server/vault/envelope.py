"""The second encryption: what the server adds to a record before it is stored, under the user's shred key.

Everything that is stored is derived from that key or sealed under it, the names of rows too. Without the key
a row cannot be read, nor told to be anybody's.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from antefix.crypto.aead import SecretBytes, decrypt, encrypt
from antefix.records import RecordHeader
from antefix_server.errors import VaultDamaged
from antefix_server.vault.key_file import owner_tag

PIECE = 2**20
_HEAD = struct.Struct(">16sQIQ32s")
_VERSION = struct.Struct(">QI")


@dataclass(frozen=True)
class RecordMeta:
    """What the vault knows of a stored record.

    Attributes:
        prefix: 16 bytes.
        version, epoch: of the record, and of the user key over it.
        size: bytes of the record.
        digest: of the record, 32 bytes.
    """

    prefix: bytes
    version: int
    epoch: int
    size: int
    digest: bytes

    @classmethod
    def of(cls, cover: RecordHeader) -> Self:
        """That of a record."""
        edition = cover.edition
        return cls(edition.address.prefix, edition.version, cover.epoch, cover.size, cover.digest)


@dataclass(frozen=True)
class UserEnvelope:
    """A living user's key and what is made of it. Use it in a `with` block.

    Attributes:
        tenant, user: 16 bytes each.
        key: the shred key.
    """

    tenant: bytes
    user: bytes
    key: SecretBytes

    @property
    def tag(self) -> bytes:
        """What stands for the user in the database, 16 bytes."""
        return owner_tag(self.key.data)

    def place(self, prefix: bytes) -> bytes:
        """What stands for one of the user's prefixes, 16 bytes."""
        return hmac.digest(self.key.data, b"antefix/v1/vault place\0" + prefix, "sha256")[:16]

    def seal_head(self, head: RecordMeta) -> bytes:
        """136 bytes."""
        fields = (head.prefix, head.version, head.epoch, head.size, head.digest)
        return encrypt(self.key.data, self._context(b"head"), _HEAD.pack(*fields))

    def open_head(self, sealed: bytes) -> RecordMeta:
        """Read it.

        Raises:
            VaultDamaged: another user's, or changed.
        """
        plain = decrypt(self.key.data, self._context(b"head"), sealed)
        if plain is None:
            raise VaultDamaged(f"a record of user {self.user.hex()} is damaged", "restore it from a backup")
        with plain:
            return RecordMeta(*_HEAD.unpack(plain.data))

    def seal_fact(self, kind: int, mark: bytes, content: bytes) -> bytes:
        """Something else that is known of the user, bound to its row's kind and mark."""
        return encrypt(self.key.data, self._context(b"fact", bytes([kind]) + mark), content)

    def open_fact(self, kind: int, mark: bytes, sealed: bytes) -> bytes:
        """Read it.

        Raises:
            VaultDamaged: another row's, another user's, or changed.
        """
        plain = decrypt(self.key.data, self._context(b"fact", bytes([kind]) + mark), sealed)
        if plain is None:
            raise VaultDamaged(f"a fact of user {self.user.hex()} is damaged", "restore it from a backup")
        with plain:
            return bytes(plain.data)

    def seal(self, head: RecordMeta, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The record's bytes sealed, in pieces of `PIECE` bytes; nothing is in the clear outside memory."""
        encryptor = Cobblestone256Encryptor(self.key.data, self._content(head))
        buffer = bytearray()
        for chunk in chunks:
            buffer += encryptor.update(chunk)
            while len(buffer) >= PIECE:
                yield bytes(buffer[:PIECE])
                del buffer[:PIECE]
        buffer += encryptor.finalize()
        for at in range(0, len(buffer), PIECE):
            yield bytes(buffer[at : at + PIECE])

    def open(self, head: RecordMeta, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The record's bytes, as they come: each is authentic, but only the end tells that all came.

        Raises:
            VaultDamaged: changed, or cut off.
        """
        decryptor = Cobblestone256Decryptor(self.key.data, self._content(head))
        try:
            for piece in pieces:
                yield decryptor.update(piece)
            yield decryptor.finalize()
        except (InvalidTag, ValueError):
            raise VaultDamaged(
                f"a record of user {self.user.hex()} is damaged", "restore it from a backup"
            ) from None

    def __enter__(self) -> Self:
        """The owner itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wipe the key."""
        self.key.wipe()

    def _context(self, label: bytes, extra: bytes = b"") -> bytes:
        return b"antefix/v1/vault " + label + b"\0" + self.tenant + self.user + extra

    def _content(self, head: RecordMeta) -> bytes:
        return self._context(b"content", head.prefix + _VERSION.pack(head.version, head.epoch))
