"""The shred keys: one slot per user in a flat file, changed in place.

Every record is encrypted once more under its user's shred key before it is stored. Overwriting the 64 bytes
of one slot therefore makes every copy of that user's records unreadable: in the database, in what the
database has not yet overwritten, and in every backup ever made. Only copies of this file could undo that, so
it is in no ordinary backup (`antefix_server.backups`).

No database, because a database copies: SQLite leaves deleted rows in split index pages now and then even with
`secure_delete=ON`, has page images in its journal, and bound values in its heap. Here a key is written once,
read into memory that is wiped, and zeroed where it lies. A slot is never used again, so a removal can name it
forever. Slots have no index: a user's id is its slot and a nonce, encrypted with one AES block.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from antefix.common.file_lock import try_lock
from antefix.common.files import atomic_write
from antefix.crypto.aead import KEY_BYTES, SecretBytes
from antefix.keys import DevicePublic
from antefix_server.errors import UnknownUser, VaultBusy, VaultDamaged, VaultUnavailable
from antefix_server.storage.os_errors import files

SLOT = 64
_HEAD_BYTES = 4096
_HEAD = struct.Struct(">8s16s32s32s1216s32s")
_MAGIC = b"ANTEFIXK"
_NONCE, _SERIAL, _TAG = 10, 6, 16
_NONCE_AT, _CHECK_AT = KEY_BYTES, 48  # key 32, nonce 10, zeros 6, check 16
_BATCH = 4096


@dataclass(frozen=True)
class Identity:
    """What the vault is; written once, in the first 4,096 bytes. Private.

    Attributes:
        tenant: 16 random bytes.
        id_key: 32 bytes, makes user ids of slots.
        log_seed: 32 bytes, Ed25519 seed of the removal log.
        operator: public keys that backups of this file are sealed to.
    """

    tenant: bytes
    id_key: bytes = field(repr=False)
    log_seed: bytes = field(repr=False)
    operator: DevicePublic

    @classmethod
    def fresh(cls, tenant: bytes, operator: DevicePublic) -> Self:
        """A new vault's."""
        return cls(tenant, os.urandom(KEY_BYTES), os.urandom(KEY_BYTES), operator)

    @property
    def signing(self) -> Ed25519PrivateKey:
        """The log's key."""
        return Ed25519PrivateKey.from_private_bytes(self.log_seed)

    @property
    def releasing(self) -> Ed25519PrivateKey:
        """The key that signs releases, and by which devices know this server."""
        return Ed25519PrivateKey.from_private_bytes(self._derived(b"release seed"))

    @property
    def index_key(self) -> bytes:
        """Finds users by name, 32 bytes. Private."""
        return self._derived(b"index")

    def _derived(self, label: bytes) -> bytes:
        return hmac.digest(self.log_seed, b"antefix/v1/vault " + label + b"\0", "sha256")

    def to_bytes(self) -> bytes:
        """The first 4,096 bytes of the file."""
        keys = (self.operator.kem_bytes, self.operator.signing_bytes)
        head = _HEAD.pack(_MAGIC, self.tenant, self.id_key, self.log_seed, *keys)
        return (head + hashlib.sha256(head).digest()).ljust(_HEAD_BYTES, b"\0")

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read them.

        Raises:
            VaultDamaged: not such a file, or changed.
        """
        head, check = content[: _HEAD.size], content[_HEAD.size : _HEAD.size + 32]
        if len(content) < _HEAD_BYTES or head[:8] != _MAGIC or hashlib.sha256(head).digest() != check:
            raise VaultDamaged("the key file is damaged, or is none", "restore it from its backup")
        _, tenant, id_key, log_seed, kem, signing = _HEAD.unpack(head)
        return cls(tenant, id_key, log_seed, DevicePublic(kem, signing))


class KeyFile:
    """The open file. One process may write; others may read beside it.

    Attributes:
        identity: of the vault.
        slots: ever given away, living or not.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open it, and be its only writer.

        Raises:
            VaultBusy: another process writes.
            VaultUnavailable, VaultDamaged: no such file, or not one of ours.
        """
        self._path, self._writes, self._process = path, not read_only, os.getpid()
        with files(path):
            self._file = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        try:
            if self._writes:
                self._lock()
            self.identity = Identity.from_bytes(os.pread(self._file, _HEAD_BYTES, 0))
        except BaseException:
            os.close(self._file)
            raise
        # A crash while slots were appended leaves part of one; its user was never told an id.
        self.slots = -(-max(0, os.fstat(self._file).st_size - _HEAD_BYTES) // SLOT)
        self._hidden: frozenset[int] = frozenset()
        key = self.identity.id_key
        self._ids = Cipher(AES(key), ECB())  # one block each: a permutation, not a mode

    @staticmethod
    def create(path: Path, identity: Identity) -> None:
        """Write a file without users."""
        with files(path):
            atomic_write(path, identity.to_bytes())

    def enrol(self, count: int) -> list[bytes]:
        """Give away slots with fresh keys: ids of new users, 16 bytes each; durable on return."""
        first = self.slots
        with SecretBytes(bytearray(SLOT * count)) as fresh, open("/dev/urandom", "rb", buffering=0) as source:
            nonces = os.urandom(_NONCE * count)
            view = memoryview(fresh.data)
            for number in range(count):
                slot = view[number * SLOT : (number + 1) * SLOT]
                source.readinto(slot[:KEY_BYTES])  # bytes of os.urandom would stay in memory
                slot[_NONCE_AT : _NONCE_AT + _NONCE] = nonces[number * _NONCE : (number + 1) * _NONCE]
                slot[_CHECK_AT:] = _check(first + number, slot)
            self._append(fresh.data)
        self.slots = first + count
        parts = (nonces[n * _NONCE : (n + 1) * _NONCE] for n in range(count))
        return [self._id(first + number, nonce) for number, nonce in enumerate(parts)]

    def key_of(self, user: bytes) -> SecretBytes:
        """A user's shred key, for a `with` block.

        Raises:
            UnknownUser: never enrolled, or removed.
            VaultDamaged: the slot is neither zero nor whole.
        """
        number, nonce = self._parts(user)
        if number in self._hidden:
            raise UnknownUser(user)
        with self._read(number) as slot:
            if slot.data[_NONCE_AT : _NONCE_AT + _NONCE] != nonce:
                raise UnknownUser(user)
            return SecretBytes(slot.data[:KEY_BYTES])

    def slot_of(self, user: bytes) -> int:
        """The slot that an id names, whoever has or had it.

        Raises:
            UnknownUser: no slot ever given away.
        """
        number, _ = self._parts(user)
        if number >= self.slots:
            raise UnknownUser(user)
        return number

    def living(self, start: int = 0) -> Iterator[tuple[int, bytes, SecretBytes]]:
        """Slot, user id and key of each user; wipe the keys. Slots that are torn are left out."""
        for first in range(start, self.slots, _BATCH):
            with SecretBytes(self._block(first, min(_BATCH, self.slots - first))) as block:
                view = memoryview(block.data)
                for number in range(len(view) // SLOT):
                    slot = view[number * SLOT : (number + 1) * SLOT]
                    if slot[_CHECK_AT:] == _check(first + number, slot):
                        user = self._id(first + number, bytes(slot[_NONCE_AT : _NONCE_AT + _NONCE]))
                        yield first + number, user, SecretBytes(bytearray(slot[:KEY_BYTES]))

    def still_set(self, slots: Sequence[int]) -> list[int]:
        """Those of `slots` that hold anything."""
        return [number for number in slots if number < self.slots and any(self._block(number, 1))]

    def exclude(self, slots: Iterable[list[int]]) -> None:
        """Treat removed users as unknown whose keys are still there: a reader cannot finish a removal."""
        self._hidden = frozenset(number for some in slots for number in self.still_set(some))

    def tag_in(self, number: int) -> bytes | None:
        """What stands in the database for whoever has or had a slot; None where it is zero or torn."""
        with SecretBytes(self._block(number, 1)) as slot:
            if slot.data[_CHECK_AT:] == _check(number, slot.data, b"doomed"):
                return bytes(slot.data[:_TAG])
            if slot.data[_CHECK_AT:] == _check(number, slot.data):
                return owner_tag(slot.data[:KEY_BYTES])
            return None

    def begin_erase(self, slots: Sequence[int]) -> None:
        """Overwrite keys with what is left to delete; durable on return."""
        self.require_there()
        with files(self._path):
            for number in slots:
                tag = self.tag_in(number)
                if tag is not None:
                    left = bytearray(tag.ljust(_CHECK_AT, b"\0"))
                    self._overwrite(number, left + _check(number, left, b"doomed"))
            os.fsync(self._file)

    def zeroize(self, slots: Sequence[int]) -> None:
        """Zero slots; durable on return."""
        self.require_there()
        with files(self._path):
            for number in slots:
                self._overwrite(number, bytes(SLOT))
            os.fsync(self._file)

    def reserve(self, slots: int) -> None:
        """Never give away the first `slots`: somebody had them whom this copy of the file does not know."""
        if slots > self.slots:
            self._append(bytearray(SLOT * (slots - self.slots)))
            self.slots = slots

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return _HEAD_BYTES + self.slots * SLOT

    def copy(self) -> Iterator[bytearray]:
        """All of them, block by block, each of which is wiped when the next is asked for. Private."""
        for at in range(0, self.size, 2**20):
            with SecretBytes(bytearray(min(2**20, self.size - at))) as block, files(self._path):
                os.preadv(self._file, [block.data], at)
                yield block.data

    def require_there(self) -> None:
        """Refuse a file that was deleted or exchanged under us: what is written to it would be lost.

        And what is read from it may be the key of somebody who was removed from the other one.

        Raises:
            VaultUnavailable: it was.
        """
        with files(self._path):
            there, here = os.stat(self._path), os.fstat(self._file)
            if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
                raise VaultUnavailable(f"{self._path} was exchanged while in use", "restart the server")

    def require_writer(self) -> None:
        """Refuse a child that inherited the open file, and the lock with it, by a fork.

        It and its parent would give away the same slots.

        Raises:
            VaultBusy: this is one.
            VaultUnavailable: the file was deleted or exchanged.
        """
        if os.getpid() != self._process:
            raise VaultBusy(
                f"process {self._process} writes to the vault of {self._path}, this one is its child",
                "open the vault after the fork",
            )
        self.require_there()

    def close(self) -> None:
        """Let the next writer in."""
        os.close(self._file)
        self._file = -1  # the number is soon another file's, perhaps the next opening of this one

    def _lock(self) -> None:
        if not try_lock(self._file):
            raise VaultBusy(
                f"another process writes to the vault of {self._path}",
                "stop it, or open the vault for reading",
            )

    def _overwrite(self, number: int, slot: bytes | bytearray) -> None:
        self._write_all(slot, _HEAD_BYTES + number * SLOT)

    def _append(self, content: bytearray) -> None:
        """Slots after the last one: all of them, or none."""
        self.require_writer()
        end = _HEAD_BYTES + self.slots * SLOT
        with files(self._path):
            try:
                self._write_all(content, end)
            except OSError:
                os.ftruncate(self._file, end)
                raise
            os.fsync(self._file)

    def _write_all(self, content: bytes | bytearray, at: int) -> None:
        """A disk that gets full takes a part first, and says so only to who asks again."""
        written = 0
        with memoryview(content) as view:
            while written < len(view):
                written += os.pwrite(self._file, view[written:], at + written)

    def _block(self, first: int, count: int) -> bytearray:
        block = bytearray(SLOT * count)
        with files(self._path):
            os.preadv(self._file, [block], _HEAD_BYTES + first * SLOT)
        return block

    def _read(self, number: int) -> SecretBytes:
        """A living slot, or zeros."""
        self.require_there()
        slot = SecretBytes(self._block(number, 1))
        if not self._usable(number, slot):
            slot.wipe()
            slot = SecretBytes(self._block(number, 1))  # a removal may just have been writing
        if not self._usable(number, slot):
            slot.wipe()
            raise VaultDamaged(
                f"slot {number} of {self._path} is damaged", "restore the keys from their backup"
            )
        return slot

    def _usable(self, number: int, slot: SecretBytes) -> bool:
        """Whether a slot is living, doomed or zero, and so not damaged."""
        check = slot.data[_CHECK_AT:]
        if check == _check(number, slot.data, b"doomed"):
            slot.wipe()
            slot.data = bytearray(SLOT)
            return True
        return not any(slot.data) or check == _check(number, slot.data)

    def _id(self, number: int, nonce: bytes) -> bytes:
        encryptor = self._ids.encryptor()
        return encryptor.update(number.to_bytes(_SERIAL, "big") + nonce)

    def _parts(self, user: bytes) -> tuple[int, bytes]:
        plain = self._ids.decryptor().update(user)
        return int.from_bytes(plain[:_SERIAL], "big"), plain[_SERIAL:]


def owner_tag(key: bytes | bytearray) -> bytes:
    """What stands for a user in the database, 16 bytes; without the key it is anybody's."""
    return hmac.digest(key, b"antefix/v1/vault owner\0", "sha256")[:_TAG]


def _check(number: int, slot: bytearray | memoryview, state: bytes = b"living") -> bytes:
    """16 bytes that tell a whole slot from a torn one, and a living user's from a doomed one's."""
    digest = hashlib.sha256(b"antefix/v1/slot " + state + b"\0" + number.to_bytes(_SERIAL, "big"))
    digest.update(slot[:_CHECK_AT])
    return digest.digest()[:16]
