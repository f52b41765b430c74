"""A profile: a user's folder on a device. Everything private in it is sealed."""

from __future__ import annotations

import hmac
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from antefix.common.files import sync_folder
from antefix.crypto.aead import KEY_BYTES, SecretBytes
from antefix.data.example import Example
from antefix.errors import InvalidArgument, RecordError
from antefix.keys import Cost
from antefix.records import (
    NO_PREVIOUS,
    Address,
    OpenedRecord,
    RecordVersion,
    digest_of,
    open_record,
    read_header,
    seal,
)
from antefix_client.errors import ProfileDamaged, ProfileExists, ProfileUnwritable, TextRefused
from antefix_client.profile import key_store, manifest, migration, unlock_slots, version_history
from antefix_client.profile.encrypted_files import EncryptedFiles
from antefix_client.profile.key_store import KeyStore
from antefix_client.profile.lock import Lock
from antefix_client.profile.manifest import ProfileManifest
from antefix_client.profile.os_errors import translate_os_errors
from antefix_client.profile.safe_files import delete_leftovers, secure_delete
from antefix_client.profile.text_log import TextLog, new_identity, stored_bytes
from antefix_client.profile.unlock_slots import Unlock
from antefix_client.profile.version_history import Version, VersionHistory

LOCK, TEXTS, CHECKPOINT, SHARED = "lock", "texts", "learning", "shared.safetensors"
_LONGEST_TEXT = 100_000
_ELSEWHERE = "keep the key in another folder: whoever has the profile must not have it, too"


