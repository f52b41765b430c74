"""An engine beside a gateway. Imports no torch by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from antefix_server.grants import Grants
from antefix_server.grants.epochs import Epochs

if TYPE_CHECKING:
    from antefix_server.engine.output_stream import OutputStream

__all__ = ["Hosting", "InferenceBackend"]


class InferenceBackend(Protocol):
    """One engine, or several."""

    def ask(self, user: bytes, settings: Mapping[str, Any], *, personal: bool = True) -> OutputStream:
        """Begin a request; see `antefix_server.engine.core.Engine`."""

    def recheck(self, user: bytes) -> None:
        """Look at once whether this user's grants still hold."""

    def word(self, token: int) -> str:
        """Text of a token that came with logprobs."""


@dataclass(frozen=True)
class Hosting:
    """What a gateway needs to answer under users' prefixes; its owner closes the engine."""

    engine: InferenceBackend
    grants: Grants
    epochs: Epochs
