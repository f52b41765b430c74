"""What devices reach of a server: HTTP, for enrolled devices alone, save to enrol.

Records go in and out as they are, sealed on the device. Whose they are follows from the token alone: a record
of anybody else is refused, and nobody is told of another user's.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import FastAPI, Header, Query, Request, Response
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from antefix.errors import RecordMismatch
from antefix.keys import DevicePublic
from antefix.records import read_header
from antefix.wire import Enrol, Enrolled, Invitation, NodeKey, ServerKeys
from antefix_server.engine.interface import Hosting
from antefix_server.errors import TokenRefused
from antefix_server.gateway.fleet_proxy import BODY_BYTES, FleetProxy
from antefix_server.gateway.release_routes import Downloads
from antefix_server.http.auth import Bearer, Credentials
from antefix_server.http.body_limits import BodyLimitMiddleware
from antefix_server.http.rate_limit import RateLimiter
from antefix_server.http.responses import ApiError, error_responses, register_handlers
from antefix_server.registry import Registry, Session
from antefix_server.releases import Releases
from antefix_server.vault import RecordMeta, Vault

__all__ = ["Limits", "application"]

Prefix = Annotated[str, InPath(pattern="^[0-9a-f]{32}$", description="Id of a prefix, in hex.")]
_BYTES = "application/octet-stream"
FLEET, RECORDS, DEVICES = "/v1/fleet", "/v1/records/", "/v1/devices"
_SLICE = 2**16


@dataclass(frozen=True)
class Limits:
    """What one device may ask of a server.

    Attributes:
        record_bytes: of a record.
        change_bytes: of a change of devices.
        prompt_bytes: of a request to generate.
        body_bytes: of any other body.
        body_s: for a body to come in.
        requests_per_minute: of one device.
        enrolments_per_minute: of one address.
        user_bytes, user_records: stored of one user, all devices together.
    """

    record_bytes: int = 64 * 2**20
    change_bytes: int = 2**18
    prompt_bytes: int = 2**18
    body_bytes: int = 2**14
    body_s: float = 120.0
    requests_per_minute: int = 600
    enrolments_per_minute: int = 30
    user_bytes: int = 2**30
    user_records: int = 64


def application(
    vault: Vault,
    limits: Limits | None = None,
    *,
    authority: str = "",
    names: Sequence[str] = (),
    fleet: FleetProxy | None = None,
    hosting: Hosting | None = None,
) -> FastAPI:
    """The ASGI application of an open vault, which its owner closes.

    Args:
        vault: writes allowed.
        limits: what a device may ask.
        authority: certificate of who signed the one that devices see, PEM; empty if every machine knows it.
        names: by which devices may call the server where every machine knows its certificate.
        fleet: where rounds come from; None for none.
        hosting: an engine that answers under users' prefixes; None for none.
    """
    return Gateway(vault, limits or Limits(), (authority, names), fleet, hosting).application


class Gateway:
    """The routes of one vault. What waits for the disk runs in threads."""

    def __init__(
        self,
        vault: Vault,
        limits: Limits,
        known_by: tuple[str, Sequence[str]],
        fleet: FleetProxy | None,
        hosting: Hosting | None,
    ) -> None:
        """Use an open vault."""
        self._vault, self._registry, self._limits = vault, Registry(vault), limits
        (self._authority, self._names), self._fleet, self._hosting = known_by, fleet, hosting
        self._devices = RateLimiter(limits.requests_per_minute)
        self._addresses = RateLimiter(limits.enrolments_per_minute)
        self._anybody = RateLimiter(limits.requests_per_minute)
        self._releases = Releases(vault)
        self._prompts: tuple[str, ...] = ()

    @property
    def application(self) -> FastAPI:
        """The routes, their description at `/openapi.json`."""
        app = FastAPI(title="Antefix", version="1", docs_url=None, redoc_url=None, lifespan=self._living)
        app.add_middleware(
            BodyLimitMiddleware, most=self._choose_body_limit, streamed=RECORDS, seconds=self._limits.body_s
        )
        register_handlers(app)
        app.get("/health")(self.health)
        app.get("/v1/server", responses=error_responses(429))(self.server)
        app.post("/v1/enrol", responses=error_responses(400, 403, 413, 429, 503, 507))(self.enrol)
        statuses = error_responses(429, 503)
        app.get("/v1/log/checkpoint", responses=statuses, response_class=Response)(self.checkpoint)
        app.get("/v1/log/consistency", responses=error_responses(400, 429, 503))(self.consistency)
        record = "/v1/records/{prefix}"
        app.get(record, responses=error_responses(304, 400, 401, 404, 429), response_class=Response)(self.get)
        app.put(record, responses=error_responses(400, 401, 409, 413, 429, 503, 507))(self.put)
        statuses = error_responses(400, 401, 404, 429)
        app.get(f"{DEVICES}/{{version}}", responses=statuses, response_class=Response)(self.change)
        app.put(DEVICES, responses=error_responses(400, 401, 409, 413, 429, 503, 507))(self.add_change)
        app.put("/v1/node", responses=error_responses(400, 401, 403, 404, 409, 429, 503))(self.node)
        fleet = error_responses(400, 401, 403, 404, 413, 429, 503)
        app.post(f"{FLEET}/{{call}}", responses=fleet, response_class=Response)(self.fleet)
        Downloads(self._releases, self._session).install(app)
        if self._hosting is not None:
            from antefix_server.gateway.inference_routes import PROMPTS, Inference

            self._prompts = PROMPTS
            Inference(self._hosting, self._vault, self._session).install(app)
        return app

    @asynccontextmanager
    async def _living(self, _: FastAPI) -> AsyncIterator[None]:
        yield
        if self._fleet is not None:
            await self._fleet.close()

    async def health(self) -> dict[str, str]:
        """Whether it is there."""
        return {"status": "ok"}

    async def server(self, request: Request) -> ServerKeys:
        """What the server is known by. Compare it with an invitation before you believe it."""
        _require_patience(self._anybody, _address(request))
        return ServerKeys.signed(
            self._vault.identity.releasing,
            tenant=self._vault.tenant,
            log_key=self._vault.log_key.text(),
            authority=self._authority,
            names=self._names,
        )

    async def enrol(self, asked: Enrol, request: Request) -> Enrolled:
        """Let a device in. The same one may ask again while its invitation is good: an answer may be lost."""
        _require_patience(self._addresses, _address(request))
        invitation = Invitation.parse(asked.invitation)
        device = DevicePublic(bytes.fromhex(asked.kem), bytes.fromhex(asked.signing))
        proof = bytes.fromhex(asked.proof)
        enrolment = await run_in_threadpool(self._registry.enrol, invitation, device, proof, asked.name)
        return Enrolled(tenant=enrolment.tenant.hex(), user=enrolment.user.hex(), token=enrolment.token)

    async def checkpoint(self, request: Request) -> Response:
        """The removal log's signed size and root (C2SP tlog-checkpoint)."""
        _require_patience(self._anybody, _address(request))
        checkpoint = await run_in_threadpool(self._vault.checkpoint)
        return Response(checkpoint.text(), media_type="text/plain")

    async def consistency(self, first: Annotated[int, Query(ge=0, le=2**40)], request: Request) -> list[str]:
        """Proof that the removal log only grew since it had `first` leaves (RFC 9162, 2.1.4), in hex."""
        _require_patience(self._anybody, _address(request))
        return [digest.hex() for digest in await run_in_threadpool(self._vault.consistency, first)]

    async def get(
        self,
        prefix: Prefix,
        bearer: Bearer,
        if_none_match: Annotated[str | None, Header(max_length=200)] = None,
    ) -> Response:
        """A record as it was put; 304 where its `ETag` is the one that is known."""
        session = await self._session(bearer)
        place = bytes.fromhex(prefix)
        head = await run_in_threadpool(self._vault.head, session.user, place)
        if if_none_match == _tag(head):
            return Response(status_code=304, headers={"ETag": _tag(head)})
        head, pieces = await run_in_threadpool(self._read, session.user, place)
        headers = {"ETag": _tag(head), "Content-Length": str(head.size)}
        return StreamingResponse(pieces, media_type=_BYTES, headers=headers)

    def _read(self, user: bytes, place: bytes) -> tuple[RecordMeta, Iterator[bytes]]:
        """Piece by piece: who reads slowly holds a piece of memory, not the record."""
        while True:
            pieces = self._vault.stream(user, place)
            head = self._vault.head(user, place)
            first = next(pieces)
            if self._vault.head(user, place) == head:  # versions only grow, so it is this one's piece
                return head, _sliced(itertools.chain((first,), pieces))

    async def put(
        self,
        prefix: Prefix,
        bearer: Bearer,
        request: Request,
        replaces: Annotated[int, Query(ge=0, le=2**40, description="Version that is known; 0 for none.")] = 0,
    ) -> dict[str, int]:
        """Store the next version (compare-and-swap): the body is the sealed record."""
        await self._session(bearer)
        record = await _body(request)
        session = await self._known(bearer)  # the device may have been revoked while it was sending
        address = read_header(record).edition.address
        if (address.user, address.prefix) != (session.user, bytes.fromhex(prefix)):
            raise RecordMismatch(
                f"the record is of user {address.user.hex()}, prefix {address.prefix.hex()}; "
                f"the token is of user {session.user.hex()}, the path of prefix {prefix}",
                "put it under the token and the path that belong to it",
            )
        head = await run_in_threadpool(self._put, session.user, address.prefix, record, replaces)
        return {"version": head.version}

    def _put(self, user: bytes, prefix: bytes, record: bytes, replaces: int) -> RecordMeta:
        # The lock: several records that come at once would all find the room of one.
        with self._vault.writing():
            self._require_room(user, prefix, len(record))
            return self._vault.put(record, replaces=replaces)

    def _require_room(self, user: bytes, prefix: bytes, size: int) -> None:
        """Replacing counts the new size alone, so that a user who is at a limit can go on."""
        others = [head.size for head in self._vault.heads(user) if head.prefix != prefix]
        if len(others) >= self._limits.user_records:
            raise ApiError(413, f"a user has {len(others)} records, and {self._limits.user_records} at most")
        whole, limit = sum(others) + size, self._limits.user_bytes
        if whole > limit:
            raise ApiError(413, f"a user's records would have {whole:,} bytes, at most {limit:,}")

    async def change(
        self, version: Annotated[int, InPath(ge=1, le=2**40, description="Of the list.")], bearer: Bearer
    ) -> Response:
        """The change that made a version of the user's list of devices, as a device signed it."""
        session = await self._session(bearer)
        content = await run_in_threadpool(self._registry.change, session, version)
        if content is None:
            raise ApiError(404, f"there is no version {version} of the devices")
        return Response(content, media_type=_BYTES)

    async def add_change(self, bearer: Bearer, request: Request) -> dict[str, bool]:
        """Keep the next change of the user's devices: the body is what the device signed."""
        session = await self._session(bearer)
        await run_in_threadpool(self._registry.add_change, session, await _body(request))
        return {"kept": True}

    async def node(self, asked: NodeKey, bearer: Bearer) -> dict[str, str]:
        """Say by which key this device takes part in rounds; the number that Flower gives its node."""
        session = await self._session(bearer)
        return {"node": str(await self._rounds.register(session, asked))}

    async def fleet(
        self, call: Annotated[str, InPath(max_length=40)], bearer: Bearer, request: Request
    ) -> Response:
        """Flower's fleet interface, its calls for devices alone. Bodies are Flower's protocol buffers."""
        session = await self._session(bearer)
        body = await _body(request)
        return await self._rounds.forward(call, session, request, body)

    @property
    def _rounds(self) -> FleetProxy:
        if self._fleet is None:
            raise ApiError(404, "this server has no rounds")
        return self._fleet

    async def _session(self, bearer: Credentials) -> Session:
        """Once for each request: it is counted."""
        session = await self._known(bearer)
        _require_patience(self._devices, session.device)
        return session

    async def _known(self, bearer: Credentials) -> Session:
        if bearer is None:
            raise TokenRefused
        return await run_in_threadpool(self._registry.authenticate, bearer.credentials)

    def _choose_body_limit(self, path: str) -> int:
        if path.startswith(RECORDS):
            return self._limits.record_bytes
        if path == DEVICES:
            return self._limits.change_bytes
        if path in self._prompts:
            return self._limits.prompt_bytes
        return BODY_BYTES if path.startswith(FLEET) else self._limits.body_bytes


def _sliced(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """What is sent at once waits in memory until it is read."""
    for piece in pieces:
        for at in range(0, len(piece), _SLICE):
            yield piece[at : at + _SLICE]


def _tag(head: RecordMeta) -> str:
    return f'"{head.version}-{head.epoch}-{head.digest.hex()}"'


def _address(request: Request) -> bytes:
    return (request.client.host if request.client else "").encode()


def _require_patience(rates: RateLimiter, who: bytes) -> None:
    wait = rates.retry_after_s(who)
    if wait:
        raise ApiError(429, "too many requests", retry_after_s=wait)


async def _body(request: Request) -> bytes:
    """The whole body; `BodyLimitMiddleware` has counted it."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise ApiError(400, "the body was cut off") from None
