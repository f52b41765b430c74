"""Vaults and their users for tests."""

from dataclasses import dataclass, replace
from pathlib import Path

from antefix.crypto.aead import SecretBytes
from antefix.keys import DeviceKeys, UserKey
from antefix.records import digest_of, rewrap
from antefix_server.vault import Vault
from antefix_server.vault.settings import Settings
from tests.support.records import Owner, some_bytes

OPERATOR = DeviceKeys(some_bytes("operator", 64))


def new_vault(folder: Path, url: str | None = None, mirror: Path | None = None) -> Vault:
    """Create an empty vault, and open it."""
    return Vault.create(folder, OPERATOR.public, Settings(origin="test/removals", url=url, mirror=mirror))


def reopen(vault: Vault) -> None:
    """Close a vault, and open it again in the same object, which a fixture closes."""
    vault.close()
    Vault.__init__(vault, vault.folder)


@dataclass
class Person:
    """A user of a vault with one device, and the record that was last put."""

    owner: Owner
    record: bytes = b""
    version: int = 0
    previous: bytes = bytes(32)

    @classmethod
    def enrolled(cls, vault: Vault, name: str) -> "Person":
        """Enrol a new user."""
        return cls.with_id(vault.tenant, vault.enrol(), name)

    @classmethod
    def with_id(cls, tenant: bytes, user: bytes, name: str) -> "Person":
        """Name a user whom the vault knows by this id."""
        owner = Owner.named(name)
        owner.address = replace(owner.address, tenant=tenant, user=user)
        return cls(owner)

    @property
    def user(self) -> bytes:
        return self.owner.address.user

    @property
    def prefix(self) -> bytes:
        return self.owner.address.prefix

    def next(self, payload: bytes) -> bytes:
        """Seal the next version, without putting it."""
        previous = digest_of(self.record) if self.version else bytes(32)
        return self.owner.seal(payload, self.version + 1, previous)

    def put(self, vault: Vault, payload: bytes) -> bytes:
        """Seal and put the next version."""
        record = self.next(payload)
        vault.put(record, replaces=self.version)
        self.record, self.version = record, self.version + 1
        return record

    def rotated(self) -> bytes:
        """Move the record and the person to the next user key, and return the record."""
        old, new = self.owner.key, self.key_of(self.owner.key.epoch + 1)
        record = rewrap(
            self.record,
            self.owner.address,
            old=old,
            new=new,
            device=self.owner.device,
            writers=self.owner.writers,
        )
        self.owner.key, self.record = new, record
        return record

    def key_of(self, epoch: int) -> UserKey:
        """Derive the key of an epoch; it is the same in every process."""
        return UserKey(SecretBytes(bytearray(some_bytes(f"{self.owner.name} key {epoch}", 32))), epoch)

    def stored(self, vault: Vault) -> bytes:
        """Read the record from the vault."""
        return vault.get(self.user, self.prefix)
