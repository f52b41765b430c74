"""The texts of a profile that does not open any more: they need the manifest and the root key alone."""

from __future__ import annotations

from pathlib import Path

from antefix.data.example import Example
from antefix_client.profile import unlock_slots
from antefix_client.profile.encrypted_files import EncryptedFiles
from antefix_client.profile.lock import Lock
from antefix_client.profile.manifest import ProfileManifest
from antefix_client.profile.profile import LOCK
from antefix_client.profile.text_store import open_log
from antefix_client.profile.unlock_slots import Unlock
from antefix_client.profile.version_history import stored_log_ids


def rescue(folder: Path, unlock: Unlock) -> list[Example]:
    """Every text that can still be read, oldest first. Private.

    Raises:
        ProfileAbsent, ProfileInUse, UnlockRefused, ProfileDamaged.
    """
    manifest = ProfileManifest.read(folder)
    profile = bytes.fromhex(manifest.profile)
    lock = Lock(folder / LOCK)
    try:
        with unlock_slots.open_root_key(manifest.slots, profile, unlock) as root:
            known = stored_log_ids(EncryptedFiles(folder, profile, root, lock))
            return list(open_log(folder, profile, root).read(known).texts.values())
    finally:
        lock.release()
