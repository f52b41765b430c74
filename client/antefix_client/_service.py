"""The resident service: a personal model, unlocked once, for the applications of its user on this device.

It listens on a Unix socket that its user alone can open, or on loopback for who has the token.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from antefix._example import Example
from antefix.errors import AntefixError, BaseError
from antefix_client._openai import Answer, ChatAsked, CompletionAsked
from antefix_client.errors import ProfileClosed, ProfileFull, TooFewTexts
from antefix_client.model import Budget, PersonalModel

Asked = TypeVar("Asked", bound=BaseModel)
LARGEST_BODY = 2**22
_LOCAL = {"localhost", "127.0.0.1", "[::1]", "antefix"}
_STATUS = (
    (ProfileFull, 507),
    (ProfileClosed, 503),
    (BaseError, 503),
    (TooFewTexts, 409),
    (AntefixError, 400),
)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class _Text(_Body):
    completion: str
    prompt: str = ""


class _Texts(_Body):
    texts: list[str | _Text]


class _Number(_Body):
    number: int | str | None = None


class Service:
    """Answers for one model. Whatever takes time runs in threads."""

    def __init__(self, model: PersonalModel) -> None:
        """Take an open model; its owner closes it."""
        self._model = model

    def application(self, token: str | None) -> ASGIApp:
        """The routes; with a token, for who has it alone."""
        api = "/antefix/v1"
        routes = [
            Route("/health", self.health),
            Route("/v1/models", self.models),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route(f"{api}/status", self.status),
            Route(f"{api}/versions", self.versions),
            Route(f"{api}/remember", self.remember, methods=["POST"]),
            Route(f"{api}/learn", self.learn, methods=["POST"]),
            Route(f"{api}/score", self.score, methods=["POST"]),
            Route(f"{api}/roll_back", self.roll_back, methods=["POST"]),
        ]
        return Guard(Starlette(routes=routes, exception_handlers={AntefixError: refused}), token)

    async def health(self, request: Request) -> Response:
        """Whether it is there."""
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        """The one model, in OpenAI's form."""
        one = {"id": "personal", "object": "model", "created": 0, "owned_by": "antefix"}
        return JSONResponse({"object": "list", "data": [one]})

    async def completions(self, request: Request) -> Response:
        """What follows a prompt."""
        asked = await _body(request, CompletionAsked)
        return asked if isinstance(asked, Response) else await self._answer(asked)

    async def chat(self, request: Request) -> Response:
        """The next turn of a conversation."""
        asked = await _body(request, ChatAsked)
        return asked if isinstance(asked, Response) else await self._answer(asked)

    async def status(self, request: Request) -> Response:
        """The profile at a glance."""
        found = asdict(await run_in_threadpool(self._model.status))
        return JSONResponse({**found, "folder": str(found["folder"])})

    async def versions(self, request: Request) -> Response:
        """What was learned."""
        found = await run_in_threadpool(self._model.versions)
        return JSONResponse([json.loads(one.model_dump_json()) for one in found])

    async def remember(self, request: Request) -> Response:
        """Keep texts."""
        asked = await _body(request, _Texts)
        if isinstance(asked, Response):
            return asked
        return JSONResponse({"new": await run_in_threadpool(self._model.remember, _examples(asked))})

    async def learn(self, request: Request) -> Response:
        """Train a new version; answers when it is done."""
        asked = await _body(request, Budget)
        if isinstance(asked, Response):
            return asked
        report = await run_in_threadpool(lambda: self._model.learn(budget=asked, progress=False))
        return JSONResponse({**_finite(asdict(report)), "said": str(report)})

    async def score(self, request: Request) -> Response:
        """How well texts are predicted."""
        asked = await _body(request, _Texts)
        if isinstance(asked, Response):
            return asked
        found = await run_in_threadpool(self._model.score, _examples(asked))
        return JSONResponse({"nats_per_token": found})

    async def roll_back(self, request: Request) -> Response:
        """Use an older version again."""
        asked = await _body(request, _Number)
        if isinstance(asked, Response):
            return asked
        made = await run_in_threadpool(self._model.roll_back, asked.number)
        return JSONResponse(json.loads(made.model_dump_json()))

    async def _answer(self, asked: CompletionAsked | ChatAsked) -> Response:
        prompt_tokens, pieces = await run_in_threadpool(self._model.pieces, asked.prompt, asked.settings)
        answer = Answer(isinstance(asked, ChatAsked), asked.model or "personal", prompt_tokens)
        if asked.stream:
            events = _events(answer, pieces, asked.with_usage)
            return StreamingResponse(iterate_in_threadpool(events), media_type="text/event-stream")
        done = (await run_in_threadpool(list, pieces))[-1].result
        if done is None:  # a running batch ends with a result
            return _error(500, "the text broke off", "ask again")
        return JSONResponse(answer.whole(done.text, done.finish, len(done.tokens)))


