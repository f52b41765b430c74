"""The gateway's routes for hosted inference: grants, and OpenAI's API under the caller's own prefix.

Whose prefix it is follows from the token alone. A body can choose between `personal` and `base`, which is
none; it cannot name anybody else's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse

from antefix.errors import AntefixError
from antefix.grants import Grant
from antefix.http.openai import ChatCompletionRequest, CompletionRequest, EventWriter, ResponseBuilder
from antefix.wire import Signed
from antefix_server.engine.interface import Hosting
from antefix_server.engine.output_stream import OutputStream, pieces
from antefix_server.errors import EngineLost
from antefix_server.http.auth import Bearer, Credentials
from antefix_server.http.responses import ApiError, error_responses, public_message
from antefix_server.registry import Session
from antefix_server.vault import Vault

__all__ = ["MODELS", "PROMPTS", "Inference"]

_LOG = logging.getLogger("antefix.server")

PROMPTS = ("/v1/completions", "/v1/chat/completions")
"""Paths of requests to generate, whose bodies are longer than others."""
MODELS = {"personal": True, "base": False}
"""Names that a body can choose from, and whether the caller's prefix is used."""
_Known = Annotated[
    int | None, Query(ge=0, le=2**40, description="Number of revocations; refused if it grew.")
]
_Id = Annotated[str, InPath(pattern="^[0-9a-f]{32}$", description="Id of a grant, in hex.")]


class Inference:
    """Routes of one vault's engine."""

    def __init__(
        self,
        hosting: Hosting,
        vault: Vault,
        session: Callable[[Credentials], Awaitable[Session]],
    ) -> None:
        """Use an engine, whose owner closes it, and the gateway's way to know a device by its token."""
        self._engine, self._grants, self._epochs = hosting.engine, hosting.grants, hosting.epochs
        self._vault, self._session = vault, session

    def install(self, app: FastAPI) -> None:
        """Add the routes to the gateway's."""
        app.get("/v1/epoch", responses=error_responses(401, 429))(self.epoch)
        app.get("/v1/grants", responses=error_responses(401, 429))(self.granted)
        app.put("/v1/grants", responses=error_responses(400, 401, 404, 409, 413, 429, 503, 507))(self.grant)
        app.delete("/v1/grants", responses=error_responses(401, 429, 503, 507))(self.revoke_all)
        app.get("/v1/grants/revocations", responses=error_responses(401, 429))(self.revocations)
        app.delete("/v1/grants/{id}", responses=error_responses(400, 401, 404, 429, 503))(self.revoke)
        app.get("/v1/models", responses=error_responses(401, 429, openai=True))(self.models)
        statuses = error_responses(400, 401, 403, 404, 413, 429, 503, openai=True)
        app.post(PROMPTS[0], responses=statuses, response_model=None)(self.completions)
        app.post(PROMPTS[1], responses=statuses, response_model=None)(self.chat)

    async def epoch(self, bearer: Bearer) -> Signed:
        """The key to seal a grant to, signed with the server's release key."""
        await self._session(bearer)
        key = await run_in_threadpool(self._epochs.current, time.time())
        return key.statement(self._vault.tenant).signed(self._vault.identity.releasing)

    async def granted(self, bearer: Bearer) -> list[dict[str, Any]]:
        """The user's grants that hold."""
        session = await self._session(bearer)
        return [_shown(grant) for grant in await run_in_threadpool(self._grants.of, session.user)]

    async def grant(self, asked: Signed, bearer: Bearer, revocations: _Known = None) -> dict[str, Any]:
        """Let this server use a version of a prefix, in place of an earlier grant for it."""
        session = await self._session(bearer)
        grant = await run_in_threadpool(self._grants.put, session, asked, revocations)
        self._engine.recheck(session.user)
        return _shown(grant)

    async def revoke(self, id: _Id, bearer: Bearer) -> dict[str, bool]:
        """End a grant of the user; what runs under it ends with it."""
        session = await self._session(bearer)
        if not await run_in_threadpool(self._grants.revoke, session.user, bytes.fromhex(id)):
            raise ApiError(404, f"this user has no grant {id}")
        self._engine.recheck(session.user)
        return {"revoked": True}

    async def revoke_all(self, bearer: Bearer) -> dict[str, int]:
        """End all grants of the user, and let no device grant anew before its user asks for it again."""
        session = await self._session(bearer)
        count = await run_in_threadpool(self._grants.revoke_all, session.user)
        self._engine.recheck(session.user)
        return {"revoked": count}

    async def revocations(self, bearer: Bearer) -> dict[str, int]:
        """How often something was revoked: what a device that grants anew by itself has to know."""
        session = await self._session(bearer)
        return {"revocations": await run_in_threadpool(self._grants.revocations, session.user)}

    async def models(self, bearer: Bearer) -> dict[str, Any]:
        """What a body can choose from, in OpenAI's form."""
        session = await self._session(bearer)
        granted = await run_in_threadpool(self._grants.of, session.user)
        names = [name for name, personal in MODELS.items() if granted or not personal]
        entry = {"object": "model", "created": 0, "owned_by": "antefix"}
        return {"object": "list", "data": [{"id": name, **entry} for name in names]}

    async def completions(self, asked: CompletionRequest, bearer: Bearer, request: Request) -> Response:
        """What follows a prompt."""
        return await self._answer(asked, await self._session(bearer), request)

    async def chat(self, asked: ChatCompletionRequest, bearer: Bearer, request: Request) -> Response:
        """The next turn of a conversation."""
        return await self._answer(asked, await self._session(bearer), request)

    async def _answer(
        self, body: CompletionRequest | ChatCompletionRequest, session: Session, request: Request
    ) -> Response:
        model = body.model or "personal"
        if model not in MODELS:
            raise ApiError(404, f"there is no model of that name: {', '.join(MODELS)}")
        settings = {"prompt": body.prompt, **body.settings}
        stream = await run_in_threadpool(self._begun, session.user, settings, MODELS[model])
        word = self._engine.word if settings["logprobs"] is not None else None
        answer = ResponseBuilder(isinstance(body, ChatCompletionRequest), model, stream.prompt_tokens, word)
        if body.stream:
            events = _events(EventWriter(answer, with_usage=body.with_usage), stream)
            return StreamingResponse(events, media_type="text/event-stream")
        async for _ in pieces(stream, request.is_disconnected):
            pass
        if stream.result is None:
            raise ApiError(499, "the caller went away")
        with _quietly():
            return JSONResponse(answer.response(stream.result))

    def _begun(self, user: bytes, settings: dict[str, Any], personal: bool) -> OutputStream:
        with _quietly():
            return self._engine.ask(user, settings, personal=personal)


async def _events(writer: EventWriter, stream: OutputStream) -> AsyncIterator[str]:
    """Server-sent events of one request; one that ends before its end says why."""
    try:
        with _quietly():
            async for piece in pieces(stream):
                yield writer.chunk(piece, stream.logprobs_taken())
            for event in writer.end(stream.result, stream.logprobs_taken()):
                yield event
    except AntefixError as error:
        yield writer.error(error, public_message(error)[1])


@contextmanager
def _quietly() -> Iterator[None]:
    """An error that nobody thought of is told by its kind alone: what it says, and where, may quote a text.

    Raises:
        EngineLost: it was one.
    """
    try:
        yield
    except (AntefixError, ApiError):
        raise
    except Exception as error:
        _LOG.error("a request failed: %s", type(error).__name__)
        raise EngineLost from None


def _shown(grant: Grant) -> dict[str, Any]:
    names = ("id", "prefix", "version", "device", "since", "until")
    return {name: getattr(grant, name) for name in names}
