"""Flower nodes of users' devices: by which key a device takes part in rounds, and under which number."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from antefix_server.vault import user_rows
from antefix_server.vault.envelope import UserEnvelope
from antefix_server.vault.user_rows import Kind, UserRow


@dataclass(frozen=True)
class Node:
    """A node as Flower knows it.

    Attributes:
        id: Flower's number of it, 64 bits.
        device: whose it is, 16 bytes.
        key: its public key, PEM. Flower never takes a key a second time.
    """

    id: int
    device: bytes
    key: bytes


@dataclass(frozen=True)
class Participant:
    """A node that may take part in rounds.

    Attributes:
        node: Flower's number of it.
        user: stands for its user, 16 hex digits; the same for all devices of a user, and nobody's once the
            user is removed.
        signing: public key of its device, 32 bytes, Ed25519.
    """

    node: int
    user: str
    signing: bytes


def keep(connection: Connection, owner: UserEnvelope, node: Node, mark: bytes, hint: bytes) -> list[int]:
    """Keep a device's node in place of the one before; ids of those that are no more."""
    previous = [row for row in _all(connection, owner) if _node(owner, row).device == node.device]
    gone = [_node(owner, row).id for row in previous]
    for row in previous:
        user_rows.drop(connection, row)
    content = {"node": node.id, "device": node.device.hex(), "key": node.key.decode()}
    user_rows.add(connection, owner, Kind.NODE, mark, content, hint)
    return [id for id in gone if id != node.id]


def listed(connection: Connection, owner: UserEnvelope) -> list[Node]:
    """A user's nodes."""
    return [_node(owner, row) for row in _all(connection, owner)]


def dropped(connection: Connection, owner: UserEnvelope, device: bytes) -> list[int]:
    """Forget a device's nodes; their ids."""
    gone = [row for row in _all(connection, owner) if _node(owner, row).device == device]
    for row in gone:
        user_rows.drop(connection, row)
    return [_node(owner, row).id for row in gone]


def pseudonym(owner: UserEnvelope) -> str:
    """What stands for a user in rounds: `Participant.user`."""
    return hmac.digest(owner.key.data, b"antefix/v1/round pseudonym", "sha256")[:8].hex()


def _all(connection: Connection, owner: UserEnvelope) -> list[UserRow]:
    return user_rows.of(connection, owner, Kind.NODE)


def _node(owner: UserEnvelope, row: UserRow) -> Node:
    content: dict[str, Any] = user_rows.opened(owner, row)
    return Node(content["node"], bytes.fromhex(content["device"]), content["key"].encode())
