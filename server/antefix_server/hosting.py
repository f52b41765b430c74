"""An engine beside a gateway: who brings it up, and the routes that it adds. Imports no torch by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from antefix_server._bearer import Credentials
from antefix_server.epochs import Epochs
from antefix_server.grants import Grants
from antefix_server.registry import Session
from antefix_server.vault import Vault

if TYPE_CHECKING:
    from antefix_server.engine.api import Inference
    from antefix_server.engine.loop import Engine

__all__ = ["PROMPTS", "Hosting"]

PROMPTS = ("/v1/completions", "/v1/chat/completions")
"""Paths of requests to generate, whose bodies are longer than others."""


@dataclass(frozen=True)
class Hosting:
    """What a gateway needs to answer under users' prefixes; its owner closes the engine."""

    engine: Engine
    grants: Grants
    epochs: Epochs

    def routes(self, vault: Vault, session: Callable[[Credentials], Awaitable[Session]]) -> Inference:
        """For the gateway's application."""
        from antefix_server.engine.api import Inference

        return Inference(self.engine, self.grants, self.epochs, vault, session)
