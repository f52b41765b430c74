"""Makes records for tests: one user with one device, from fixed bytes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from antefix.crypto.aead import SecretBytes
from antefix.keys import DeviceKeys, UserKey
from antefix.records import NO_PREVIOUS, Address, Expected, OpenedRecord, RecordVersion, open_record, seal


def some_bytes(label: str, size: int) -> bytes:
    """Return bytes that look random and are the same in every run."""
    return hashlib.shake_256(label.encode()).digest(size)


def address_of(name: str, /, **changes: bytes) -> Address:
    """Return the address of a user's record."""
    ids = [some_bytes(f"{name} {kind}", 16) for kind in ("user", "prefix")]
    base, shape = some_bytes("base", 32), some_bytes("shape", 32)
    return replace(Address(some_bytes("tenant", 16), ids[0], ids[1], base, shape), **changes)


@dataclass
class Owner:
    """A user with one device."""

    name: str
    address: Address
    key: UserKey
    device: DeviceKeys

    @classmethod
    def named(cls, name: str) -> "Owner":
        """Make a user whose keys follow from the name."""
        key = UserKey(SecretBytes(bytearray(some_bytes(f"{name} key", 32))), 1)
        return cls(name, address_of(name), key, DeviceKeys(some_bytes(f"{name} device", 64)))

    @property
    def writers(self) -> Mapping[bytes, Ed25519PublicKey]:
        """Signing keys of this user's devices."""
        return {self.device.id: self.device.public.signing}

    def seal(self, payload: bytes, version: int = 1, previous: bytes = NO_PREVIOUS) -> bytes:
        """Seal a version."""
        return seal(payload, RecordVersion(self.address, version, previous), key=self.key, device=self.device)

    def open(self, record: bytes, known: Expected | None = None) -> OpenedRecord:
        """Open a record as this user's device does."""
        return open_record(record, self.address, key=self.key, writers=self.writers, known=known)
