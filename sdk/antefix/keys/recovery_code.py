"""The recovery code: a sheet of paper that can stand in for every lost device."""

from __future__ import annotations

from typing import Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from antefix.crypto.aead import KEY_BYTES, SecretBytes
from antefix.crypto.code32 import decode_secret, encode_secret
from antefix.errors import InvalidArgument
from antefix.keys.device_keys import DeviceKeys, owner_ids

_WHAT = "a recovery code"


class RecoveryCode:
    """256 random bits with a checksum. Private: who has it has everything. Shown once, stored nowhere."""

    def __init__(self, secret: SecretBytes) -> None:
        """Take over 32 bytes."""
        if len(secret.data) != KEY_BYTES:
            raise InvalidArgument(f"a recovery code has {len(secret.data)} bytes, expected {KEY_BYTES}")
        self._secret = secret

    @classmethod
    def generate(cls) -> Self:
        """A fresh code."""
        return cls(SecretBytes.random(KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what a person typed: case, spaces and hyphens do not matter, O is 0, I and L are 1.

        Raises:
            InvalidArgument: too short, too long, or mistyped; the code itself is not repeated.
        """
        return cls(SecretBytes(bytearray(decode_secret(text, _WHAT, "type it as it stands on the sheet"))))

    def text(self) -> str:
        """Fourteen groups of four, for paper. Private."""
        return encode_secret(bytes(self._secret.data), _WHAT)

    def keys(self, *, tenant: bytes, user: bytes) -> DeviceKeys:
        """Keys of a device that exists on paper only; its public half stands in the device list."""
        info = b"antefix/v1/recovery\0" + owner_ids(tenant, user)
        derived = HKDF(SHA256(), 2 * KEY_BYTES, None, info).derive(self._secret.data)
        with SecretBytes.take(derived) as seed:
            return DeviceKeys(seed.data)

    def wipe(self) -> None:
        """Zero it."""
        self._secret.wipe()

    def __repr__(self) -> str:
        """Not a letter of it."""
        return "RecoveryCode()"
