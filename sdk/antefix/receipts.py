"""Receipts of removals: what a server has logged about a user it removed, to check without the server.

A receipt is a file in the format C2SP tlog-proof: the statement, its place in an append-only Merkle log
(RFC 9162), and the log's signed checkpoint. It proves that this server said, on that day, that it destroyed
the key of this user's records, and that it cannot take that back; it does not prove that no copy exists
(`docs/security/removal.md`). A log without a witness can show two people two histories. A witness's
cosignature on the checkpoint, checked here too, rules that out.

    receipt = verify_receipt(text, LogKey.parse(line_from_the_operator), user=my_id)
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from antefix.crypto.merkle import leaf_hash, verify_consistency, verify_inclusion
from antefix.crypto.signed_note import Checkpoint, LogKey, decode_base64, parse_number
from antefix.errors import InvalidArgument, ReceiptRefused

__all__ = ["Checkpoint", "LogKey", "Receipt", "Removal", "heads_digest", "verify_growth", "verify_receipt"]

_FIRST_LINE = "c2sp.org/tlog-proof@v1"
_LARGEST = 64 * 1024
_DEEPEST = 63
_FIELDS = struct.Struct(">32s16s16s32sI")


@dataclass(frozen=True)
class Removal:
    """What was removed. Private to the user: with it, the log's random-looking leaf can be told to be theirs.

    Attributes:
        salt: 32 random bytes, without which the leaf says nothing.
        tenant, user: 16 bytes each.
        heads: `heads_digest` of the user's records.
        day: days since 1970-01-01, UTC.
    """

    salt: bytes = field(repr=False)
    tenant: bytes
    user: bytes
    heads: bytes
    day: int

    @classmethod
    def of(cls, *, tenant: bytes, user: bytes, heads: bytes, day: int) -> Self:
        """A new statement with a fresh salt."""
        return cls(os.urandom(32), tenant, user, heads, day)

    @property
    def date(self) -> datetime.date:
        """The day as a date."""
        return datetime.date(1970, 1, 1) + datetime.timedelta(days=self.day)

    @property
    def leaf(self) -> bytes:
        """Leaf hash in the log, 32 bytes."""
        commitment = hashlib.sha256(b"antefix/v1/removal commitment\0" + self.to_bytes()).digest()
        return leaf_hash(b"antefix/v1/removal\0" + self.day.to_bytes(4, "big") + commitment)

    def to_bytes(self) -> bytes:
        """100 bytes."""
        return _FIELDS.pack(self.salt, self.tenant, self.user, self.heads, self.day)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read them.

        Raises:
            ReceiptRefused: another size, or a day that no calendar has.
        """
        if len(content) != _FIELDS.size:
            raise ReceiptRefused(f"its statement has {len(content)} bytes, expected {_FIELDS.size}")
        removal = cls(*_FIELDS.unpack(content))
        if removal.day > 2_900_000:
            raise ReceiptRefused(f"its day is {removal.day} days after 1970")
        return removal


@dataclass(frozen=True)
class Receipt:
    """A statement and its proof; verified only by `verify_receipt`.

    Attributes:
        removal: the statement.
        index: of its leaf.
        proof: hashes of 32 bytes, the leaf's neighbour first.
        checkpoint: of the log.
    """

    removal: Removal
    index: int
    proof: tuple[bytes, ...]
    checkpoint: Checkpoint

    def text(self) -> str:
        """The file."""
        extra = base64.b64encode(self.removal.to_bytes()).decode()
        lines = [_FIRST_LINE, f"extra {extra}", f"index {self.index}"]
        lines += [base64.b64encode(sibling).decode() for sibling in self.proof]
        return "\n".join(lines) + "\n\n" + self.checkpoint.text()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a receipt from anyone; nothing is verified.

        Raises:
            ReceiptRefused: not in the format.
        """
        if len(text) > _LARGEST:
            raise ReceiptRefused(f"it has {len(text):,} characters, a receipt has {_LARGEST:,} at most")
        head, separator, checkpoint = text.partition("\n\n")
        first, *lines = head.split("\n")
        if first != _FIRST_LINE or not separator or len(lines) < 2:
            raise ReceiptRefused(f"it does not begin as a receipt does, with {_FIRST_LINE}")
        extra = decode_base64(_after(lines[0], "extra "))
        proof = [decode_base64(line) for line in lines[2:]]
        if (
            extra is None
            or len(proof) > _DEEPEST
            or not all(sibling is not None and len(sibling) == 32 for sibling in proof)
        ):
            raise ReceiptRefused("a line in it is not base64 of the right size")
        index = parse_number(_after(lines[1], "index "))
        hashes = tuple(sibling for sibling in proof if sibling is not None)
        return cls(Removal.from_bytes(extra), index, hashes, Checkpoint.parse(checkpoint))


def verify_receipt(
    text: str, key: LogKey, *, user: bytes | None = None, witnesses: Iterable[LogKey] = ()
) -> Receipt:
    """Check a receipt offline.

    Args:
        text: the file.
        key: the log's, from where the caller trusts.
        user: 16 bytes: whose removal it must be, if the caller knows.
        witnesses: each must have signed the checkpoint too.

    Raises:
        ReceiptRefused: not a receipt, of another user, not signed, or not in the tree that is signed.
    """
    if user is not None and len(user) != 16:
        raise InvalidArgument(f"a user id has {len(user)} bytes, expected 16")
    receipt = Receipt.parse(text)
    for signer in (key, *witnesses):
        receipt.checkpoint.verify(signer)
    if user is not None and receipt.removal.user != user:
        raise ReceiptRefused(f"it is of user {receipt.removal.user.hex()}, expected {user.hex()}")
    tree = receipt.checkpoint
    if not verify_inclusion(receipt.removal.leaf, receipt.index, tree.size, receipt.proof, tree.root):
        raise ReceiptRefused(f"its statement is not leaf {receipt.index} of the {tree.size} that are signed")
    return receipt


def verify_growth(before: Checkpoint, after: Checkpoint, proof: Sequence[bytes]) -> None:
    """Check that a log only grew: every leaf of a checkpoint that somebody kept is where it was.

    Args:
        before, after: of the same log; each was verified with its key.
        proof: hashes that a server gives for the size of `before`, while `after` is its newest checkpoint:
            GET /v1/log/consistency?first=SIZE.

    Raises:
        ReceiptRefused: of two logs, or not shown to have grown: something may have been taken out.
    """
    if before.origin != after.origin:
        raise ReceiptRefused(f"its log is {after.origin}, the one before was {before.origin}")
    if not verify_consistency(before.size, before.root, after.size, after.root, proof):
        raise ReceiptRefused(
            f"the log of {after.size} leaves is not shown to begin with the {before.size} that it had"
        )


def heads_digest(heads: Iterable[tuple[bytes, int, bytes]]) -> bytes:
    """SHA-256 over a user's newest records: prefix id, version, digest of each."""
    packed = sorted(struct.pack(">16sQ32s", *head) for head in heads)
    return hashlib.sha256(b"antefix/v1/heads\0" + b"".join(packed)).digest()


def _after(line: str, start: str) -> str:
    if not line.startswith(start):
        raise ReceiptRefused(f"a line in it does not begin with {start.strip()!r}")
    return line.removeprefix(start)
