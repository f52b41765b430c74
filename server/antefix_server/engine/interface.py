"""What an engine is to a gateway, and what it asks about grants. Imports neither torch nor the vault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from antefix.grants import Grant
from antefix.records import OpenedRecord

if TYPE_CHECKING:
    from antefix_server.engine.output_stream import OutputStream
    from antefix_server.grants import Grants
    from antefix_server.grants.epochs import Epochs

__all__ = ["Granting", "Hosting", "InferenceBackend"]


class InferenceBackend(Protocol):
    """One engine, or several."""

    def ask(self, user: bytes, settings: Mapping[str, Any], *, personal: bool = True) -> OutputStream:
        """Begin a request; see `antefix_server.engine.core.Engine`."""

    def recheck(self, user: bytes) -> None:
        """Look at once whether this user's grants still hold."""

    def word(self, token: int) -> str:
        """Text of a token that came with logprobs."""


class Granting(Protocol):
    """`antefix_server.grants.Grants`, or the same over a line to the process that has it."""

    def of(self, user: bytes) -> list[Grant]:
        """Those that hold now.

        Raises:
            UnknownUser.
        """

    def open(self, user: bytes, grant: str, base: bytes) -> OpenedRecord:
        """The record that a grant is about, opened; the caller wipes it.

        Raises:
            GrantRefused, UnknownUser, RecordAbsent, RecordMismatch, RecordRefused, VaultDamaged.
        """

    def tidy(self) -> int:
        """Destroy the keys of epochs that are over; so many were."""


@dataclass(frozen=True)
class Hosting:
    """What a gateway needs to answer under users' prefixes; its owner closes the engine."""

    engine: InferenceBackend
    grants: Grants
    epochs: Epochs
