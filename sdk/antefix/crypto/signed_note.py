"""Signed notes and checkpoints of a log, as in C2SP signed-note, tlog-checkpoint and tlog-cosignature."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from antefix.errors import InvalidArgument, ReceiptRefused

_LOG, _WITNESS = 1, 4  # signature types of C2SP signed-note: Ed25519, timestamped Ed25519 cosignature
_MOST_SIGNATURES = 16
_DASH = "\N{EM DASH} "


@dataclass(frozen=True)
class LogKey:
    """Public key of a log, or of a witness; get it from where you trust, never from a receipt.

    Attributes:
        name: as in its signatures, for a log `example.com/removals`.
        public: 32 bytes, Ed25519.
        kind: 1 for a log, 4 for a witness.
    """

    name: str
    public: bytes
    kind: int = _LOG

    def __post_init__(self) -> None:
        """Refuse what no note can hold."""
        bad = (
            not self.name
            or "+" in self.name
            or not self.name.isprintable()
            or any(map(str.isspace, self.name))
        )
        if bad or len(self.name) > 255 or len(self.public) != 32 or self.kind not in (_LOG, _WITNESS):
            raise InvalidArgument(
                f"a log key has {len(self.public)} bytes, kind {self.kind}, a name of {len(self.name)}",
                "it has 32 bytes, kind 1 or 4, and a name without spaces and plus signs",
            )

    @property
    def id(self) -> bytes:
        """Four bytes that find the key's signatures; no proof of anything."""
        named = self.name.encode() + b"\n" + bytes([self.kind]) + self.public
        return hashlib.sha256(named).digest()[:4]

    def text(self) -> str:
        """One line, `name+id+key` (the format of a note's verifier key)."""
        return f"{self.name}+{self.id.hex()}+{encode_base64(bytes([self.kind]) + self.public)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `text` wrote.

        Raises:
            InvalidArgument: anything else.
        """
        name, _, rest = text.strip()[:1000].partition("+")
        key_id, _, encoded = rest.partition("+")
        content = decode_base64(encoded)
        if content is not None and len(content) == 33:
            key = cls(name, content[1:], content[0])
            if key.id.hex() == key_id:
                return key
        raise InvalidArgument(
            "this is no log key", "it is one line, name+8 hex digits+base64, as the server prints it"
        )


@dataclass(frozen=True)
class Checkpoint:
    """What a log signs: that it had this root at this size.

    Attributes:
        origin: name of the log.
        size: leaves.
        root: 32 bytes.
        signatures: lines of the note, known and unknown.
    """

    origin: str
    size: int
    root: bytes
    signatures: tuple[str, ...] = ()

    @property
    def body(self) -> str:
        """The three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"

    def signed(self, private: Ed25519PrivateKey) -> Checkpoint:
        """With the log's signature."""
        key = LogKey(self.origin, private.public_key().public_bytes_raw())
        line = f"{_DASH}{key.name} {encode_base64(key.id + private.sign(self.body.encode()))}"
        return Checkpoint(self.origin, self.size, self.root, (*self.signatures, line))

    def text(self) -> str:
        """The note."""
        return self.body + "\n" + "".join(f"{line}\n" for line in self.signatures)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a note; nothing is verified.

        Raises:
            ReceiptRefused: not a checkpoint in its one canonical form.
        """
        lines = text.split("\n")
        if len(lines) < 6 or lines[3] or lines[-1] or len(lines) > 5 + _MOST_SIGNATURES:
            raise ReceiptRefused("its checkpoint has lines that no checkpoint has")
        if not all(line.startswith(_DASH) for line in lines[4:-1]):
            raise ReceiptRefused("its checkpoint has a line that is no signature")
        root = decode_base64(lines[2])
        if root is None or len(root) != 32 or not 0 < len(lines[0]) <= 255 or not lines[0].isprintable():
            raise ReceiptRefused("its checkpoint has no name that can be shown, or no root of 32 bytes")
        return cls(lines[0], parse_number(lines[1]), root, tuple(lines[4:-1]))

    def verify(self, key: LogKey) -> None:
        """Check the signature of a log or of a witness.

        Raises:
            ReceiptRefused: not signed by that key.
        """
        for line in self.signatures:
            name, _, encoded = line.removeprefix(_DASH).partition(" ")
            content = decode_base64(encoded) if line.startswith(_DASH) else None
            if content is not None and (name, content[:4]) == (key.name, key.id):
                return self._verify(key, content[4:])
        raise ReceiptRefused(f"its checkpoint is not signed by {key.name} ({key.id.hex()})")

    def _verify(self, key: LogKey, signature: bytes) -> None:
        message = self.body.encode()
        if key.kind == _WITNESS:
            seconds, signature = int.from_bytes(signature[:8], "big"), signature[8:]
            message = f"cosignature/v1\ntime {seconds}\n".encode() + message
        elif key.name != self.origin:
            raise ReceiptRefused(f"its checkpoint is of {self.origin}, the key of {key.name}")
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
        except InvalidSignature:
            raise ReceiptRefused(f"the signature of {key.name} is not that of its key") from None


def parse_number(text: str) -> int:
    """A decimal number in its one canonical form, below 2**63."""
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or (text[0] == "0" and text != "0"):
        raise ReceiptRefused("a number in it is not written as numbers are")
    return int(text)


def encode_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def decode_base64(text: str) -> bytes | None:
    """Bytes of canonical base64, else None: one content must have one spelling."""
    try:
        content = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    return content if encode_base64(content) == text else None
