"""A server with users who have granted it their prefixes, on a tiny base."""

import time
from dataclasses import dataclass

import pytest
import torch

from antefix import FrozenBase, Prefix
from antefix.generation.continuous_batch import ContinuousBatch
from antefix.generation.interface import StepOutput
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
    """The time, which a test can change."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@dataclass
class Member:
    """A user with a device that is let in."""

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
        """A user whose device was let in; nothing is stored yet."""
        invitation = self.registry.add(name).invitation
        device = DeviceKeys(some_bytes(f"{name} device", 64))
        enrolled = self.registry.enrol(invitation, device.public, invitation.proof(device))
        person = Person.with_id(self.vault.tenant, enrolled.user, name)
        return Member(person, self.registry.authenticate(enrolled.token), enrolled.token)

    def signed(self, member: Member, seconds: int = HOUR) -> Signed:
        """A grant of the version that was stored last."""
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
        """The same, put."""
        return self.grants.put(member.session, self.signed(member, seconds))

    def hosted(self, name: str, base: FrozenBase, length: int = 5) -> tuple[Member, Prefix]:
        """A user with a prefix of its own, stored and granted."""
        member = self.add(name)
        prefix = prefix_of(base, name, length)
        self.store(member, prefix)
        self.grant(member)
        return member, prefix

    def store(self, member: Member, prefix: Prefix) -> None:
        """The next version."""
        address = member.person.owner.address
        shape = shape_of(prefix.layout.digest, prefix.length, "fp32")
        base = bytes.fromhex(prefix.base_fingerprint)
        member.person.owner.address = type(address)(address.tenant, address.user, address.prefix, base, shape)
        member.person.put(self.vault, prefix.to_bytes())


def prefix_of(base: FrozenBase, name: str, length: int = 5) -> Prefix:
    """The same numbers for the same name."""
    dice = torch.Generator().manual_seed(int.from_bytes(some_bytes(name, 4), "big"))
    return Prefix(torch.randn(base.layout.size(length), generator=dice) * 0.5, base.layout, base.fingerprint)


def slow_steps(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.02) -> None:
    """So that something can happen in the middle of an answer."""
    step = ContinuousBatch.step

    def slowly(batch: ContinuousBatch) -> list[StepOutput]:
        time.sleep(seconds)
        return step(batch)

    monkeypatch.setattr(ContinuousBatch, "step", slowly)