class Profile:
    """An open profile. One thread at a time uses it; the model that owns it sees to that.

    Attributes:
        folder: where it is; links on the way are followed once.
        lock: held while it is open; whatever writes requires it.
        card: its public facts.
        sealed: its small sealed files.
        history: its versions.
        damaged: what of it could not be read, for a person.
        removals: how often texts were removed since it was opened.
    """

    def __init__(
        self, folder: Path, root_of: Callable[[ProfileManifest], SecretBytes], lock: Lock | None = None
    ) -> None:
        """Use `open` or `create`."""
        self.folder = folder = folder.resolve()
        with ExitStack() as opened:
            if lock is None:
                ProfileManifest.require(folder)  # before the lock, which would make a file
                lock = Lock(folder / LOCK)
            self.lock = lock
            opened.callback(self.lock.release)
            self.manifest = migration.migrate(folder)
            self._root = root_of(self.manifest)
            opened.callback(self._root.wipe)
            self.sealed = EncryptedFiles(folder, self.id, self._root, self.lock)
            self._keys = KeyStore.read(self.sealed, bytes.fromhex(self.manifest.prefix))
            opened.callback(lambda: self._keys.wipe())
            # The keys say whose profile this is: the card may be behind, if `take_over` was cut off.
            self.manifest = self.manifest.model_copy(update=self._keys.ids)
            delete_leftovers(folder)
            self.history = VersionHistory(folder, self.sealed)
            self._log = TextLog(folder / TEXTS, self.id, self._root)
            self._texts: dict[int, Example] | None = None
            self._known: set[bytes] = set()
            self._identity: bytes | None = None
            self.removals = 0
            self._end = 0
            self.damaged: list[str] = []
            self._close = opened.pop_all().close

    @classmethod
    def open(cls, folder: Path, unlock: Unlock) -> Profile:
        """Open one; nothing but small files is read. `recover` comes next.

        Raises:
            ProfileAbsent, ProfileInUse, UnlockRefused, ProfileDamaged, ProfileUnwritable.
        """
        return cls(
            folder, lambda card: unlock_slots.open_root_key(card.slots, bytes.fromhex(card.profile), unlock)
        )

    @classmethod
    def create(cls, folder: Path, base: str, unlock: Unlock, cost: Cost | None = None) -> Profile:
        """Make one and open it. `recover` comes next.

        Raises:
            ProfileExists: the folder has something in it.
            ProfileInUse, ProfileFull, ProfileUnwritable.
        """
        _make_room(folder)
        card = ProfileManifest.fresh(base)
        profile = bytes.fromhex(card.profile)
        root = SecretBytes(bytearray(os.urandom(KEY_BYTES)))
        with ExitStack() as failed:
            lock = Lock(folder / LOCK)
            failed.callback(lock.release)
            before = _require_room(folder)  # again: somebody else may have been faster
            slot = unlock_slots.new_slot(root, profile, unlock, cost)
            failed.callback(unlock_slots.revoke, slot, profile)
            if _require_room(folder) != before:
                raise InvalidArgument("unlock has put a file into the profile's folder", _ELSEWHERE)
            sealed = EncryptedFiles(folder, profile, root, lock)
            keys = KeyStore.fresh(*map(bytes.fromhex, (card.tenant, card.user, card.prefix)))
            keys.write(sealed)
            keys.wipe()
            log = TextLog(folder / TEXTS, profile, root).create()
            VersionHistory(folder, sealed).note(logs=[log.hex()])
            card.model_copy(update={"slots": [slot]}).write(folder)  # last: from now on it is one
            failed.pop_all()
        return cls(folder, lambda _: root, lock)

    @property
    def id(self) -> bytes:
        """16 random bytes."""
        return bytes.fromhex(self.manifest.profile)

    @property
    def texts(self) -> dict[int, Example]:
        """What is remembered, by number, oldest first. Private."""
        if self._texts is None:
            contents = self._log.read(map(bytes.fromhex, self.history.state.logs))
            said = contents.said(TEXTS)
            if contents.damaged and said not in self.damaged:
                self.damaged.append(said)
            self._identity = contents.identity
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
        self.lock.require()
        have = self.texts
        number, new, digests = self._next_number, dict[int, Example](), set[bytes]()
        for at, text in enumerate(texts):
            require_usable(text, f"text {at}")
            digest = self.digest(text)
            if digest not in self._known and digest not in digests:
                new[number], number = text, number + 1
                digests.add(digest)
        if not new:
            return 0
        kept = self._bounded({**have, **new}, self._end + sum(map(stored_bytes, new.values())))
        if kept is not None:
            self._rewrite(kept)
            return len(new)
        if self._identity is not None and self._identity.hex() not in self.history.state.logs:
            self.history.note(logs=[self._identity.hex()])  # of a profile that was made before it was kept
        with self._rereading():
            self._end = self._log.append(new.items(), self._end)
        have.update(new)
        self._known |= digests
        return len(new)

    def remove_texts(self, numbers: Iterable[int]) -> int:
        """Forget some texts: the file is written anew without them; how many there were.

        What was learned so far counts as learned from them, until a `learn` has started over.
        """
        self.lock.require()
        gone = set(numbers) & self.texts.keys()
        if gone:
            self.removals += 1
            removed = self.history.state.removed or bool(self.history.versions)
            kept = {number: text for number, text in self.texts.items() if number not in gone}
            self.sealed.delete(CHECKPOINT)  # it was trained on them
            # Noted first: a crash after it costs a warm start, and no promise.
            self._rewrite(kept, removed=removed)
        return len(gone)

    def address(self, base: str, shape: bytes) -> Address:
        """Where this profile's records belong."""
        tenant, user, prefix = map(
            bytes.fromhex, (self.manifest.tenant, self.manifest.user, self.manifest.prefix)
        )
        return Address(tenant, user, prefix, bytes.fromhex(base), shape)

    @property
    def keys(self) -> KeyStore:
        """Its keys. Private."""
        return self._keys

    def take_over(self, keys: KeyStore) -> None:
        """Use other keys, of another user perhaps; one write decides: a crash leaves the old or the new.

        Raises:
            ProfileFull, ProfileUnwritable: nothing has changed, or the card alone is behind.
        """
        keys.write(self.sealed)
        self._keys = keys
        self._update(**keys.ids)

    def load_versions(self) -> None:
        """Read which versions there are; call it once, before anything else of the profile is used.

        It stands apart from `open`, for what was cut off while the keys changed must be brought to its
        end first: until then some records open under keys that are not in use any more.
        """
        self.history.recover(self._opens)
        self.damaged = list(self.history.damaged)

    def add_version(
        self, payload: bytes, shape: bytes, version: Version, follows: Version | None = None, least: int = 1
    ) -> Version:
        """Seal a prefix as the next version; `version` with number and digest filled in.

        Args:
            payload: the prefix. Private.
            shape: of it, 32 bytes.
            version: what else is known of it.
            follows: the version before; None for the one in use.
            least: number that it has at least.
        """
        self.lock.require()
        newest = follows or self.history.newest
        previous = self.history.last_digest if newest is None else bytes.fromhex(newest.digest)
        number = max(self.history.next_number, least)
        edition = RecordVersion(
            self.address(version.base, shape), number, previous if number > 1 else NO_PREVIOUS
        )
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
            address = self.address(version.base, read_header(record).edition.address.shape)
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
        self._update(fingerprint=fingerprint)

    def unpin_base(self, name: str) -> None:
        """Go over to another base; its fingerprint is pinned when it is loaded."""
        self._update(base=name, fingerprint=None)

    @property
    def interrupted(self) -> bool:
        """Whether a `learn` was cut off."""
        return (self.folder / CHECKPOINT).is_file()

    @property
    def bytes_on_disk(self) -> int:
        """Of all files."""
        with translate_os_errors(self.folder):
            return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def change_unlock(self, unlock: Unlock, cost: Cost | None = None) -> None:
        """Unlock with something else from now on; what unlocked it before does not any more."""
        self.lock.require()
        old, slot = self.manifest.slots, unlock_slots.new_slot(self._root, self.id, unlock, cost)
        try:
            self._update(slots=[slot])
        except BaseException:
            with suppress(Exception):
                if (
                    ProfileManifest.read(self.folder).slots == old
                ):  # else it was written all but the folder's sync
                    unlock_slots.revoke(slot, self.id)
            raise
        for one in old:  # now that the new one is on the disk: nothing opens them any more
            with suppress(Exception):  # a keyring that is locked, of any kind; what stays there is of no use
                unlock_slots.revoke(one, self.id)

    def forget(self) -> None:
        """Destroy the profile: slots first, so that nothing of the rest can be opened, then every file."""
        self.lock.require()
        for slot in self.manifest.slots:
            unlock_slots.revoke(slot, self.id)
        versions = self.folder / version_history.FOLDER
        try:
            secure_delete(self.folder / manifest.NAME)
            secure_delete(self.folder / key_store.NAME)
            inside = [*versions.iterdir()] if versions.is_dir() and not versions.is_symlink() else []
            for path in [*inside, *self.folder.iterdir()]:
                if path.name != LOCK and (path.is_symlink() or not path.is_dir()):
                    secure_delete(path)
            self.lock.delete()
        finally:  # also where a file could not be overwritten: the next write would bring the card back
            self.close()
        for folder in (versions, self.folder):
            with suppress(OSError):  # not empty: something in it is not ours
                folder.rmdir()
        with translate_os_errors(self.folder):
            sync_folder(self.folder.parent)

    def close(self) -> None:
        """Wipe the keys and let the next one in."""
        self._texts, self._known = None, set()
        self._close()

    def _opens(self, version: Version) -> bool:
        try:
            self.open_version(version).wipe()
        except ProfileDamaged:
            return False
        return True

    def _update(self, **facts: object) -> None:
        """Write the card, then believe it: what could not be written must not come with the next write."""
        self.lock.require()
        card = self.manifest.model_copy(update=facts)
        card.write(self.folder)
        self.manifest = card

    @property
    def given(self) -> int:
        """Texts that were ever remembered, also those that are gone; it never falls."""
        return self._next_number - 1

    @property
    def _next_number(self) -> int:
        """Of the next text; none that was ever given, so that nobody removes another one by it."""
        return max(max(self.texts, default=0) + 1, self.history.state.next_text)

    def _bounded(self, texts: dict[int, Example], size: int) -> dict[int, Example] | None:
        """Without the oldest above the limits, a tenth more than must be; None where all fit."""
        if len(texts) <= self.manifest.max_texts and size <= self.manifest.max_bytes:
            return None
        kept, room = {}, self.manifest.max_bytes * 9 // 10
        for number in sorted(texts, reverse=True)[: self.manifest.max_texts * 9 // 10]:
            room -= stored_bytes(texts[number])
            if room < 0:
                break
            kept[number] = texts[number]
        return dict(sorted(kept.items()))

    def _rewrite(self, texts: dict[int, Example], **facts: object) -> None:
        """Write the file of texts anew; its identity is noted before, beside the one that it has."""
        self._log.require()
        identity = new_identity()
        logs = [identity.hex()] + ([] if self._identity is None else [self._identity.hex()])
        self.history.note(logs=logs, next_text=max(self._next_number, max(texts, default=0) + 1), **facts)
        with self._rereading():
            self._end = self._log.rewrite(texts, identity)
        self._texts, self._identity = texts, identity
        self._known = {self.digest(text) for text in texts.values()}

    @contextmanager
    def _rereading(self) -> Iterator[None]:
        """After a write that failed, what is on the disk counts, and is read when it is needed."""
        try:
            yield
        except BaseException:
            self._texts = None
            raise


def _make_room(folder: Path) -> None:
    """A folder of our own that nobody else can read, with nothing in it."""
    with translate_os_errors(folder):
        if not folder.parent.exists():  # made silently, a mistyped path would be a profile that nobody finds
            raise ProfileUnwritable(
                f"{folder} cannot be made: there is no folder {folder.parent}",
                "check the path, or make that folder first",
            )
        folder.mkdir(exist_ok=True, mode=0o700)
        _require_room(folder)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = os.fstat(handle)
            if found.st_uid != os.geteuid():
                raise ProfileUnwritable(
                    f"{folder} belongs to user {found.st_uid}, this process to {os.geteuid()}",
                    "choose a folder of your own",
                )
            if stat.S_IMODE(found.st_mode) != 0o700:
                os.fchmod(handle, 0o700)
        finally:
            os.close(handle)


def _require_room(folder: Path) -> set[str]:
    """Refuse a folder in use; what a `create` left that was cut off is no use. Names of what is there."""
    ours = {LOCK, TEXTS, key_store.NAME, version_history.STATE}
    with translate_os_errors(folder):
        found = {path.name for path in folder.iterdir()}
    if any(name.lstrip(".").split(".")[0] not in ours for name in found):
        raise ProfileExists(f"{folder} has something in it", "choose a new folder, or open the profile there")
    return found


def require_usable(text: Example, what: str) -> None:
    """Refuse a text that is not kept.

    Raises:
        TextRefused: empty or too long; `what` names it.
    """
    size = len(text.prompt) + len(text.completion)
    if size > _LONGEST_TEXT:
        raise TextRefused(
            f"{what} has {size:,} characters, more than {_LONGEST_TEXT:,}", "split it into several"
        )
    if not text.completion.strip():
        raise TextRefused(f"{what} is empty", "leave it out")