class Guard:
    """Lets in who has the token, and requests that were meant for this machine (no web page's)."""

    def __init__(self, inner: ASGIApp, token: str | None) -> None:
        """Without a token the socket's rights decide."""
        self._inner, self._token = inner, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 403, or go on."""
        if scope["type"] == "http":
            headers = {name.decode("latin1"): value.decode("latin1") for name, value in scope["headers"]}
            if self._token is not None and not self._knows(headers.get("authorization", "")):
                await _error(401, "no or another token", "send Authorization: Bearer TOKEN")(
                    scope, receive, send
                )
                return
            # A page in a browser could reach loopback through a name of its own (DNS rebinding).
            host = headers.get("host", "localhost").rsplit(":", 1)[0]
            if host not in _LOCAL or "origin" in headers:
                await _error(403, "for programs on this machine alone", "")(scope, receive, send)
                return
        await self._inner(scope, receive, send)

    def _knows(self, given: str) -> bool:
        wanted = f"Bearer {self._token}"
        return hmac.compare_digest(given.encode(), wanted.encode())


async def refused(request: Request, error: Exception) -> Response:
    """An error of ours in OpenAI's form."""
    status = next(code for kind, code in _STATUS if isinstance(error, kind))
    message, hint = getattr(error, "message", ""), getattr(error, "hint", "")
    return _error(status, message, hint, type(error).__name__)


def _error(status: int, message: str, hint: str, kind: str = "refused") -> Response:
    text = f"{message}; {hint}" if hint else message
    return JSONResponse({"error": {"message": text, "type": kind, "param": None, "code": None}}, status)


async def _body(request: Request, kind: type[Asked]) -> Asked | Response:
    """The checked body, or the answer that refuses it; its content is never repeated."""
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > LARGEST_BODY:
            return _error(413, f"the body has more than {LARGEST_BODY:,} bytes", "send less at a time")
    try:
        return kind(**json.loads(content or b"{}"))
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, AntefixError):
            raise
        if isinstance(error, ValidationError):
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            return _error(400, f"{where}: {first['msg'].lower()}", "")
        return _error(400, "the body is not a JSON object", "")


def _events(answer: Answer, pieces: Iterator[Any], with_usage: bool) -> Iterator[str]:
    """Server-sent events of one stream."""
    first, result = True, None
    for piece in pieces:
        result = piece.result
        if piece.text or first:
            yield _event(answer.piece(piece.text, None, first=first))
            first = False
    yield _event(answer.piece("", "stop" if result is None else result.finish))
    if with_usage and result is not None:
        yield _event(answer.counts(len(result.tokens)))
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def _examples(asked: _Texts) -> list[str | Example]:
    return [one if isinstance(one, str) else Example(one.completion, one.prompt) for one in asked.texts]


def _finite(facts: dict[str, Any]) -> dict[str, Any]:
    """NaN is no JSON."""
    return {name: None if value != value else value for name, value in facts.items()}
