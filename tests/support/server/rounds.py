"""Rounds in one process: a coordinator in memory, a grid whose nodes are real devices on a tiny base."""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.app.error import Error
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from antefix import Example, FrozenBase, PrefixSpec, TrainingPlan, train_shared
from antefix.errors import AntefixError
from antefix.keys import DeviceKeys
from antefix.rounds import Round
from antefix.wire import Release
from antefix.wire.announcement import ReleaseState
from antefix.wire.release import BaseReference, Privacy, SharedPrefix
from antefix.wire.signed import Signed, parse_model
from antefix_client.rounds.flower_app import parse_request
from antefix_client.rounds.local_update import answer, verify_round
from antefix_server.rounds.coordinator import LatestRelease, Participant
from tests.support import tiny_models
from tests.support.records import some_bytes

# Flower's own process has these from its SuperLink.
TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
TENANT = bytes(16).hex()
KEY = Ed25519PrivateKey.from_private_bytes(some_bytes("release key", 32))
PUBLIC = KEY.public_key().public_bytes_raw()
Forge = Callable[[Message, Message], Message | None]


def texts(user: int, count: int = 6) -> list[Example]:
    return [Example(completion=f"user {user} writes {word} number {word}") for word in "abcdefgh"[:count]]


def base() -> FrozenBase:
    return tiny_models.base("llama")


def fresh_prefix(length: int = 4) -> bytes:
    """A shared prefix that has learned nothing."""
    plan = TrainingPlan(max_steps=1, learning_rate=1e-9, evaluate=False)
    spec = PrefixSpec(length=length, start="random")
    return train_shared(base(), {"nobody": texts(0)}, spec, plan, progress=False).prefix.to_bytes()


@dataclass
class Device:
    """One node and what is on it."""

    user: str
    texts: list[Example]
    keys: DeviceKeys
    last: int = 0
    forge: Forge | None = None
    asked: int = 0

    def reply(self, message: Message, node: int) -> Message:
        """What the real device's side makes of a message."""
        try:
            asked = parse_request(message, node)
            seen = ReleaseState(tenant=TENANT, base=base().fingerprint)
            believed = verify_round(asked, PUBLIC, seen, self.last)
            sealed = answer(believed, node, base(), self.texts, self.keys)
            self.last = believed.release.version
        except AntefixError as error:
            return Message(Error(2, error.message), reply_to=message)
        return replied(sealed, message)


def replied(sealed: bytes, message: Message) -> Message:
    arrays = ArrayRecord({"sealed": Array(np.frombuffer(sealed, np.uint8))})
    return Message(
        RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message
    )


@dataclass
class MemoryGrid(Grid):
    """Nodes in this process; answers come one by one, in the order in which they were asked."""

    devices: dict[int, Device]
    waiting: list[tuple[str, Message]] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)

    def set_run(self, run: Run) -> None:
        """Nothing."""

    @property
    def run(self) -> Run:
        return Run.create_empty(0)

    def create_message(self, *_: object, **__: object) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return list(self.devices)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        names = []
        for message in messages:
            node = message.metadata.dst_node_id
            message.metadata.__dict__["_message_id"] = f"{len(self.sent)}"
            message.metadata.__dict__["_run_id"] = 1
            self.sent.append(message)
            device = self.devices[node]
            device.asked += 1
            reply: Message | None = device.reply(message, node)
            if device.forge is not None and reply is not None:
                reply = device.forge(message, reply)
            name = message.metadata.message_id
            names.append(name)
            if reply is not None:
                reply.metadata.__dict__["_src_node_id"] = node
                self.waiting.append((name, reply))
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """One at a time."""
        wanted = set(message_ids)
        for at, (name, message) in enumerate(self.waiting):
            if name in wanted:
                del self.waiting[at]
                return [message]
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        raise NotImplementedError


@dataclass
class MemoryCoordinator:
    """A coordinator: signs and keeps releases."""

    users: dict[int, Participant]
    prefix: bytes
    releases: list[Release] = field(default_factory=list)
    promoted: list[int] = field(default_factory=list)
    prefixes: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.publish(self.prefix, None, "the first")

    def participants(self, nodes: Sequence[int]) -> list[Participant]:
        return [self.users[node] for node in nodes if node in self.users]

    def latest_release(self) -> LatestRelease:
        release = self.releases[-1]
        return LatestRelease(
            TENANT,
            release.version,
            release.digest,
            release.signed(KEY).to_bytes(),
            self.prefixes[release.version],
        )

    def sign(self, statement: bytes) -> bytes:
        return parse_model(Round, statement, 2**20).signed(KEY).to_bytes()

    def publish(self, prefix: bytes, privacy: dict[str, Any] | None, note: str) -> LatestRelease:
        version = len(self.releases) + 1
        shared = SharedPrefix(
            sha256=hashlib.sha256(prefix).hexdigest(), size=len(prefix), layout=base().layout.digest
        )
        release = Release(
            tenant=TENANT,
            version=version,
            created=int(time.time()),
            base=BaseReference(name="tiny", fingerprint=base().fingerprint),
            shared=shared,
            previous=self.releases[-1].digest if self.releases else None,
            privacy=None if privacy is None else Privacy(**privacy),
            note=note,
        )
        self.releases.append(release)
        self.prefixes[version] = prefix
        return self.latest_release()

    def promote(self, version: int) -> None:
        self.promoted.append(version)


def rig(count: int, *, forge: dict[int, Forge] | None = None) -> tuple[MemoryCoordinator, MemoryGrid]:
    """So many users with a device each, nodes 1 to `count`."""
    devices, users = {}, {}
    for number in range(1, count + 1):
        keys = DeviceKeys(some_bytes(f"device {number}", 64))
        devices[number] = Device(f"{number:016x}", texts(number), keys, forge=(forge or {}).get(number))
        users[number] = Participant(number, f"{number:016x}", keys.public.signing_bytes)
    return MemoryCoordinator(users, fresh_prefix()), MemoryGrid(devices)


def signed(message: Message, name: str) -> Signed:
    """A statement in a message's config."""
    content = message.content.config_records["config"][name]
    if not isinstance(content, bytes):
        raise TypeError
    return Signed.parse(content)


def sealed_in(reply: Message) -> bytes:
    """The ciphertext of an answer."""
    return reply.content.array_records["arrays"]["sealed"].numpy().tobytes()
