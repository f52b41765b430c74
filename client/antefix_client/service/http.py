"""What every answer of the service needs: who is let in, bodies that are read, errors that are told."""

from __future__ import annotations

import hmac
import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from antefix.errors import AntefixError, BaseError
from antefix_client.errors import ProfileClosed, ProfileFull, TooFewTexts

Asked = TypeVar("Asked", bound=BaseModel)
LARGEST_BODY = 2**22
_OPENAI = {
    "function_call", "functions", "logit_bias", "logprobs", "metadata", "modalities", "parallel_tool_calls",
    "prefix", "reasoning_effort", "service_tier", "store", "suffix", "tool_choice", "tools", "top_logprobs",
}  # fmt: skip
_LOCAL = {"localhost", "127.0.0.1", "[::1]", "antefix"}
_STATUS = (
    (ProfileFull, 507),
    (ProfileClosed, 503),
    (BaseError, 503),
    (TooFewTexts, 409),
    (AntefixError, 400),
)


class BodyRefused(Exception):
    """A body that cannot be taken.

    Attributes:
        status: of the answer.
        message: what is wrong with it; nothing of its content.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


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
                await error_response(401, "no or another token", "send Authorization: Bearer TOKEN")(
                    scope, receive, send
                )
                return
            # A page in a browser could reach loopback through a name of its own (DNS rebinding).
            host = headers.get("host", "localhost").rsplit(":", 1)[0]
            if host not in _LOCAL or "origin" in headers:
                await error_response(403, "for programs on this machine alone", "")(scope, receive, send)
                return
        await self._inner(scope, receive, send)

    def _knows(self, given: str) -> bool:
        wanted = f"Bearer {self._token}"
        return hmac.compare_digest(given.encode(), wanted.encode())


async def handle_error(request: Request, error: Exception) -> Response:
    """An error of ours in OpenAI's form."""
    if isinstance(error, BodyRefused):
        return error_response(error.status, error.message)
    status = next(code for kind, code in _STATUS if isinstance(error, kind))
    message, hint = getattr(error, "message", ""), getattr(error, "hint", "")
    return error_response(status, message, hint, type(error).__name__)


def error_response(status: int, message: str, hint: str = "", kind: str = "refused") -> Response:
    """An error in OpenAI's form."""
    text = f"{message}; {hint}" if hint else message
    return JSONResponse({"error": {"message": text, "type": kind, "param": None, "code": None}}, status)


async def read_content(
    request: Request, most: int = LARGEST_BODY, hint: str = "send less at a time"
) -> bytes:
    """A body of no more than so many bytes.

    Raises:
        BodyRefused: it has more.
    """
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > most:
            raise BodyRefused(413, f"the body has more than {most:,} bytes; {hint}")
    return bytes(content)


async def read_body(request: Request, kind: type[Asked]) -> Asked:
    """The checked body; what is wrong with one is said without its content.

    Raises:
        BodyRefused: too large, no JSON object, or not what is expected in it.
    """
    content = await read_content(request)
    try:
        given = json.loads(content or b"{}")
        json.dumps(given, ensure_ascii=False).encode()
        return kind(**given)
    except UnicodeEncodeError:
        raise BodyRefused(400, "the body holds half of a surrogate pair, which is no character") from None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(_place(kind, part) for part in first["loc"]) or "the body"
        raise BodyRefused(400, f"{where}: {first['msg'].lower()}") from None
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, AntefixError):
            raise
        raise BodyRefused(400, "the body is not a JSON object") from None


def _place(kind: type[BaseModel], part: str | int) -> str:
    """A part of the way to what is wrong; names are repeated where they are ours or OpenAI's, no others."""
    known = isinstance(part, int) or part in _OPENAI or f'"{part}"' in json.dumps(kind.model_json_schema())
    return str(part) if known else "an unknown field"
