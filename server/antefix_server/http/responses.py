"""How the gateway refuses: a status, and a body that says what failed and the next step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import compress
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from antefix.errors import (
    AntefixError,
    BaseUnsuitable,
    DeviceListRefused,
    GrantRefused,
    InvalidArgument,
    OutOfMemory,
    RecordError,
    TextTooLong,
)
from antefix_server.errors import (
    EngineBusy,
    EngineClosed,
    EngineLost,
    FlowerRefused,
    FlowerUnreachable,
    GrantsRevoked,
    InvitationRefused,
    NoGrant,
    RecordAbsent,
    RecordReplaced,
    ReleaseAbsent,
    TokenRefused,
    UnknownUser,
    VaultBusy,
    VaultError,
    VaultFull,
    VersionConflict,
)

_STATUS: tuple[tuple[type[AntefixError], int], ...] = (
    (TokenRefused, 401),
    (UnknownUser, 401),
    (InvitationRefused, 403),
    (NoGrant, 403),
    (GrantRefused, 403),
    (GrantsRevoked, 409),
    (EngineBusy, 429),
    (EngineClosed, 503),
    (EngineLost, 503),
    (OutOfMemory, 503),
    (RecordAbsent, 404),
    (ReleaseAbsent, 404),
    (VersionConflict, 409),
    (RecordReplaced, 409),
    (VaultBusy, 503),
    (FlowerUnreachable, 503),
    (FlowerRefused, 409),
    (VaultFull, 507),
    (VaultError, 500),
    (RecordError, 400),
    (DeviceListRefused, 400),
    (TextTooLong, 400),
    (BaseUnsuitable, 400),
    (InvalidArgument, 400),
)
OPENAI = ("/v1/completions", "/v1/chat/completions", "/v1/models")
"""Paths of OpenAI's API, whose clients look for an error in their own form."""
_OF_HTTP = {
    400: "the body is no JSON, or did not come",
    404: "nothing is at this path",
    405: "nothing at this path takes this method",
}
"""What the framework refuses by itself, in our words: its own could change, and be of a caller's."""
_MEANS = {
    206: "The range that was asked for.",
    304: "What is known is what is stored.",
    400: "Not understood, or not allowed.",
    401: "No token, or one that opens nothing here.",
    403: "The invitation or the grant is refused, or there is none.",
    404: "Nothing is stored.",
    409: "Another version is stored, the key was used before, or a grant was revoked since.",
    413: "The body is too large.",
    416: "No such range.",
    429: "Too many requests.",
    503: "Busy: try again.",
    507: "The disk is full.",
}


class Error(BaseModel):
    """What failed.

    Attributes:
        type: name of the error.
        message: what failed; nothing secret in it.
        hint: the next step.
    """

    type: str
    message: str
    hint: str = ""


class OpenAIError(BaseModel):
    """The same in the form of OpenAI's API.

    Attributes:
        error: what failed.
    """

    error: Error


class ApiError(Exception):
    """A refusal that is about HTTP alone."""

    def __init__(self, status: int, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status, self.message, self._retry_after_s = status, message, retry_after_s

    def response(self, path: str) -> Response:
        """As it is sent to who asked for a path."""
        wait = {"Retry-After": str(math.ceil(self._retry_after_s))} if self._retry_after_s else {}
        return _response(path, self.status, "Refused", self.message, "", wait)


def error_responses(*statuses: int, openai: bool = False) -> dict[int | str, dict[str, Any]]:
    """Those refusals of a route, for its description; of one of OpenAI's API in its form."""
    with_body = {"model": OpenAIError if openai else Error}
    return {
        status: {"description": _MEANS[status], **({} if status < 400 else with_body)} for status in statuses
    }


def register_handlers(app: FastAPI, *, operator_hint: str | None = None) -> None:
    """Translate every error of ours, and what FastAPI finds wrong, for an application.

    A device is not told of the server's own problems: it could do nothing with the server's paths.

    Args:
        app: the application.
        operator_hint: the next step after a request that is none of ours, where an operator alone asks:
            such a one is told all. None for devices.
    """
    hint = operator_hint or "see /openapi.json"
    app.add_exception_handler(AntefixError, _ours if operator_hint is None else _answer_operator)
    app.add_exception_handler(ApiError, _http)
    app.add_exception_handler(RequestValidationError, partial(_invalid, hint=hint))
    app.add_exception_handler(HTTPException, partial(_unknown, hint=hint))


def public_message(error: AntefixError) -> tuple[int, str, str]:
    """Status, message and hint, as a device is told."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    return (
        (status, *_describe(error)) if status != 500 else (500, "the server has a problem", "try again later")
    )


async def _ours(request: Request, error: Exception) -> Response:
    if not isinstance(error, AntefixError):
        raise error
    status, message, hint = public_message(error)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status in (429, 503):
        headers["Retry-After"] = str(math.ceil(getattr(error, "retry_after_s", 1.0)))
    return _response(request.url.path, status, type(error).__name__, message, hint, headers)


async def _answer_operator(request: Request, error: Exception) -> Response:
    return _response(request.url.path, 400, type(error).__name__, *_describe(error), {})


def _describe(error: Exception) -> tuple[str, str]:
    return getattr(error, "message", ""), getattr(error, "hint", "")


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return error.response(request.url.path)


async def _unknown(request: Request, error: Exception, *, hint: str) -> Response:
    """What the framework refuses; a path that is none of ours is taken for one of OpenAI's API."""
    if not isinstance(error, HTTPException):
        raise error
    path, status = request.url.path, error.status_code
    path = OPENAI[0] if status == 404 and path.startswith("/v1/") else path
    return _response(path, status, "Refused", _OF_HTTP.get(status, ""), hint, error.headers)


async def _invalid(request: Request, error: Exception, *, hint: str) -> Response:
    """Where it is wrong and why, not what stood there: it may be private."""
    errors = error.errors() if isinstance(error, RequestValidationError) else []
    why = str(errors[0]["type"]) if errors else ""
    where = _place(errors[0]["loc"], why) if errors else "the request"
    message = "the body is no JSON" if why == "json_invalid" else f"{where}: {why}"
    return _response(request.url.path, 400, "Refused", message, hint, {})


def _place(loc: Sequence[str | int], why: str) -> str:
    """The way to what is wrong, in names of ours alone: keys of a caller's own are texts like others."""
    ours = loc[:-1] if why == "extra_forbidden" else loc
    # A name is a field's at the beginning, and in an item of a list; elsewhere it may be a key of a mapping.
    known = (at < 2 or isinstance(part, int) or isinstance(ours[at - 1], int) for at, part in enumerate(ours))
    return ".".join(map(str, compress(ours, known)))


def _response(
    path: str, status: int, kind: str, message: str, hint: str, headers: Mapping[str, str] | None
) -> Response:
    error = Error(type=kind, message=message, hint=hint)
    body = OpenAIError(error=error) if path in OPENAI else error
    return JSONResponse(body.model_dump(), status, headers)
