"""The removal log and its mirror: append-only, signed, and outside of every backup of what it removes."""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from antefix.crypto.merkle import consistency_proof_ranges, inclusion_proof_ranges
from antefix.errors import InvalidArgument
from antefix.receipts import Checkpoint, LogKey, Receipt, Removal
from antefix_server.errors import VaultDamaged
from antefix_server.removal_log.log_file import Entry, LogFile
from antefix_server.removal_log.statement import Kind, Statement
from antefix_server.removal_log.verification import computed_root

_WAIT_S = 5.0
_WHICH = "give the mirror that belongs to this folder"
_LEAP = 1_000_000
KEPT_DAYS = 8
"""As long as a backup of the keys may be restored, and a day."""


class RemovalLog:
    """The log. What is on the mirror will happen, so it is written there first.

    Attributes:
        key: to verify receipts with.
    """

    def __init__(
        self, path: Path, mirror: Path | None, origin: str, signing: Ed25519PrivateKey, wait_s: float
    ) -> None:
        """Open both copies and let each have what the other has.

        Raises:
            VaultDamaged: they have different histories.
        """
        self._signing = signing
        self._marking = hmac.digest(signing.private_bytes_raw(), b"antefix/v1/removal log mark\0", "sha256")
        self.key = LogKey(origin, signing.public_key().public_bytes_raw())
        self._here = LogFile(path, wait_s=wait_s, create=mirror is not None and mirror.exists())
        self._copies, self._level = [self._here], True
        if mirror is not None:
            self._copies.insert(0, LogFile(mirror, wait_s=wait_s, create=True))
            self._reconcile(self._copies[0])

    @staticmethod
    def size_of(path: Path) -> int:
        """Leaves in a copy."""
        copy = LogFile(path, wait_s=_WAIT_S)
        copy.database.close()
        return copy.size

    @staticmethod
    def slots_in(path: Path, wait_s: float) -> Iterator[list[int]]:
        """Every slot ever removed, some at a time, for who only reads."""
        copy = LogFile(path, wait_s=wait_s, read_only=True)
        with closing(copy.database):
            yield from copy.slots()

    @property
    def size(self) -> int:
        """Leaves so far."""
        return self._here.size

    @property
    def removals(self) -> int:
        """Removals among them."""
        return self._here.removals

    def append(self, entries: Sequence[Entry | Statement]) -> range:
        """Record removals, which from now on will happen, or statements. Their indices."""
        first = self.size
        marked = [replace(entry, mark=self._mark(index, entry)) for index, entry in enumerate(entries, first)]
        self._level = False  # until all copies have them
        for copy in self._copies:
            copy.append(marked)
        self._level = True
        return range(first, self.size)

    def sync_mirror(self) -> list[int]:
        """After an `append` that failed: let each copy have what the other took. Slots that are new here.

        To go on without it would give the copies two histories.
        """
        if self._level:
            return []
        first = self.size
        for copy in self._copies:
            copy.reload()
        for mirror in self._copies[:-1]:
            self._reconcile(mirror)
        self._level = True
        new = (entry for batch in self._here.entries(first) for _, entry in batch)
        return [entry.slot for entry in new if isinstance(entry, Entry)]

    def forget(self, today: int) -> None:
        """Erase what links old leaves to users."""
        for copy in self._copies:
            copy.forget(today - KEPT_DAYS)

    def of_slot(self, slot: int) -> Entry | None:
        """The removal of a slot."""
        indexed_entry = self._here.of_slot(slot)
        return None if indexed_entry is None else indexed_entry[1]

    def index_of(self, slot: int) -> int:
        """Where the removal of a slot is in the log.

        Raises:
            VaultDamaged: nowhere.
        """
        indexed_entry = self._here.of_slot(slot)
        if indexed_entry is None:
            raise VaultDamaged(
                f"slot {slot} is not in {self._here.database.name}", "restore it from the mirror"
            )
        return indexed_entry[0]

    def statement(self, kind: Kind, number: int) -> Statement | None:
        """What was said under a number."""
        return self._here.statement(kind, number)

    def next_number(self, kind: Kind) -> int:
        """A number under which nothing was ever said."""
        return self._here.last_number(kind) + 1

    def skip_to_fresh(self) -> None:
        """Skip numbers of statements: those that a lost part of the log may have had."""
        skipped = (Statement(kind, self.next_number(kind) + _LEAP, bytes(32)) for kind in Kind)
        self.append(list(skipped))

    def slots(self) -> Iterator[list[int]]:
        """Every slot ever removed, some at a time."""
        return self._here.slots()

    def slots_used(self) -> int:
        """One more than the highest slot removed."""
        return self._here.slots_used()

    def checkpoint(self) -> Checkpoint:
        """Root and size, signed."""
        return Checkpoint(self.key.name, self.size, self._here.root()).signed(self._signing)

    def consistency(self, first: int) -> list[bytes]:
        """Proof that the tree of today begins with that of `first` leaves, for auditors and witnesses.

        Raises:
            InvalidArgument: no such size.
        """
        if not 0 < first <= self.size:
            raise InvalidArgument(f"the log has {self.size} leaves, a proof from {first} was asked for")
        return self._here.hashes(consistency_proof_ranges(first, self.size))

    def verify(self, earlier: Checkpoint | None = None) -> Checkpoint:
        """Go through both copies, entry by entry; the checkpoint of what was found.

        Args:
            earlier: a checkpoint from before, to which the log must only have been added.

        Raises:
            VaultDamaged: one of them was changed, or they differ.
            ReceiptRefused: `earlier` is not signed by this log.
        """
        if earlier is not None:
            earlier.verify(self.key)
        roots = {computed_root(copy, self._mark, earlier) for copy in self._copies}
        if len(roots) > 1:
            raise VaultDamaged("the log and its mirror differ", _WHICH)
        return self.checkpoint()

    def receipt(self, index: int, removal: Removal, checkpoint: Checkpoint) -> Receipt:
        """Proof that a removal is in the log."""
        proof = self._here.hashes(inclusion_proof_ranges(index, checkpoint.size))
        return Receipt(removal, index, tuple(proof), checkpoint)

    def close(self) -> None:
        """Close both."""
        for copy in self._copies:
            copy.database.close()

    def _reconcile(self, mirror: LogFile) -> None:
        shorter, longer = sorted((mirror, self._here), key=lambda copy: copy.size)
        if shorter.root() != longer.root(shorter.size):
            raise VaultDamaged(
                f"{mirror.database.name} and {self._here.database.name} have different histories", _WHICH
            )
        for batch in longer.entries(shorter.size):
            if longer is mirror and any(entry.mark != self._mark(index, entry) for index, entry in batch):
                raise VaultDamaged(
                    f"{mirror.database.name} has entries that this vault did not write", _WHICH
                )
            shorter.append([entry for _, entry in batch])

    def _mark(self, index: int, entry: Entry | Statement) -> bytes:
        """What nobody else can write: the mirror is elsewhere, perhaps where others write.

        Who could add to it would remove whom they like, or have the log sign a receipt of what never was.
        """
        if isinstance(entry, Statement):  # 58 bytes: no removal's 52
            message = b"statement" + struct.pack(">QBQ", index, entry.kind, entry.number) + entry.leaf
        else:
            message = struct.pack(">QQI", index, entry.slot, entry.day) + entry.leaf
        return hmac.digest(self._marking, message, "sha256")[:16]
