"""The recovery code: a sheet of paper that can stand in for every lost device."""

from __future__ import annotations

import base64
import hashlib
from typing import Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from antefix._devices import DeviceKeys, whose
from antefix._sealing import KEY_BYTES, Secret
from antefix.errors import InvalidArgument

_CHECK = 3
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: nothing that looks like something else
_TO_PAPER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", _LETTERS)
_FROM_PAPER = str.maketrans(_LETTERS + "OIL", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" + "ABB")


class RecoveryCode:
    """256 random bits with a checksum. Private: who has it has everything. Shown once, stored nowhere."""

    def __init__(self, secret: Secret) -> None:
        """Take over 32 bytes."""
        if len(secret.data) != KEY_BYTES:
            raise InvalidArgument(f"a recovery code has {len(secret.data)} bytes, expected {KEY_BYTES}")
        self._secret = secret

    @classmethod
    def generate(cls) -> Self:
        """A fresh code."""
        return cls(Secret.random(KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what a person typed: case, spaces and hyphens do not matter, O is 0, I and L are 1.

        Raises:
            InvalidArgument: too short, too long, or mistyped; the code itself is not repeated.
        """
        letters = "".join(text.split()).replace("-", "").upper()
        if len(letters) != 56 or set(letters) - set(_LETTERS + "OIL"):
            raise InvalidArgument(
                f"a recovery code has 56 letters and digits, this has {len(letters)}, or others among them",
                "type it as it stands on the sheet",
            )
        content = base64.b32decode(letters.translate(_FROM_PAPER))
        if content[KEY_BYTES:] != _checksum(content[:KEY_BYTES]):
            raise InvalidArgument("the recovery code has a typing error", "compare it with the sheet")
        return cls(Secret(bytearray(content[:KEY_BYTES])))

    def text(self) -> str:
        """Fourteen groups of four, for paper. Private."""
        secret = bytes(self._secret.data)
        letters = base64.b32encode(secret + _checksum(secret)).decode().translate(_TO_PAPER)
        return "-".join(letters[at : at + 4] for at in range(0, len(letters), 4))

    def keys(self, *, tenant: bytes, user: bytes) -> DeviceKeys:
        """Keys of a device that exists on paper only; its public half stands in the device list."""
        info = b"antefix/v1/recovery\0" + whose(tenant, user)
        derived = HKDF(SHA256(), 2 * KEY_BYTES, None, info).derive(self._secret.data)
        with Secret.taking(derived) as seed:
            return DeviceKeys(seed.data)

    def wipe(self) -> None:
        """Zero it."""
        self._secret.wipe()

    def __repr__(self) -> str:
        """Not a letter of it."""
        return "RecoveryCode()"


def _checksum(secret: bytes) -> bytes:
    return hashlib.sha256(b"antefix/v1/recovery code\0" + secret).digest()[:_CHECK]
