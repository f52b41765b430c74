"""The texts that a profile remembers: a file of sealed entries, appended one after the other.

A header of 64 bytes (magic, random id of the file), then entries that start at multiples of 64: mark, sealed
size, number, check (32 bytes), the sealed text, zeros. A text is sealed under the root key for this profile,
this file and this number. What a crash cut off at the end was never acknowledged; a damaged entry costs
itself alone, since the next one is found by its check. A damaged identity would cost all of them: the profile
keeps it in `state`, too, and hands it in. To remove texts the file is written anew without them, and the old
one is overwritten before it is let go.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from antefix.common.files import atomic_write
from antefix.crypto.aead import SecretBytes, decrypt, encrypt
from antefix.data.example import Example
from antefix_client.errors import ProfileDamaged
from antefix_client.profile.os_errors import translate_os_errors
from antefix_client.profile.safe_files import open_regular, overwrite

_MAGIC, _MARK = b"ANTEFIXT", b"\xa7TXT"
_ALIGN = 64
_HEAD = struct.Struct(">8s16s")
_ENTRY = struct.Struct(">4sIQ16s")
_SIZES = struct.Struct(">II")


@dataclass
class TextLogContents:
    """What a file of texts holds.

    Attributes:
        texts: by number, oldest first. Private.
        damaged: stretches of the file that could not be read.
        after: number of the text before each stretch of entries; 0 for none.
        end: where the next entry goes.
        identity: of the file, as its entries have it; None where no entry can be read and none should be
            written: another profile's file, or its header is damaged beyond recovery.
    """

    texts: dict[int, Example] = field(default_factory=dict)
    damaged: int = 0
    after: list[int] = field(default_factory=list)
    end: int = _ALIGN
    identity: bytes | None = None

    def describe_damage(self, name: str) -> str:
        """What is damaged, for a person: how many places, and where."""
        places = "1 place" if self.damaged == 1 else f"{self.damaged} places"
        header = ["at its start"] * (self.damaged - len(self.after))
        entries = [f"after text {number}" if number else "before the first text" for number in self.after]
        where = ", ".join(header + entries)
        return f"{name}: {places} in it ({where})"

    def note_damage(self) -> None:
        """Note a stretch after the text that was read last."""
        self.damaged += 1
        self.after.append(next(reversed(self.texts), 0))


class TextLog:
    """The file. One thread at a time."""

    def __init__(self, path: Path, profile: bytes, root: SecretBytes) -> None:
        """Take the root key; whoever made it wipes it. `create` makes the file."""
        self.path, self._profile, self._root = path, profile, root
        self._identity: bytes | None = None

    def create(self) -> bytes:
        """Make the file, empty; its identity, 16 bytes."""
        self._identity = new_identity()
        with translate_os_errors(self.path):
            atomic_write(self.path, _header(self._identity))
        return self._identity

    def read(self, known: Iterable[bytes] = ()) -> TextLogContents:
        """Everything that can be read.

        Args:
            known: identities that the file may have, should its header be damaged: without the right one no
                entry opens. The header itself is not sealed.

        Raises:
            ProfileDamaged: there is no header, nor any entry that is known.
        """
        with translate_os_errors(self.path), os.fdopen(open_regular(self.path, os.O_RDONLY), "rb") as file:
            content = memoryview(file.read())
        known = list(known)
        in_header = bytes(content[8 : _HEAD.size]) if bytes(content[:8]) == _MAGIC else None
        contents = TextLogContents()
        for identity in dict.fromkeys([in_header, *known]):
            if identity is not None and len(content) >= _ALIGN:
                contents = self._read(content, identity)
                if contents.texts:
                    break
        if not contents.texts:
            if in_header is None or len(content) < _ALIGN:
                raise ProfileDamaged(f"{self.path} is damaged at its start", "put it back from a backup")
            contents = self._read(content, in_header)
            if in_header not in known and not self._is_trusted(content, in_header, known):
                contents.identity = None
        elif contents.identity != in_header:
            contents.damaged += 1
        self._identity = contents.identity
        return contents

    def append(self, texts: Iterable[tuple[int, Example]], end: int) -> int:
        """Add texts behind byte `end`, durable on return; the new end.

        Raises:
            ProfileDamaged: what is in the file cannot be read.
            ProfileFull, ProfileUnwritable: nothing was added.
        """
        identity = self.require()
        content = b"".join(self._seal_entry(number, text, identity) for number, text in texts)
        with translate_os_errors(self.path):
            handle = open_regular(self.path, os.O_RDWR)
            try:
                if os.pread(handle, _HEAD.size, 0) != _header(identity)[: _HEAD.size]:
                    _write_all(handle, _header(identity), 0)  # it was damaged
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

    def rewrite(self, texts: dict[int, Example], identity: bytes) -> int:
        """Hold `texts` and nothing else, under a fresh identity; the new end.

        The old file has a second name until it is overwritten, by which `sweep` finds it after a crash.

        Raises:
            ProfileDamaged: what is in the file cannot be read.
            ProfileFull, ProfileUnwritable: read again: it may be the old one or the new one.
        """
        self.require()
        content = _header(identity) + b"".join(
            self._seal_entry(number, text, identity) for number, text in texts.items()
        )
        second = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        with translate_os_errors(self.path):
            old = open_regular(self.path, os.O_WRONLY)
            try:
                with suppress(OSError):  # a file system without second names
                    os.link(self.path, second)
                try:
                    atomic_write(self.path, content)
                except BaseException:
                    with suppress(OSError):
                        if os.path.samestat(os.lstat(self.path), os.fstat(old)):
                            second.unlink(missing_ok=True)  # nothing was replaced
                    raise
                self._identity = identity
                overwrite(old)
                second.unlink(missing_ok=True)
            finally:
                os.close(old)
        return len(content)

    def require(self) -> bytes:
        """Identity of the file, once it is clear which.

        Raises:
            ProfileDamaged: what is in the file cannot be read; writing would destroy it for good.
        """
        identity = self._identity or self.read().identity
        if identity is None:
            raise ProfileDamaged(
                f"no text in {self.path} can be read, so that nothing is written to it",
                "put it back from a backup",
            )
        return identity

    def _read(self, content: memoryview, identity: bytes) -> TextLogContents:
        contents, at, lost = TextLogContents(identity=identity), _ALIGN, False
        while at < len(content):
            entry = self._open_entry(content, at, identity)
            if entry is None:
                lost, at = True, at + _ALIGN
                continue
            number, text, size = entry
            if lost:
                contents.note_damage()
            contents.texts[number], lost = text, False
            at += size
            contents.end = at
        if lost and not self._is_cut_off(content, contents.end, identity):
            contents.note_damage()
            contents.end = _aligned(len(content))
        return contents

    def _is_trusted(self, content: memoryview, identity: bytes, known: list[bytes]) -> bool:
        """Whether a header may be believed though no entry opens under it.

        There is none, or one was cut off while it was written; or, where nothing is known of the file, one
        that is damaged was made under it.
        """
        places = [at for at in range(_ALIGN, len(content), _ALIGN) if content[at : at + 4] == _MARK]
        if not places or (len(places) == 1 and self._is_cut_off(content, _ALIGN, identity)):
            return True
        return not known and any(
            len(content) - at >= _ENTRY.size and self._has_check(content, at, identity) for at in places
        )

    def _has_check(self, content: memoryview, at: int, identity: bytes) -> bool:
        mark, sealed_bytes, number, check = _ENTRY.unpack_from(content, at)
        return bool(check == _check(identity, mark, sealed_bytes, number))

    def _open_entry(self, content: memoryview, at: int, identity: bytes) -> tuple[int, Example, int] | None:
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
            return number, _unpack(plain.data), _aligned(_ENTRY.size + sealed_bytes)

    def _seal_entry(self, number: int, text: Example, identity: bytes) -> bytes:
        sealed = encrypt(self._root.data, self._context(identity, number), _pack(text))
        check = _check(identity, _MARK, len(sealed), number)
        entry = _ENTRY.pack(_MARK, len(sealed), number, check) + sealed
        return entry.ljust(_aligned(len(entry)), b"\0")

    def _is_cut_off(self, content: memoryview, end: int, identity: bytes) -> bool:
        """Whether what is left after `end` is one entry that was cut off while it was written."""
        rest = content[end:]
        if len(rest) < _ENTRY.size or not any(rest):
            return True
        mark, sealed_bytes, number, check = _ENTRY.unpack_from(rest)
        begun = (mark, check) == (_MARK, _check(identity, _MARK, sealed_bytes, number))
        return begun and _ENTRY.size + sealed_bytes > len(rest)

    def _context(self, identity: bytes, number: int) -> bytes:
        return b"antefix/v1/profile text\0" + self._profile + identity + number.to_bytes(8, "big")


def new_identity() -> bytes:
    """Of a file that is about to be written."""
    return os.urandom(16)


def stored_bytes(text: Example) -> int:
    """Bytes that a text takes on the disk, about."""
    return _aligned(len(text.prompt.encode()) + len(text.completion.encode()) + 256)


def _header(identity: bytes) -> bytes:
    return _HEAD.pack(_MAGIC, identity).ljust(_ALIGN, b"\0")


def _check(identity: bytes, mark: bytes, size: int, number: int) -> bytes:
    return hashlib.sha256(identity + mark + size.to_bytes(4, "big") + number.to_bytes(8, "big")).digest()[:16]


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _pack(text: Example) -> bytearray:
    """Sizes, texts, and zeros, so that a sealed size tells the length to 64 bytes only."""
    prompt, completion = text.prompt.encode(), text.completion.encode()
    content = bytearray(_SIZES.pack(len(prompt), len(completion)) + prompt + completion)
    return content.ljust(_aligned(len(content)), b"\0")


def _unpack(content: bytearray) -> Example:
    prompt_bytes, completion_bytes = _SIZES.unpack_from(content)
    at = _SIZES.size
    prompt = content[at : at + prompt_bytes].decode()
    return Example(content[at + prompt_bytes : at + prompt_bytes + completion_bytes].decode(), prompt)


def _write_all(handle: int, content: bytes, at: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(handle, view, at)
        view, at = view[written:], at + written
