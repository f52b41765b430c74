"""A profile: a user's folder on a device. Everything private in it is sealed."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from antefix._example import Example
from antefix._files import sync_folder
from antefix._sealing import KEY_BYTES, Secret
from antefix.errors import RecordError
from antefix.keys import Cost
from antefix.records import FIRST, Address, Edition, OpenedRecord, cover_of, digest_of, open_record, seal
from antefix_client import _card, _custody, _history, _migration, _slots
from antefix_client._card import Card
from antefix_client._custody import Custody
from antefix_client._history import History, Version
from antefix_client._lock import Lock
from antefix_client._sealedfiles import SealedFiles, shred
from antefix_client._seam import files
from antefix_client._slots import Unlock
from antefix_client._textlog import TextLog, stored_bytes
from antefix_client.errors import ProfileDamaged, ProfileExists, TextRefused

LOCK, TEXTS, CHECKPOINT, SHARED = "lock", "texts", "learning", "shared.safetensors"
_LONGEST_TEXT = 100_000


class Profile:
    """An open profile. One thread at a time writes; the model that owns it sees to that.

    Attributes:
        folder: where it is.
        card: its public facts.
        sealed: its small sealed files.
        history: its versions.
        damaged: what of it could not be read, for a person.
    """

    def __init__(self, folder: Path, root_of: Callable[[Card], Secret]) -> None:
        """Use `open` or `create`."""
        self.folder = folder
        Card.require(folder)  # before the lock, which would make a file
        with ExitStack() as opened:
            opened.callback(Lock(folder / LOCK).release)
            self.card = _migration.brought_up(folder)
            self._root = root_of(self.card)
            opened.callback(self._root.wipe)
            self.sealed = SealedFiles(folder, self.id, self._root)
            self._keys = Custody.read(self.sealed, bytes.fromhex(self.card.prefix))
            opened.callback(lambda: self._keys.wipe())
            # The keys say whose profile this is: the card may be behind, if `take_over` was cut off.
            self.card = self.card.model_copy(update=self._keys.ids)
            _sweep(folder)
            self.history = History(folder, self.sealed)
            self._log = TextLog(folder / TEXTS, self.id, self._root)
            self._texts: dict[int, Example] | None = None
            self._known: set[bytes] = set()
            self._end = 0
            self.damaged = list(self.history.damaged)
            self._close = opened.pop_all().close

    @classmethod
    def open(cls, folder: Path, unlock: Unlock) -> Profile:
        """Open one; nothing but small files is read.

        Raises:
            ProfileAbsent, ProfileInUse, UnlockRefused, ProfileDamaged, ProfileUnwritable.
        """
        return cls(folder, lambda card: _slots.root_of(card.slots, bytes.fromhex(card.profile), unlock))

    @classmethod
    def create(cls, folder: Path, base: str, unlock: Unlock, cost: Cost | None = None) -> Profile:
        """Make one and open it.

        Raises:
            ProfileExists: the folder has something in it.
            ProfileInUse, ProfileFull, ProfileUnwritable.
        """
        with files(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _require_room(folder)
        card = Card.fresh(base)
        profile = bytes.fromhex(card.profile)
        root = Secret(bytearray(os.urandom(KEY_BYTES)))
        lock = Lock(folder / LOCK)
        try:
            sealed = SealedFiles(folder, profile, root)
            slot = _slots.new_slot(root, profile, unlock, cost)
            keys = Custody.fresh(*map(bytes.fromhex, (card.tenant, card.user, card.prefix)))
            keys.write(sealed)
            keys.wipe()
            TextLog(folder / TEXTS, profile, root).create()
            card.model_copy(update={"slots": [slot]}).write(folder)  # last: from now on it is one
        finally:
            lock.release()
        return cls(folder, lambda _: root)

    @property
    def id(self) -> bytes:
        """16 random bytes."""
        return bytes.fromhex(self.card.profile)

    @property
    def texts(self) -> dict[int, Example]:
        """What is remembered, by number, oldest first. Private."""
        if self._texts is None:
            contents = self._log.read()
            if contents.damaged:
                self.damaged.append(f"{TEXTS}: {contents.damaged} places in it")
            self._texts, self._end = contents.texts, contents.end
            self._known = {self.digest(text) for text in contents.texts.values()}
        return self._texts

    def digest(self, text: Example) -> bytes:
        """Keyed digest of a text, 16 bytes: says nothing without the root key."""
        message = len(text.prompt).to_bytes(8, "big") + (text.prompt + text.completion).encode()
        return hmac.digest(self._root.data, b"antefix/v1/profile digest\0" + message, "sha256")[:16]

    def remember(self, texts: Iterable[Example]) -> int:
        """Keep texts that are not kept yet; how many. Durable on return; all or none.

        Raises:
            TextRefused: one is too long.
            ProfileFull, ProfileUnwritable: nothing was kept.
        """
        have = self.texts
        number, new, digests = max(have, default=0) + 1, {}, set()
        for at, text in enumerate(texts):
            _require_usable(text, at)
            digest = self.digest(text)
            if digest not in self._known and digest not in digests:
                new[number], number = text, number + 1
                digests.add(digest)
        if new:
            self._end = self._log.append(new.items(), self._end)
            have.update(new)
            self._known |= digests
            self._bound()
        return len(new)

    def remove_texts(self, numbers: Iterable[int]) -> int:
        """Forget some texts: the file is written anew without them; how many there were."""
        gone = set(numbers) & self.texts.keys()
        if gone:
            self._rewrite({number: text for number, text in self.texts.items() if number not in gone})
        return len(gone)

    def address(self, base: str, shape: bytes) -> Address:
        """Where this profile's records belong."""
        tenant, user, prefix = map(bytes.fromhex, (self.card.tenant, self.card.user, self.card.prefix))
        return Address(tenant, user, prefix, bytes.fromhex(base), shape)

    @property
    def keys(self) -> Custody:
        """Its keys. Private."""
        return self._keys

    def take_over(self, keys: Custody) -> None:
        """Use other keys, of another user perhaps; one write decides: a crash leaves the old or the new.

        Raises:
            ProfileFull, ProfileUnwritable: nothing has changed, or the card alone is behind.
        """
        keys.write(self.sealed)
        self._keys = keys
        self.card = self.card.model_copy(update=keys.ids)
        self.card.write(self.folder)

    def add_version(
        self, payload: bytes, shape: bytes, version: Version, follows: Version | None = None
    ) -> Version:
        """Seal a prefix as the next version; `version` with number and digest filled in.

        Args:
            payload: the prefix. Private.
            shape: of it, 32 bytes.
            version: what else is known of it.
            follows: the version before; None for the one in use.
        """
        newest = follows or self.history.newest
        previous = FIRST if newest is None else bytes.fromhex(newest.digest)
        number = self.history.next_number
        edition = Edition(self.address(version.base, shape), number, previous if number > 1 else FIRST)
        record = seal(payload, edition, key=self._keys.user_key, device=self._keys.device)
        made = version.model_copy(update={"number": number, "digest": digest_of(record).hex()})
        self.history.add(made, record)
        return made

    def open_version(self, version: Version) -> OpenedRecord:
        """The prefix of a version, for a `with` block.

        Its shape is what its record says: the digest that is remembered pins the record.

        Raises:
            ProfileDamaged: its record is missing, or does not open.
        """
        record = self.history.record(version)
        try:
            address = self.address(version.base, cover_of(record).edition.address.shape)
            opened = open_record(record, address, key=self._keys.user_key, writers=self._keys.devices.writers)
        except RecordError as error:
            raise ProfileDamaged(
                f"version {version.number} is damaged: {error.message}",
                "roll back to another, or learn again",
            ) from None
        if opened.digest.hex() != version.digest:
            opened.wipe()
            raise ProfileDamaged(f"version {version.number} is not the one that was made", "roll back")
        return opened

    def pin_base(self, fingerprint: str) -> None:
        """Remember which base this profile's prefixes are for."""
        self.card = self.card.model_copy(update={"fingerprint": fingerprint})
        self.card.write(self.folder)

    def unpin_base(self, name: str) -> None:
        """Go over to another base; its fingerprint is pinned when it is loaded."""
        self.card = self.card.model_copy(update={"base": name, "fingerprint": None})
        self.card.write(self.folder)

    @property
    def interrupted(self) -> bool:
        """Whether a `learn` was cut off."""
        return (self.folder / CHECKPOINT).is_file()

    @property
    def bytes_on_disk(self) -> int:
        """Of all files."""
        with files(self.folder):
            return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def change_unlock(self, unlock: Unlock, cost: Cost | None = None) -> None:
        """Unlock with something else from now on; what unlocked it before does not any more."""
        old, slot = self.card.slots, _slots.new_slot(self._root, self.id, unlock, cost)
        self.card = self.card.model_copy(update={"slots": [slot]})
        self.card.write(self.folder)
        if slot.kind != "keyring":
            for one in old:
                _slots.dismiss(one, self.id)

    def forget(self) -> None:
        """Destroy the profile: slots first, so that nothing of the rest can be opened, then every file."""
        for slot in self.card.slots:
            _slots.dismiss(slot, self.id)
        shred(self.folder / _card.NAME)
        shred(self.folder / _custody.NAME)
        versions = self.folder / _history.FOLDER
        inside = [*versions.iterdir()] if versions.is_dir() else []
        for path in [*inside, *self.folder.iterdir()]:
            if path.name != LOCK and not path.is_dir():
                shred(path)
        self.close()
        with files(self.folder):
            if versions.is_dir():
                versions.rmdir()
            (self.folder / LOCK).unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()
                sync_folder(self.folder.parent)

    def close(self) -> None:
        """Wipe the keys and let the next one in."""
        self._texts, self._known = None, set()
        self._close()

    def _bound(self) -> None:
        """Drop the oldest texts above the limits, a tenth more than must be, so that it is rare."""
        if len(self.texts) <= self.card.max_texts and self._end <= self.card.max_bytes:
            return
        kept, room = {}, self.card.max_bytes * 9 // 10
        for number in sorted(self.texts, reverse=True)[: self.card.max_texts * 9 // 10]:
            room -= stored_bytes(self.texts[number])
            if room < 0:
                break
            kept[number] = self.texts[number]
        self._rewrite(dict(sorted(kept.items())))

    def _rewrite(self, texts: dict[int, Example]) -> None:
        self._end = self._log.rewrite(texts)
        self._texts = texts
        self._known = {self.digest(text) for text in texts.values()}


def _require_room(folder: Path) -> None:
    """Refuse a folder in use; what a `create` left that was cut off is no use."""
    ours = {LOCK, TEXTS, _custody.NAME}
    if any(path.name.lstrip(".").split(".")[0] not in ours for path in folder.iterdir()):
        raise ProfileExists(f"{folder} has something in it", "choose a new folder, or open the profile there")


def _sweep(folder: Path) -> None:
    """Delete what writes left that were cut off."""
    for path in folder.glob(".*"):
        shred(path)


def _require_usable(text: Example, at: int) -> None:
    size = len(text.prompt) + len(text.completion)
    if size > _LONGEST_TEXT:
        raise TextRefused(
            f"text {at} has {size:,} characters, more than {_LONGEST_TEXT:,}", "split it into several"
        )
    if not text.completion.strip():
        raise TextRefused(f"text {at} is empty", "leave it out")
