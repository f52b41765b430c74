"""What the server's side of a round asks of the coordinator, which holds vault, registry and release key.

Rounds run in a process of Flower's. It has no key of the vault: it asks over the server's own socket.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from antefix_server.admin.admin_socket import ask
from antefix_server.errors import ServerUnfit
from antefix_server.registry.nodes import Participant

__all__ = ["Coordinator", "CoordinatorClient", "LatestRelease", "Participant"]


@dataclass(frozen=True)
class LatestRelease:
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


class Coordinator(Protocol):
    """The coordinator."""

    def participants(self, nodes: Sequence[int]) -> list[Participant]:
        """Who of Flower's nodes may take part."""

    def latest_release(self) -> LatestRelease:
        """The newest release with a shared prefix."""

    def sign(self, statement: bytes) -> bytes:
        """A round with the server's signature, as devices take it."""

    def publish(self, prefix: bytes, privacy: dict[str, Any] | None, note: str) -> LatestRelease:
        """The next release: same base, this shared prefix."""

    def promote(self, version: int) -> None:
        """Have devices use a release from now on."""


class CoordinatorClient:
    """The coordinator in the gateway's process."""

    def __init__(self, data: Path) -> None:
        """Of a server's data."""
        self._data = data

    @classmethod
    def from_environment(cls) -> CoordinatorClient:
        """That of the server whose Flower runs us.

        Raises:
            ServerUnfit: it was not started by `antefix-server up`.
        """
        data = os.environ.get("ANTEFIX_DATA")
        if not data:
            raise ServerUnfit("ANTEFIX_DATA is not set", "start rounds with antefix-server federate")
        return cls(Path(data))

    def participants(self, nodes: Sequence[int]) -> list[Participant]:
        """Which of Flower's nodes may take part."""
        listed = ask(self._data, "find_participants", list(nodes))
        return [Participant(node["node"], node["user"], bytes.fromhex(node["signing"])) for node in listed]

    def latest_release(self) -> LatestRelease:
        """The newest release with a shared prefix."""
        release = ask(self._data, "latest_release")
        return _latest(release, ask(self._data, "read_shared", version=release["version"]))

    def sign(self, statement: bytes) -> bytes:
        """A round with the server's signature, as devices take it."""
        signed: bytes = ask(self._data, "sign_round", statement)
        return signed

    def publish(self, prefix: bytes, privacy: dict[str, Any] | None, note: str) -> LatestRelease:
        """The next release: same base, this shared prefix."""
        guarantee = None if privacy is None else json.dumps(privacy)
        return _latest(ask(self._data, "publish_shared", prefix, privacy=guarantee, note=note), prefix)

    def promote(self, version: int) -> None:
        """Have devices use a release from now on."""
        ask(self._data, "promote", version=version)


def _latest(release: dict[str, Any], prefix: bytes) -> LatestRelease:
    return LatestRelease(**{**release, "signed": release["signed"].encode()}, prefix=prefix)
