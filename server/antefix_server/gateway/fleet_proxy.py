"""Flower's fleet routes, for devices that have a token: passed on to the SuperLink, which is on loopback.

Nothing else of Flower can be reached from outside: its other routes let anybody run code. A device's token
must be of the device whose node key it shows, so what was heard of one device is no use to another.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from antefix.wire import NodeKey
from antefix_server.errors import FlowerUnreachable
from antefix_server.http.responses import ApiError
from antefix_server.registry import Node, Registry, Session

if TYPE_CHECKING:
    from antefix_server.flower.superlink import SuperLink

CALLS = frozenset(
    {
        "activate-node",
        "confirm-message-received",
        "deactivate-node",
        "get-run",
        "pull-messages",
        "pull-object",
        "push-messages",
        "push-object",
        "send-node-heartbeat",
    }
)
"""What a device needs. Not get-fab: it runs no code of the server."""
BODY_BYTES = 6 * 2**20
"""Flower cuts arrays into pieces of 5 MiB."""
_KEY = "flwr-public-key"
_HEADERS = (_KEY, "flwr-signature", "flwr-timestamp", "content-type", "accept")
_WAIT_S = 60.0


class FleetProxy:
    """The SuperLink as devices see it."""

    def __init__(self, registry: Registry, superlink: SuperLink, address: str, authority: Path) -> None:
        """Pass on to `address`, whose certificate `authority` signed."""
        self._registry, self._superlink, self._url = registry, superlink, f"https://{address}/v1/fleet/"
        self._verify = ssl.create_default_context(cafile=str(authority))
        self._client: httpx.AsyncClient | None = None
        self._registering = asyncio.Lock()

    async def register(self, session: Session, asked: NodeKey) -> int:
        """Number of a device's node; the same key gives the same one.

        Raises:
            ApiError: the key is not the device's.
            FlowerRefused: the key was used before, by whomever.
            FlowerUnreachable.
        """
        if not asked.is_of(session.device):
            raise ApiError(403, "the key is not proved, or not of P-384")
        key = asked.key.encode()
        async with self._registering:
            known = await run_in_threadpool(self._registry.nodes.of, session)
            if known is not None and known.key == key:
                return known.id
            id = await run_in_threadpool(self._superlink.register, key, os.urandom(8).hex())
            await run_in_threadpool(self._registry.nodes.keep, session, Node(id, session.device, key))
        return id

    async def forward(self, call: str, session: Session, request: Request, body: bytes) -> Response:
        """What the SuperLink answers to one of `CALLS`.

        Raises:
            ApiError: no such call, or not the device's key.
            FlowerUnreachable.
        """
        if call not in CALLS:
            raise ApiError(404, "no such call for devices")
        node = await run_in_threadpool(self._registry.nodes.of, session)
        if node is None or request.headers.get(_KEY) != base64.b64encode(node.key).decode():
            raise ApiError(403, "the key is not that of this device's node")
        headers = {name: request.headers[name] for name in _HEADERS if name in request.headers}
        try:
            answer = await self._http.post(self._url + call, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise FlowerUnreachable(
                f"Flower's SuperLink does not answer ({type(error).__name__})", "try again in a moment"
            ) from None
        if answer.status_code == 401:  # ours means that the device is not known at all
            raise ApiError(403, "Flower refuses the node's signature: is the device's clock right?")
        kind = answer.headers.get("content-type", "application/octet-stream")
        return Response(answer.content, answer.status_code, media_type=kind)

    async def close(self) -> None:
        """Let go of the connections to the SuperLink."""
        if self._client is not None:
            await self._client.aclose()

    @property
    def _http(self) -> httpx.AsyncClient:
        """Made in the loop that uses it."""
        if self._client is None:
            self._client = httpx.AsyncClient(verify=self._verify, timeout=_WAIT_S, trust_env=False)
        return self._client
