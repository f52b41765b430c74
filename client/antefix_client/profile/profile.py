"""A profile: a user's folder on a device. Everything private in it is sealed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from antefix.common.files import sync_folder
from antefix.crypto.aead import KEY_BYTES, SecretBytes
from antefix.errors import InvalidArgument
from antefix.keys import Cost
from antefix_client.errors import ProfileExists, ProfileUnwritable
from antefix_client.profile import key_store, manifest, migration, text_store, unlock_slots, version_history
from antefix_client.profile.encrypted_files import EncryptedFiles
from antefix_client.profile.key_store import KeyStore
from antefix_client.profile.lock import Lock
from antefix_client.profile.manifest import ProfileManifest
from antefix_client.profile.os_errors import translate_os_errors
from antefix_client.profile.prefix_store import PrefixStore
from antefix_client.profile.safe_files import delete_leftovers, secure_delete
from antefix_client.profile.text_store import CHECKPOINT, TextStore, open_log
from antefix_client.profile.unlock_slots import Unlock
from antefix_client.profile.version_history import VersionHistory

LOCK, SHARED = "lock", "shared.safetensors"
_ELSEWHERE = "keep the key in another folder: whoever has the profile must not have it, too"


class Profile:
    """An open profile. One thread at a time uses it; the session that owns it sees to that.

    Attributes:
        folder: where it is; links on the way are followed once.
        lock: held while it is open; whatever writes requires it.
        manifest: its public facts.
        keys: of this device and its user. Private.
        sealed: its small sealed files.
        texts: what it remembers.
        history: which versions there are.
        prefixes: seals and opens them.
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
            self.keys = KeyStore.read(self.sealed, bytes.fromhex(self.manifest.prefix))
            opened.callback(lambda: self.keys.wipe())
            # The keys say whose profile this is: the manifest may be behind, if `replace_keys` was cut off.
            self.manifest = self.manifest.model_copy(update=self.keys.ids)
            delete_leftovers(folder)
            self.history = VersionHistory(folder, self.sealed)
            self.prefixes = PrefixStore(self.history, self.lock, lambda: self.keys)
            limits = self.manifest.max_texts, self.manifest.max_bytes
            self.texts = TextStore(self.sealed, self.history, *limits)
            self._close = opened.pop_all().close

    @classmethod
    def open(cls, folder: Path, unlock: Unlock) -> Profile:
        """Open one; nothing but small files is read. `recover` comes next.

        Raises:
            ProfileAbsent, ProfileInUse, UnlockRefused, ProfileDamaged, ProfileUnwritable.
        """

        def root_of(public: ProfileManifest) -> SecretBytes:
            return unlock_slots.open_root_key(public.slots, bytes.fromhex(public.profile), unlock)

        return cls(folder, root_of)

    @classmethod
    def create(cls, folder: Path, base: str, unlock: Unlock, cost: Cost | None = None) -> Profile:
        """Make one and open it. `recover` comes next.

        Raises:
            ProfileExists: the folder has something in it.
            ProfileInUse, ProfileFull, ProfileUnwritable.
        """
        _make_room(folder)
        public = ProfileManifest.create(base)
        profile = bytes.fromhex(public.profile)
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
            keys = KeyStore.generate(*map(bytes.fromhex, (public.tenant, public.user, public.prefix)))
            keys.write(sealed)
            keys.wipe()
            log = open_log(folder, profile, root).create()
            VersionHistory(folder, sealed).note(logs=[log.hex()])
            public.model_copy(update={"slots": [slot]}).write(folder)  # last: from now on it is a profile
            failed.pop_all()
        return cls(folder, lambda _: root, lock)

    @property
    def id(self) -> bytes:
        """16 random bytes."""
        return bytes.fromhex(self.manifest.profile)

    @property
    def damaged(self) -> list[str]:
        """What of it could not be read, for a person."""
        return [*self.history.damaged, *self.texts.damaged]

    def replace_keys(self, keys: KeyStore) -> None:
        """Use other keys, of another user perhaps; one write decides: a crash leaves the old or the new.

        Raises:
            ProfileFull, ProfileUnwritable: nothing has changed, or the manifest alone is behind.
        """
        keys.write(self.sealed)
        self.keys = keys
        self._update(**keys.ids)

    def pin_base(self, fingerprint: str) -> None:
        """Remember which base this profile's prefixes are for."""
        self._update(fingerprint=fingerprint)

    def change_base(self, name: str) -> None:
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
        for previous in old:  # now that the new one is on the disk: nothing opens them any more
            with suppress(Exception):  # a keyring that is locked, of any kind; what stays there is of no use
                unlock_slots.revoke(previous, self.id)

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
        finally:  # also where a file could not be overwritten: the next write would bring the manifest back
            self.close()
        for folder in (versions, self.folder):
            with suppress(OSError):  # not empty: something in it is not ours
                folder.rmdir()
        with translate_os_errors(self.folder):
            sync_folder(self.folder.parent)

    def close(self) -> None:
        """Wipe the keys and let the next one in."""
        self.texts.unload()
        self._close()

    def _update(self, **facts: object) -> None:
        """Write the manifest, then use it: what could not be written must not come with the next write."""
        self.lock.require()
        changed = self.manifest.model_copy(update=facts)
        changed.write(self.folder)
        self.manifest = changed


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
            owner = os.fstat(handle)
            if owner.st_uid != os.geteuid():
                raise ProfileUnwritable(
                    f"{folder} belongs to user {owner.st_uid}, this process to {os.geteuid()}",
                    "choose a folder of your own",
                )
            if stat.S_IMODE(owner.st_mode) != 0o700:
                os.fchmod(handle, 0o700)
        finally:
            os.close(handle)


def _require_room(folder: Path) -> set[str]:
    """Refuse a folder in use; what a `create` left that was cut off is no use. Names of what is there."""
    ours = {LOCK, text_store.NAME, key_store.NAME, version_history.STATE}
    with translate_os_errors(folder):
        names = {path.name for path in folder.iterdir()}
    if any(name.lstrip(".").split(".")[0] not in ours for name in names):
        raise ProfileExists(f"{folder} has something in it", "choose a new folder, or open the profile there")
    return names
