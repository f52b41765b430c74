"""The user key, and the keys of one device: HPKE (RFC 9180) with X-Wing, and Ed25519."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PublicKey

from antefix.crypto import hpke as hpke
from antefix.crypto.aead import KEY_BYTES, SecretBytes
from antefix.errors import InvalidArgument, KeyRefused

_ID = 16
_ED25519 = 32


class UserKey:
    """The key that wraps a user's data keys. Private.

    Attributes:
        epoch: 1 for the first; each rotation adds one.
        secret: 32 bytes, wiped by `wipe`.
    """

    def __init__(self, secret: SecretBytes, epoch: int) -> None:
        """Take over `secret`."""
        if len(secret.data) != KEY_BYTES or not 1 <= epoch < 2**32:
            raise InvalidArgument(
                f"a user key has {len(secret.data)} bytes and epoch {epoch}, "
                f"expected {KEY_BYTES} and 1 or more"
            )
        self.secret, self.epoch = secret, epoch

    @classmethod
    def generate(cls) -> Self:
        """The first key of a user."""
        return cls(SecretBytes.random(KEY_BYTES), 1)

    def rotated(self) -> UserKey:
        """A fresh key of the next epoch; it cannot be computed from this one, nor this one from it."""
        return UserKey(SecretBytes.random(KEY_BYTES), self.epoch + 1)

    def wipe(self) -> None:
        """Zero it."""
        self.secret.wipe()

    def seal_for(self, device: DevicePublic, *, tenant: bytes, user: bytes) -> bytes:
        """The user key for one device alone (HPKE, RFC 9180, X-Wing); sign what you store it in.

        Raises:
            InvalidArgument: ids of another size, or a device whose public key is none.
        """
        info = _key_info(tenant, user, self.epoch, device.id)
        try:
            return hpke.SUITE.encrypt(self.secret.data, device.kem, info=info)
        except ValueError:  # a point of small order, whose shared key everybody knows
            raise InvalidArgument(f"device {device.id.hex()} has a public key that is none") from None

    def __repr__(self) -> str:
        """Its epoch, never a byte of it."""
        return f"UserKey(epoch={self.epoch})"


@dataclass(frozen=True)
class DevicePublic:
    """Public keys of a device.

    Attributes:
        kem_bytes: 1,216 bytes, ML-KEM-768 and X25519.
        signing_bytes: 32 bytes, Ed25519.
    """

    kem_bytes: bytes
    signing_bytes: bytes

    def __post_init__(self) -> None:
        """Refuse keys of another size."""
        sizes = len(self.kem_bytes), len(self.signing_bytes)
        if sizes != (hpke.MLKEM + hpke.X25519, _ED25519):
            raise InvalidArgument(f"public keys of a device have {sizes} bytes, expected (1216, 32)")

    @property
    def id(self) -> bytes:
        """16 bytes of a digest of both keys: no other device can have it."""
        keys = self.kem_bytes + self.signing_bytes
        return hashlib.sha256(b"antefix/v1/device\0" + keys).digest()[:_ID]

    @property
    def fingerprint(self) -> str:
        """What a person compares on two screens: eight groups of four hex digits."""
        text = self.id.hex()
        return " ".join(text[at : at + 4] for at in range(0, len(text), 4))

    @property
    def kem(self) -> MLKEM768X25519PublicKey:
        """For HPKE.

        Raises:
            InvalidArgument: bytes that are no such key (FIPS 203 section 7.2 refuses numbers out of range).
        """
        try:
            return hpke.public_key(self.kem_bytes)
        except ValueError:
            raise InvalidArgument(f"device {self.id.hex()} has a public key that is none") from None

    @property
    def signing(self) -> Ed25519PublicKey:
        """For signatures."""
        return Ed25519PublicKey.from_public_bytes(self.signing_bytes)


class DeviceKeys:
    """Private keys of one device; they stay on it."""

    def __init__(self, seed: bytes | bytearray) -> None:
        """Take the 64 bytes that `generate` made: a KEM seed (X-Wing) and an Ed25519 seed."""
        if len(seed) != 2 * KEY_BYTES:
            raise InvalidArgument(f"a device seed has {len(seed)} bytes, expected {2 * KEY_BYTES}")
        self._kem, kem_bytes = hpke.private_key(bytes(seed[:KEY_BYTES]))
        self._signing = Ed25519PrivateKey.from_private_bytes(bytes(seed[KEY_BYTES:]))
        self.public = DevicePublic(kem_bytes, self._signing.public_key().public_bytes_raw())
        self.id = self.public.id

    @staticmethod
    def new_seed() -> SecretBytes:
        """64 random bytes to keep where the device keeps its secrets, and to make `DeviceKeys` of."""
        return SecretBytes.random(2 * KEY_BYTES)

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
        return self._signing.sign(message)

    def open_user_key(self, sealed: bytes, *, tenant: bytes, user: bytes, epoch: int) -> UserKey:
        """The user key that was sealed for this device.

        Raises:
            KeyRefused: for another device, user, tenant or epoch, or damaged.
        """
        try:
            info = _key_info(tenant, user, epoch, self.id)
            secret = SecretBytes.take(hpke.SUITE.decrypt(sealed, self._kem, info=info))
        except (InvalidTag, ValueError):
            raise KeyRefused() from None
        if len(secret.data) != KEY_BYTES:  # a key of another size would allow guessing it by parts
            secret.wipe()
            raise KeyRefused()
        return UserKey(secret, epoch)

    def __repr__(self) -> str:
        """Its public id."""
        return f"DeviceKeys({self.id.hex()})"


def _key_info(tenant: bytes, user: bytes, epoch: int, device: bytes) -> bytes:
    """What a sealed user key is bound to."""
    return b"antefix/v1/user key\0" + owner_ids(tenant, user) + epoch.to_bytes(4, "big") + device


def owner_ids(tenant: bytes, user: bytes) -> bytes:
    """Both ids, 32 bytes. With other sizes, the end of one could be the beginning of the other.

    Raises:
        InvalidArgument: ids of another size.
    """
    if len(tenant) != _ID or len(user) != _ID:
        raise InvalidArgument(f"tenant and user have {len(tenant)} and {len(user)} bytes, expected {_ID}")
    return tenant + user
