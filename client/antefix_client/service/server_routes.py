"""Routes of the service about the server: how it stands, sync now, rounds; and the node's credentials."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from antefix_client.granting import Granting
from antefix_client.rounds.round_request import MAX_BYTES, RoundRequest
from antefix_client.service.background import BackgroundSync
from antefix_client.service.http import read_body, read_content
from antefix_client.service.model_routes import API


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class _TakePart(_Body):
    take_part: bool


class _Grant(_Body):
    hours: float = 12.0
    keep: bool = False


class _Revoke(_Body):
    id: str | None = None


class ServerRoutes:
    """What concerns the server, for programs on this device."""

    def __init__(self, background: BackgroundSync) -> None:
        """Take what syncs; credentials are given over our own socket alone, which nobody else can open."""
        self._membership, self._background = background.membership, background
        self._granting = Granting(background.membership.model)

    @property
    def routes(self) -> list[Route]:
        """All of them."""
        routes = [
            Route(f"{API}/server", self.server),
            Route(f"{API}/sync", self.sync, methods=["POST"]),
            Route(f"{API}/rounds", self.rounds, methods=["POST"]),
            Route(f"{API}/grants", self.grants),
            Route(f"{API}/grant", self.grant, methods=["POST"]),
            Route(f"{API}/revoke", self.revoke, methods=["POST"]),
        ]
        if not self._background.own_socket:
            return routes
        for_node = [
            Route(f"{API}/passport", self.node_credentials),
            Route(f"{API}/round", self.round, methods=["POST"]),
        ]
        return [*routes, *for_node]

    async def server(self, request: Request) -> Response:
        """Where the profile is, and how the last sync went."""
        place = await run_in_threadpool(lambda: self._membership.place)
        known = None if place is None else asdict(place)
        return JSONResponse({"place": known, **self._background.state()})

    async def sync(self, request: Request) -> Response:
        """Sync now."""
        await read_body(request, _Body)
        done = await run_in_threadpool(self._membership.sync)
        self._background.trigger()
        return JSONResponse(asdict(done))

    async def rounds(self, request: Request) -> Response:
        """Take part in rounds from now on, or not."""
        body = await read_body(request, _TakePart)
        place = await run_in_threadpool(self._membership.take_part, body.take_part)
        self._background.trigger()
        return JSONResponse(asdict(place))

    async def grants(self, request: Request) -> Response:
        """What the server may use, and whether new versions are granted, too."""
        active = await run_in_threadpool(self._granting.listed)
        keeping = await run_in_threadpool(lambda: self._granting.keeping)
        return JSONResponse({"grants": [asdict(grant) for grant in active], "keeping": keeping})

    async def grant(self, request: Request) -> Response:
        """Let the server use the version in use."""
        body = await read_body(request, _Grant)
        active = await run_in_threadpool(lambda: self._granting.grant(hours=body.hours, keep=body.keep))
        return JSONResponse(asdict(active))

    async def revoke(self, request: Request) -> Response:
        """Take a grant back, or all of them."""
        body = await read_body(request, _Revoke)
        return JSONResponse({"revoked": await run_in_threadpool(self._granting.revoke, body.id)})

    async def round(self, request: Request) -> Response:
        """The sealed update of a round, for the node."""
        asked = RoundRequest.from_bytes(await read_content(request, MAX_BYTES))
        sealed = await run_in_threadpool(self._membership.rounds.make_update, asked)
        return Response(sealed, media_type="application/octet-stream")

    async def node_credentials(self, request: Request) -> Response:
        """What the node's process needs."""
        return JSONResponse(await run_in_threadpool(self._background.node_credentials))
