"""Where a run keeps private prefixes: sealed records in a vault of its own, one commit for each cohort.

OUT/vault    as a server has it
OUT/keys     32 random bytes; every simulated user's key and the one simulated device come from it. Private
OUT/ids      16 bytes for each user, as the vault gave them
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from antefix import FrozenBase, Prefix
from antefix.common.files import atomic_write, sync_folder
from antefix.crypto.aead import SecretBytes
from antefix.errors import InvalidArgument
from antefix.keys import DeviceKeys, UserKey
from antefix.receipts import LogKey
from antefix.records import NO_PREVIOUS, Address, OpenedRecord, RecordVersion, open_record, shape_of
from antefix.records import seal as seal_record
from antefix_server.errors import RecordAbsent, UnknownUser
from antefix_server.vault import Vault

__all__ = ["RecordVault", "Sealer"]

_PREFIX = hashlib.sha256(b"antefix-sim private prefix").digest()[:16]
_ID, _SECRET = 16, 32


class Sealer:
    """Seals and opens for simulated users; any number of processes may."""

    def __init__(self, out: Path, base: FrozenBase) -> None:
        """Read the keys of a run.

        Raises:
            InvalidArgument: they are not there.
        """
        try:
            self._secret = _secret(out)
            self._tenant, self._ids = _ids(out)
        except OSError as error:
            raise InvalidArgument(f"{out} has no keys: {error.strerror}", "choose another --out") from None
        self._base = base
        self._device = DeviceKeys(self._derive(b"device", 64))
        self._writers = {self._device.id: self._device.public.signing}

    def seal(self, user: int, prefix: Prefix) -> bytes:
        """The first record of a user's private prefix."""
        key = UserKey(SecretBytes(bytearray(self._derive(b"user" + self.id(user), 32))), 1)
        version = RecordVersion(self._address(user, prefix.length), 1, NO_PREVIOUS)
        return seal_record(prefix.to_bytes(), version, key=key, device=self._device)

    def open(self, user: int, record: bytes, length: int) -> OpenedRecord:
        """With the user's own key.

        Raises:
            RecordError: it is another's, or damaged.
        """
        key = UserKey(SecretBytes(bytearray(self._derive(b"user" + self.id(user), 32))), 1)
        return open_record(record, self._address(user, length), key=key, writers=self._writers)

    def id(self, user: int) -> bytes:
        """Of a user in the vault."""
        return self._ids[user * _ID : (user + 1) * _ID]

    def _address(self, user: int, length: int) -> Address:
        base = bytes.fromhex(self._base.fingerprint)
        return Address(
            self._tenant, self.id(user), _PREFIX, base, shape_of(self._base.layout.digest, length, "fp32")
        )

    def _derive(self, info: bytes, size: int) -> bytes:
        return HKDF(SHA256(), size, None, b"antefix-sim " + info).derive(self._secret)


class RecordVault:
    """The vault of a run; one process has it."""

    def __init__(self, out: Path, users: int) -> None:
        """Open it, or make it and enrol everybody.

        Raises:
            VaultBusy: another process has it.
            InvalidArgument: the keys or ids that it was made with are gone.
        """
        self.folder = out / "vault"
        if self.folder.exists():
            for needed in (out / "keys", out / "ids"):
                if not needed.is_file():
                    raise InvalidArgument(
                        f"{needed} is gone, and {self.folder} was sealed with it", "choose another --out"
                    )
            _secret(out)
        else:
            _create(out, self.folder, users)
        self._vault = Vault.open(self.folder)
        self._ids = _ids(out)[1]

    def commit(self, records: Mapping[int, bytes]) -> None:
        """Store a cohort's records, all or none; those that are there already stay."""
        new = [record for user, record in records.items() if not self._has(user)]
        if new:
            self._vault.put_many([(record, 0) for record in new])

    def record(self, user: int) -> bytes:
        """As it is stored.

        Raises:
            RecordAbsent: there is none.
        """
        return self._vault.get(self.id(user), _PREFIX)

    @property
    def record_bytes(self) -> int | None:
        """Of the first sealed prefix; all are of the same length. None where nobody has one."""
        for at in range(0, len(self._ids), _ID):
            try:
                return len(self._vault.get(self._ids[at : at + _ID], _PREFIX))
            except (RecordAbsent, UnknownUser):
                continue
        return None

    @property
    def log_key(self) -> LogKey:
        """Of the removal log: who has it can check receipts."""
        return self._vault.log_key

    def id(self, user: int) -> bytes:
        """In the vault, 16 bytes."""
        return self._ids[user * _ID : (user + 1) * _ID]

    def remove(self, user: int) -> str:
        """Remove a user as a server does; the receipt's text."""
        return self._vault.remove(self.id(user)).text()

    def close(self) -> None:
        """Let the next one in."""
        self._vault.close()

    def __enter__(self) -> Self:
        """The vault of a run."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _has(self, user: int) -> bool:
        try:
            self._vault.head(self.id(user), _PREFIX)
        except RecordAbsent:
            return False
        return True


def _create(out: Path, folder: Path, users: int) -> None:
    """Under another name until everybody is in it: who is killed meanwhile makes it once more."""
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    secret = os.urandom(_SECRET)
    atomic_write(out / "keys", secret)
    operator = DeviceKeys(HKDF(SHA256(), 64, None, b"antefix-sim operator").derive(secret))
    with Vault.create(unfinished, operator.public) as vault:
        atomic_write(out / "ids", vault.tenant + b"".join(vault.enrol_many(users)))
    unfinished.replace(folder)
    sync_folder(out)


def _secret(out: Path) -> bytes:
    content = (out / "keys").read_bytes()
    if len(content) != _SECRET:
        raise InvalidArgument(f"{out / 'keys'} is damaged", "choose another --out")
    return content


def _ids(out: Path) -> tuple[bytes, bytes]:
    """The vault's own id, and the users' in a row."""
    content = (out / "ids").read_bytes()
    if len(content) % _ID:
        raise InvalidArgument(f"{out / 'ids'} is damaged", "choose another --out")
    return content[:_ID], content[_ID:]
