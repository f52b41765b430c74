"""A server on a tiny base, and users who granted it their prefixes."""

import time
from dataclasses import dataclass

import pytest
import torch

from antefix import FrozenBase, Prefix
from antefix.generation.interface import StepOutput
from antefix.generation.torch_engine import ContinuousBatch
from antefix.grants import Grant, issue_grant
from antefix.keys import DeviceKeys
from antefix.records import shape_of
from antefix.wire import Signed
from antefix_server.grants import Grants
from antefix_server.grants.epochs import Epochs
from antefix_server.registry import Registry, Session
from antefix_server.vault import Vault
from tests.support.records import some_bytes
from tests.support.vaults import Person

HOUR = 3600


class Clock:
    """A clock that a test can set."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@dataclass
class Member:
    """A user with an enrolled device."""

    person: Person
    session: Session
    token: str

    @property
    def user(self) -> bytes:
        return self.person.user


class Host:
    """A vault with its registry, epochs and grants."""

    def __init__(self, vault: Vault) -> None:
        self.vault, self.clock, self.registry = vault, Clock(), Registry(vault)
        self.epochs = Epochs(vault.folder)
        self.grants = Grants(vault, self.epochs, self.clock)

    def add(self, name: str) -> Member:
        """Add a user and enrol a device; the user has no record yet."""
        invitation = self.registry.add(name).invitation
        device = DeviceKeys(some_bytes(f"{name} device", 64))
        enrolled = self.registry.enrol(invitation, device.public, invitation.proof(device))
        person = Person.with_id(self.vault.tenant, enrolled.user, name)
        return Member(person, self.registry.authenticate(enrolled.token), enrolled.token)

    def signed(self, member: Member, seconds: int = HOUR) -> Signed:
        """Sign a grant of the newest version."""
        owner = member.person.owner
        return issue_grant(
            member.person.record,
            owner.address,
            key=owner.key,
            writers=owner.writers,
            device=owner.device,
            epoch=self.epochs.current(self.clock.now).statement(self.vault.tenant),
            seconds=seconds,
        )

    def grant(self, member: Member, seconds: int = HOUR) -> Grant:
        """Sign a grant, and put it."""
        return self.grants.put(member.session, self.signed(member, seconds))

    def hosted(self, name: str, base: FrozenBase, length: int = 5) -> tuple[Member, Prefix]:
        """Add a user whose prefix is stored and granted."""
        member = self.add(name)
        prefix = prefix_of(base, name, length)
        self.store(member, prefix)
        self.grant(member)
        return member, prefix

    def store(self, member: Member, prefix: Prefix) -> None:
        """Store a prefix as the next version."""
        address = member.person.owner.address
        shape = shape_of(prefix.layout.digest, prefix.length, "fp32")
        base = bytes.fromhex(prefix.base_fingerprint)
        member.person.owner.address = type(address)(address.tenant, address.user, address.prefix, base, shape)
        member.person.put(self.vault, prefix.to_bytes())


def prefix_of(base: FrozenBase, name: str, length: int = 5) -> Prefix:
    """Make a prefix whose numbers follow from the name."""
    dice = torch.Generator().manual_seed(int.from_bytes(some_bytes(name, 4), "big"))
    return Prefix(torch.randn(base.layout.size(length), generator=dice) * 0.5, base.layout, base.fingerprint)


def slow_steps(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.02) -> None:
    """Slow each step down, so that a test can act in the middle of an answer."""
    step = ContinuousBatch.step

    def slow_step(batch: ContinuousBatch) -> list[StepOutput]:
        time.sleep(seconds)
        return step(batch)

    monkeypatch.setattr(ContinuousBatch, "step", slow_step)
