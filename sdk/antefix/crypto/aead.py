"""Encryption that commits to its key and its context, into memory that is wiped after use."""

from __future__ import annotations

import ctypes
import os
from typing import Protocol, Self

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

KEY_BYTES = 32
_OVERHEAD, _CHUNK, _TAG = 56, 16 * 1024, 16  # C2SP chunked-encryption: salt and commitment, then chunks


class SecretBytes:
    """Bytes that are zeroed when they are done with: on `wipe`, or at the end of a `with` block.

    Attributes:
        data: the bytes; empty once wiped. Copies that a caller makes are the caller's to wipe.
    """

    def __init__(self, data: bytearray) -> None:
        """Take over `data`, not a copy of it."""
        self.data = data

    @classmethod
    def take(cls, data: bytes) -> Self:
        """Move what a library gave as bytes, of which nobody else may have a reference: they are zeroed."""
        secret = cls(bytearray(data))
        _wipe_bytes(data)
        return secret

    @classmethod
    def random(cls, size: int) -> Self:
        """Fresh random bytes."""
        return cls.take(os.urandom(size))

    def wipe(self) -> None:
        """Overwrite with zeros, then let go."""
        if self.data:
            ctypes.memset((ctypes.c_char * len(self.data)).from_buffer(self.data), 0, len(self.data))
        self.data = bytearray()

    def __enter__(self) -> Self:
        """The secret itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wipe it."""
        self.wipe()

    def __repr__(self) -> str:
        """Its size, never a byte of it."""
        return f"Secret({len(self.data)} bytes)"


class UserKeyProtocol(Protocol):
    """The user key that wraps data keys."""

    @property
    def epoch(self) -> int:
        """Number of the key; a rotation adds one."""
        ...

    @property
    def secret(self) -> SecretBytes:
        """The key, 32 bytes."""
        ...


class DeviceSigner(Protocol):
    """The device that writes."""

    @property
    def id(self) -> bytes:
        """Its id, 16 bytes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
        ...


def sealed_size(plain: int) -> int:
    """Bytes of `plain` bytes once encrypted."""
    return _OVERHEAD + plain + _TAG * (plain // _CHUNK + 1)  # a whole chunk is followed by an empty one


def encrypt(key: bytes | bytearray, context: bytes, plain: bytes | bytearray) -> bytes:
    """Cobblestone-256 (C2SP chunked-encryption) of `plain`."""
    encryptor = Cobblestone256Encryptor(key, context)
    return encryptor.update(plain) + encryptor.finalize()


def decrypt(key: bytes | bytearray, context: bytes, sealed: bytes | memoryview) -> SecretBytes | None:
    """The content, or None where anything is wrong: key, context, a byte, an end cut off.

    The library gives plaintext chunk by chunk before the last one is checked; here nothing leaves before.
    """
    chunks = -(-(len(sealed) - _OVERHEAD) // (_CHUNK + _TAG))
    plain = SecretBytes(bytearray(max(0, len(sealed) - _OVERHEAD - _TAG * chunks)))
    try:
        decryptor = Cobblestone256Decryptor(key, context)
        length = decryptor.update_into(sealed, plain.data)
        rest = decryptor.finalize()
    except (InvalidTag, ValueError):
        plain.wipe()
        return None
    plain.data[length:] = rest
    _wipe_bytes(rest)
    return plain


def _wipe_bytes(data: bytes) -> None:
    """Zero what a library gave as bytes. Nobody else holds this object: Python shares single bytes alone."""
    if len(data) > 1:
        ctypes.memset(id(data) + bytes.__basicsize__ - 1, 0, len(data))
