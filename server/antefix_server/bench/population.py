"""A server's data full of users with sealed prefixes, some of whom have granted theirs, for benches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from antefix import FrozenBase, Prefix
from antefix.crypto.aead import SecretBytes
from antefix.grants import Epoch, issue_grant
from antefix.keys import DeviceKeys, UserKey
from antefix.records import NO_PREVIOUS, Address, RecordVersion, seal, shape_of
from antefix_server.bench.vault import summary
from antefix_server.engine.prefix_loader import loader_pool
from antefix_server.grants import Grants
from antefix_server.grants.epochs import Epochs
from antefix_server.registry import Added, Registry
from antefix_server.vault import Vault
from antefix_server.vault.settings import Settings

_PREFIX = bytes(15) + b"\1"
_BATCH = 500
_GRANTED_S = 24 * 3600


@dataclass(frozen=True)
class Hosted:
    """A user who may call.

    Attributes:
        user: id, 16 bytes.
        token: of the device. Private.
        grant: id, in hex.
    """

    user: bytes
    token: str = field(repr=False)
    grant: str


def fill(
    data: Path, users: int, base: FrozenBase, prefixes: Sequence[Prefix], say: Callable[[str], None]
) -> list[Hosted]:
    """Make a server's data.

    Args:
        data: new folder.
        users: that have a sealed prefix there.
        base: whose prefixes they are.
        prefixes: of those who let the server use theirs, the first ones; the others have copies of the last.
        say: how far it is.
    """
    operator = DeviceKeys(DeviceKeys.new_seed().data).public
    payloads = [prefix.to_bytes() for prefix in prefixes]
    hosted: list[Hosted] = []
    with Vault.create(data, operator, Settings()) as vault:
        registry, epochs = Registry(vault), Epochs(vault.folder)
        grants, epoch = Grants(vault, epochs), epochs.current(time.time()).statement(vault.tenant)
        for at in range(0, users, _BATCH):
            say(f"{at:,} of {users:,} users")
            names = [f"user {number}" for number in range(at, min(at + _BATCH, users))]
            owners = [_Owner(user, vault.tenant, base, prefixes[0]) for user in registry.add_many(names)]
            records = [
                owner.sealed(payloads[min(at + number, len(payloads) - 1)])
                for number, owner in enumerate(owners)
            ]
            vault.put_many([(record, 0) for record in records])
            callers = max(0, len(prefixes) - at)
            for owner, record in zip(owners[:callers], records[:callers], strict=True):
                hosted.append(owner.let_in(registry, grants, epoch, record))
    return hosted


def openings(data: Path, base: FrozenBase, callers: Sequence[Hosted]) -> dict[str, float]:
    """Times from a grant to a prefix that a row can use, each of another user; no server runs.

    In such a thread as an engine has for it.
    """
    fingerprint = bytes.fromhex(base.fingerprint)
    with Vault.open(data) as vault, loader_pool(1) as opening:
        grants = Grants(vault, Epochs(vault.folder))
        return summary([opening.submit(_opening, grants, caller, fingerprint).result() for caller in callers])


def _opening(grants: Grants, hosted: Hosted, fingerprint: bytes) -> float:
    begun = time.perf_counter()
    with grants.open(hosted.user, hosted.grant, fingerprint) as opened:
        prefix = opened.prefix()
    passed = time.perf_counter() - begun
    prefix.wipe()
    return passed


class _Owner:
    """One user with one device, as both are on a device of one's own."""

    def __init__(self, added: Added, tenant: bytes, base: FrozenBase, prefix: Prefix) -> None:
        self._added = added
        shape = shape_of(prefix.layout.digest, prefix.length, "fp32")
        self._address = Address(tenant, added.user.id, _PREFIX, bytes.fromhex(base.fingerprint), shape)
        self._key = UserKey(SecretBytes.random(32), 1)
        self._device = DeviceKeys(DeviceKeys.new_seed().data)

    def sealed(self, payload: bytes) -> bytes:
        return seal(payload, RecordVersion(self._address, 1, NO_PREVIOUS), key=self._key, device=self._device)

    def let_in(self, registry: Registry, grants: Grants, epoch: Epoch, record: bytes) -> Hosted:
        """Enrol the device and put a grant, the two as a gateway would."""
        invitation = self._added.invitation
        token = registry.enrol(invitation, self._device.public, invitation.proof(self._device)).token
        signed = issue_grant(
            record,
            self._address,
            key=self._key,
            writers={self._device.id: self._device.public.signing},
            device=self._device,
            epoch=epoch,
            seconds=_GRANTED_S,
        )
        grant = grants.put(registry.authenticate(token), signed)
        return Hosted(self._address.user, token, grant.id)
