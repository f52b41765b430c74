"""An engine beside a gateway: who brings it up, and the routes that it adds. Imports no torch by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from antefix_server._bearer import Credentials
from antefix_server.epochs import Epochs
from antefix_server.grants import Grants
from antefix_server.registry import Session
from antefix_server.vault import Vault

if TYPE_CHECKING:
    from antefix_server.engine.api import Inference
    from antefix_server.engine.stream import Stream

__all__ = ["PROMPTS", "Answering", "Hosting"]

PROMPTS = ("/v1/completions", "/v1/chat/completions")
"""Paths of requests to generate, whose bodies are longer than others."""


class Answering(Protocol):
    """One engine, or several."""

    def ask(self, user: bytes, settings: Mapping[str, Any], *, personal: bool = True) -> Stream:
        """Begin a request; see `antefix_server.engine.loop.Engine`."""

    def recheck(self, user: bytes) -> None:
        """Look at once whether this user's grants still hold."""

    def word(self, token: int) -> str:
        """Text of a token that came with logprobs."""


@dataclass(frozen=True)
class Hosting:
    """What a gateway needs to answer under users' prefixes; its owner closes the engine."""

    engine: Answering
    grants: Grants
    epochs: Epochs

    def routes(self, vault: Vault, session: Callable[[Credentials], Awaitable[Session]]) -> Inference:
        """For the gateway's application."""
        from antefix_server.engine.api import Inference

        return Inference(self.engine, self.grants, self.epochs, vault, session)
