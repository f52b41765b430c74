"""The texts that a profile remembers: a file of sealed entries, appended one after the other.

A header of 64 bytes (magic, random id of the file), then entries that start at multiples of 64: mark, sealed
size, number, check (32 bytes), the sealed text, zeros. A text is sealed under the root key for this profile,
this file and this number. What a crash cut off at the end was never acknowledged; a damaged entry costs
itself alone, since the next one is found by its check. To remove texts the file is written anew without
them, and the old one is overwritten before it is let go.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from antefix._example import Example
from antefix._files import write_whole
from antefix._sealing import Secret, decrypt, encrypt
from antefix_client._sealedfiles import zero
from antefix_client._seam import files
from antefix_client.errors import ProfileDamaged

_MAGIC, _MARK = b"ANTEFIXT", b"\xa7TXT"
_ALIGN = 64
_HEAD = struct.Struct(">8s16s")
_ENTRY = struct.Struct(">4sIQ16s")
_SIZES = struct.Struct(">II")


@dataclass
class Contents:
    """What a file of texts holds.

    Attributes:
        texts: by number, oldest first. Private.
        damaged: stretches of the file that could not be read.
        end: where the next entry goes.
    """

    texts: dict[int, Example] = field(default_factory=dict)
    damaged: int = 0
    end: int = _ALIGN


class TextLog:
    """The file. One thread at a time."""

    def __init__(self, path: Path, profile: bytes, root: Secret) -> None:
        """Take the root key; whoever made it wipes it. `create` makes the file."""
        self.path, self._profile, self._root = path, profile, root

    def create(self) -> None:
        """Make the file, empty."""
        with files(self.path):
            write_whole(self.path, _header(os.urandom(16)))

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        with files(self.path):
            return self.path.stat().st_size

    def read(self) -> Contents:
        """Everything that can be read.

        Raises:
            ProfileDamaged: the header is damaged, so that nothing can.
        """
        with files(self.path):
            content = memoryview(self.path.read_bytes())
        identity = self._identity(content)
        found, at, lost = Contents(), _ALIGN, False
        while at < len(content):
            entry = self._entry(content, at, identity)
            if entry is None:
                lost, at = True, at + _ALIGN
                continue
            number, text, size = entry
            found.damaged += lost
            found.texts[number], lost = text, False
            at += size
            found.end = at
        if lost and not self._torn(content, found.end, identity):
            found.damaged, found.end = found.damaged + 1, _aligned(len(content))
        return found

    def append(self, texts: Iterable[tuple[int, Example]], end: int) -> int:
        """Add texts behind byte `end`, durable on return; the new end.

        Raises:
            ProfileFull, ProfileUnwritable: nothing was added.
        """
        with files(self.path):
            handle = os.open(self.path, os.O_RDWR)
            try:
                identity = os.pread(handle, _HEAD.size, 0)[8:]
                content = b"".join(self._sealed(number, text, identity) for number, text in texts)
                try:
                    _write_all(handle, content, end)
                    os.ftruncate(handle, end + len(content))
                    os.fsync(handle)
                except OSError:
                    os.ftruncate(handle, end)
                    raise
            finally:
                os.close(handle)
        return end + len(content)

    def rewrite(self, texts: dict[int, Example]) -> int:
        """Hold `texts` and nothing else; the new end."""
        identity = os.urandom(16)
        content = _header(identity) + b"".join(
            self._sealed(number, text, identity) for number, text in texts.items()
        )
        with files(self.path):
            old = os.open(self.path, os.O_WRONLY)
            try:
                write_whole(self.path, content)
                zero(old)
            finally:
                os.close(old)
        return len(content)

    def _identity(self, content: memoryview) -> bytes:
        if len(content) < _ALIGN or bytes(content[:8]) != _MAGIC:
            raise ProfileDamaged(f"{self.path} is damaged at its start", "put it back from a backup")
        return bytes(content[8 : _HEAD.size])

    def _entry(self, content: memoryview, at: int, identity: bytes) -> tuple[int, Example, int] | None:
        """Number, text and size of the entry at `at`; None where none can be read."""
        if content[at : at + 4] != _MARK or len(content) - at < _ENTRY.size:
            return None
        mark, sealed_bytes, number, check = _ENTRY.unpack_from(content, at)
        sealed = content[at + _ENTRY.size : at + _ENTRY.size + sealed_bytes]
        if check != _check(identity, mark, sealed_bytes, number) or len(sealed) < sealed_bytes:
            return None
        plain = decrypt(self._root.data, self._context(identity, number), sealed)
        if plain is None:
            return None
        with plain:
            return number, _unpacked(plain.data), _aligned(_ENTRY.size + sealed_bytes)

    def _sealed(self, number: int, text: Example, identity: bytes) -> bytes:
        sealed = encrypt(self._root.data, self._context(identity, number), _packed(text))
        check = _check(identity, _MARK, len(sealed), number)
        entry = _ENTRY.pack(_MARK, len(sealed), number, check) + sealed
        return entry.ljust(_aligned(len(entry)), b"\0")

    def _torn(self, content: memoryview, end: int, identity: bytes) -> bool:
        """Whether what is left after `end` is one entry that was cut off while it was written."""
        rest = content[end:]
        if len(rest) < _ENTRY.size or not any(rest):
            return True
        mark, sealed_bytes, number, check = _ENTRY.unpack_from(rest)
        begun = (mark, check) == (_MARK, _check(identity, _MARK, sealed_bytes, number))
        return begun and _ENTRY.size + sealed_bytes > len(rest)

    def _context(self, identity: bytes, number: int) -> bytes:
        return b"antefix/v1/profile text\0" + self._profile + identity + number.to_bytes(8, "big")


def stored_bytes(text: Example) -> int:
    """Bytes that a text takes on the disk, about."""
    return _aligned(len(text.prompt.encode()) + len(text.completion.encode()) + 256)


def _header(identity: bytes) -> bytes:
    return _HEAD.pack(_MAGIC, identity).ljust(_ALIGN, b"\0")


def _check(identity: bytes, mark: bytes, size: int, number: int) -> bytes:
    return hashlib.sha256(identity + mark + size.to_bytes(4, "big") + number.to_bytes(8, "big")).digest()[:16]


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _packed(text: Example) -> bytearray:
    """Sizes, texts, and zeros, so that a sealed size tells the length to 64 bytes only."""
    prompt, completion = text.prompt.encode(), text.completion.encode()
    content = bytearray(_SIZES.pack(len(prompt), len(completion)) + prompt + completion)
    return content.ljust(_aligned(len(content)), b"\0")


def _unpacked(content: bytearray) -> Example:
    prompt_bytes, completion_bytes = _SIZES.unpack_from(content)
    at = _SIZES.size
    prompt = content[at : at + prompt_bytes].decode()
    return Example(content[at + prompt_bytes : at + prompt_bytes + completion_bytes].decode(), prompt)


def _write_all(handle: int, content: bytes, at: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(handle, view, at)
        view, at = view[written:], at + written
