"""Removal, in the order that survives a crash at any point.

1. A row in the log, on the mirror and here: from now on the removal will happen.
2. The shred key is overwritten with what stands for its user in the database: nothing of the user can be
   read any more, anywhere.
3. The rows are deleted, and the file is left without their bytes.
4. The slot is zeroed; a checkpoint is signed and the receipt given.

A start does 2 to 4 for every slot in the log that is not zero: what a crash cut off is finished, and a key
file from an old copy brings nobody back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from antefix.receipts import Receipt, Removal, heads_digest
from antefix_server.errors import RemovalUnfinished, UnknownUser, VaultError
from antefix_server.removal_log.log import RemovalLog
from antefix_server.removal_log.log_file import Entry
from antefix_server.vault.envelope import UserEnvelope
from antefix_server.vault.key_file import KeyFile
from antefix_server.vault.record_store import RecordStore

_UNREAD = bytes(32)
"""Digest of heads that could not be read: a damaged or absent database stops no removal."""


@dataclass(frozen=True)
class _Statement:
    removal: Removal
    entry: Entry
    recorded: bool


class Remover:
    """Removes users; the caller holds the vault's lock."""

    def __init__(self, keys: KeyFile, shelf: RecordStore, log: RemovalLog) -> None:
        """Use what the vault is made of."""
        self._keys, self._shelf, self._log = keys, shelf, log
        self._pending: list[int] = []

    def remove(self, users: Sequence[bytes], day: int) -> list[Receipt]:
        """Remove users and give their receipts; who was removed in the last days gets the same again.

        Raises:
            UnknownUser: then nobody is removed.
            VaultBusy, VaultFull: nobody is yet; whom the mirror has by then, the next call or start removes.
            RemovalUnfinished: recorded and keys destroyed; the same call again, or a start, does the rest.
        """
        self.sync_mirror()
        stated = {user: self._known(user) or self._stated(user, day) for user in dict.fromkeys(users)}
        new = [statement.entry for statement in stated.values() if not statement.recorded]
        if new:
            self._log.append(new)  # 1
            self._pending += [entry.slot for entry in new]
        self._finish()
        checkpoint = self._log.checkpoint()
        indices = {
            statement.entry.slot: self._log.index_of(statement.entry.slot) for statement in stated.values()
        }
        statements = [stated[user] for user in users]
        return [
            self._log.receipt(indices[statement.entry.slot], statement.removal, checkpoint)
            for statement in statements
        ]

    def sync_mirror(self) -> None:
        """Before anything is appended to the log: take note of removals that only one copy has."""
        self._pending += self._log.sync_mirror()

    def replay(self) -> None:
        """Finish what a crash cut off, and remove again whom an old key file brought back."""
        self._keys.reserve(self._log.slots_used())
        self._pending = [slot for slots in self._log.slots() for slot in self._keys.still_set(slots)]
        self._finish()

    def _finish(self) -> None:
        """Steps 2 to 4 for everything that is pending."""
        if not self._pending:
            return
        self._keys.begin_erase(self._pending)  # 2
        tags = [tag for slot in self._pending if (tag := self._keys.tag_in(slot)) is not None]
        try:
            self._shelf.drop_owners(tags)  # 3
        except VaultError as error:
            raise RemovalUnfinished(
                f"{len(tags)} removals are recorded and their keys destroyed, but {error.message}",
                "remove again when that is mended, for the receipt; a restart finishes them too",
            ) from error
        self._keys.zeroize(self._pending)  # 4
        self._pending = []

    def _known(self, user: bytes) -> _Statement | None:
        """An earlier removal of this user."""
        entry = self._log.of_slot(self._keys.slot_of(user))
        if entry is None:
            return None
        if entry.salt is None or entry.heads is None:
            raise UnknownUser(user)
        removal = Removal(entry.salt, self._keys.identity.tenant, user, entry.heads, entry.day)
        if removal.leaf != entry.leaf:  # an id that decrypts to this slot by chance
            raise UnknownUser(user)
        return _Statement(removal, entry, recorded=True)

    def _stated(self, user: bytes, day: int) -> _Statement:
        """What the log will say of a living user."""
        tenant = self._keys.identity.tenant
        with UserEnvelope(tenant, user, self._keys.key_of(user)) as owner:
            heads = self._heads(owner)
            removal = Removal.of(tenant=tenant, user=user, heads=heads, day=day)
            slot = self._keys.slot_of(user)
            entry = Entry(slot, day, removal.salt, heads, removal.leaf)
            return _Statement(removal, entry, recorded=False)

    def _heads(self, owner: UserEnvelope) -> bytes:
        try:
            with self._shelf.database.reading() as connection:
                rows = self._shelf.owned(connection, owner.tag)
            heads = [owner.open_head(row.head) for row in rows]
        except VaultError:
            return _UNREAD
        return heads_digest((head.prefix, head.version, head.digest) for head in heads)
