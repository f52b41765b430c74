"""The texts of a profile that does not open any more: they need the card and the root key alone."""

from __future__ import annotations

from pathlib import Path

from antefix._example import Example
from antefix_client import _slots
from antefix_client._card import Card
from antefix_client._history import known_logs
from antefix_client._lock import Lock
from antefix_client._profile import LOCK, TEXTS
from antefix_client._sealedfiles import SealedFiles
from antefix_client._slots import Unlock
from antefix_client._textlog import TextLog


def rescue(folder: Path, unlock: Unlock) -> list[Example]:
    """Every text that can still be read, oldest first. Private.

    Raises:
        ProfileAbsent, ProfileInUse, UnlockRefused, ProfileDamaged.
    """
    card = Card.read(folder)
    profile = bytes.fromhex(card.profile)
    lock = Lock(folder / LOCK)
    try:
        with _slots.root_of(card.slots, profile, unlock) as root:
            known = known_logs(SealedFiles(folder, profile, root, lock))
            return list(TextLog(folder / TEXTS, profile, root).read(known).texts.values())
    finally:
        lock.release()
