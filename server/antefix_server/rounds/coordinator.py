"""What the server's side of a round asks of the coordinator, which holds vault, registry and release key.

Rounds run in a process of Flower's. It has no key of the vault: it asks over the server's own socket.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from antefix_server.admin.admin_socket import ask
from antefix_server.errors import ServerUnfit
from antefix_server.registry.nodes import Participant

__all__ = ["Host", "Participant", "RunningHost", "Standing"]


@dataclass(frozen=True)
class Standing:
    """The release that a round improves.

    Attributes:
        tenant: id of the server's vault, 32 hex digits.
        version: of the release.
        digest: of the release, 64 hex digits.
        signed: the release with its signature, as devices take it.
        prefix: content of its shared prefix's file.
    """

    tenant: str
    version: int
    digest: str
    signed: bytes = field(repr=False)
    prefix: bytes = field(repr=False)


class Host(Protocol):
    """The coordinator."""

    def participants(self, nodes: Sequence[int]) -> list[Participant]:
        """Who of Flower's nodes may take part."""

    def standing(self) -> Standing:
        """The newest release with a shared prefix."""

    def sign(self, statement: bytes) -> bytes:
        """A round with the server's signature, as devices take it."""

    def publish(self, prefix: bytes, privacy: dict[str, Any] | None, note: str) -> Standing:
        """The next release: same base, this shared prefix."""

    def promote(self, version: int) -> None:
        """Have devices use a release from now on."""


class RunningHost:
    """The coordinator in the gateway's process."""

    def __init__(self, data: Path) -> None:
        """Of a server's data."""
        self._data = data

    @classmethod
    def from_environment(cls) -> RunningHost:
        """That of the server whose Flower runs us.

        Raises:
            ServerUnfit: it was not started by `antefix-server up`.
        """
        found = os.environ.get("ANTEFIX_DATA")
        if not found:
            raise ServerUnfit("ANTEFIX_DATA is not set", "start rounds with antefix-server federate")
        return cls(Path(found))

    def participants(self, nodes: Sequence[int]) -> list[Participant]:
        """Who of Flower's nodes may take part."""
        found = ask(self._data, "participants", {"nodes": list(nodes)})
        return [Participant(one["node"], one["user"], bytes.fromhex(one["signing"])) for one in found]

    def standing(self) -> Standing:
        """The newest release with a shared prefix."""
        return _standing(ask(self._data, "standing", {}))

    def sign(self, statement: bytes) -> bytes:
        """A round with the server's signature, as devices take it."""
        return bytes.fromhex(ask(self._data, "sign_round", {"statement": statement.decode()}))

    def publish(self, prefix: bytes, privacy: dict[str, Any] | None, note: str) -> Standing:
        """The next release: same base, this shared prefix."""
        content = base64.b64encode(prefix).decode()
        return _standing(
            ask(self._data, "publish_shared", {"content": content, "privacy": privacy, "note": note})
        )

    def promote(self, version: int) -> None:
        """Have devices use a release from now on."""
        ask(self._data, "promote", {"version": version})


def _standing(said: dict[str, Any]) -> Standing:
    return Standing(
        tenant=said["tenant"],
        version=said["version"],
        digest=said["digest"],
        signed=bytes.fromhex(said["signed"]),
        prefix=base64.b64decode(said["prefix"]),
    )
