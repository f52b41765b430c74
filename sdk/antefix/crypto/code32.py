"""32 secret bytes as a person copies them: 56 letters and digits, the last five of them a checksum."""

from __future__ import annotations

import base64
import hashlib

from antefix.errors import InvalidArgument

SECRET_BYTES = 32
_CHECK = 3
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: nothing that looks like something else
_TO_PAPER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", _LETTERS)
_FROM_PAPER = str.maketrans(_LETTERS + "OIL", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" + "ABB")


def encode_secret(secret: bytes, what: str) -> str:
    """Fourteen groups of four. Private, if the bytes are."""
    letters = base64.b32encode(secret + _checksum(secret, what)).decode().translate(_TO_PAPER)
    return "-".join(letters[at : at + 4] for at in range(0, len(letters), 4))


def decode_secret(text: str, what: str, hint: str) -> bytes:
    """What a person typed: case, spaces and hyphens do not matter, O is 0, I and L are 1.

    Args:
        text: of 14 groups.
        what: the kind of secret, as `encode_secret` had it: one kind is not taken for another.
        hint: the next step where it cannot be read.

    Raises:
        InvalidArgument: too short, too long, or mistyped; the secret itself is not repeated.
    """
    letters = "".join(text.split()).replace("-", "").upper()
    if len(letters) != 56 or set(letters) - set(_LETTERS + "OIL"):
        raise InvalidArgument(
            f"{what} has 56 letters and digits, this has {len(letters)}, or others among them", hint
        )
    content = base64.b32decode(letters.translate(_FROM_PAPER))
    secret = content[:SECRET_BYTES]
    if content[SECRET_BYTES:] != _checksum(secret, what):
        raise InvalidArgument(f"{what} has a typing error", hint)
    return secret


def _checksum(secret: bytes, what: str) -> bytes:
    label = what.removeprefix("a ").removeprefix("an ").encode()
    return hashlib.sha256(b"antefix/v1/" + label + b"\0" + secret).digest()[:_CHECK]
