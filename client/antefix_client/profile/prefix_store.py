"""The prefixes that a profile has learned: sealed as records, one for each version."""

from __future__ import annotations

from collections.abc import Callable

from antefix.errors import RecordError
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
from antefix_client.errors import ProfileDamaged
from antefix_client.profile.key_store import KeyStore
from antefix_client.profile.lock import Lock
from antefix_client.profile.version_history import Version, VersionHistory


class PrefixStore:
    """Seals a prefix as the next version, and opens one. One thread at a time."""

    def __init__(self, history: VersionHistory, lock: Lock, keys: Callable[[], KeyStore]) -> None:
        """Take where records go, the profile's lock, and what gives the keys in use: they may be replaced."""
        self._history, self._lock, self._keys = history, lock, keys

    def address(self, base: str, shape: bytes) -> Address:
        """Where this profile's records belong.

        Args:
            base: fingerprint, 64 hex digits.
            shape: of the prefix, 32 bytes.
        """
        keys = self._keys()
        return Address(keys.devices.tenant, keys.devices.user, keys.prefix, bytes.fromhex(base), shape)

    def add(
        self,
        payload: bytes,
        shape: bytes,
        version: Version,
        follows: Version | None = None,
        min_number: int = 1,
    ) -> Version:
        """Seal a prefix as the next version; `version` with number and digest filled in. Durable on return.

        Args:
            payload: the prefix. Private.
            shape: of it, 32 bytes.
            version: what else is known of it.
            follows: the version before; None for the one in use.
            min_number: number that it has at least.
        """
        self._lock.require()
        history, keys = self._history, self._keys()
        newest = follows or history.newest
        previous = history.last_digest if newest is None else bytes.fromhex(newest.digest)
        number = max(history.next_number, min_number)
        sealed_as = RecordVersion(
            self.address(version.base, shape), number, previous if number > 1 else NO_PREVIOUS
        )
        record = seal(payload, sealed_as, key=keys.user_key, device=keys.device)
        numbered = version.model_copy(update={"number": number, "digest": digest_of(record).hex()})
        history.add(numbered, record)
        return numbered

    def open(self, version: Version) -> OpenedRecord:
        """The prefix of a version, for a `with` block.

        Its shape is what its record says: the digest that is remembered pins the record.

        Raises:
            ProfileDamaged: its record is missing, or does not open.
        """
        record, keys = self._history.record(version), self._keys()
        try:
            address = self.address(version.base, read_header(record).edition.address.shape)
            opened = open_record(record, address, key=keys.user_key, writers=keys.devices.writers)
        except RecordError as error:
            raise ProfileDamaged(
                f"version {version.number} is damaged: {error.message}",
                "roll back to another, or learn again",
            ) from None
        if opened.digest.hex() != version.digest:
            opened.wipe()
            raise ProfileDamaged(f"version {version.number} is not the one that was made", "roll back")
        return opened

    def can_open(self, version: Version) -> bool:
        """Whether the record of a version is there and opens."""
        try:
            self.open(version).wipe()
        except ProfileDamaged:
            return False
        return True
