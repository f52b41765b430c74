"""How much of a request the gateway takes, and for how long, before anything else looks at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antefix_server.http.responses import ApiError


class BodyLimitMiddleware:
    """Lets bodies through that say their length, are no longer than allowed, and come in time.

    Frameworks read a JSON body whole before they ask who sends it, and a chunked one without end.
    """

    def __init__(self, app: ASGIApp, most: Callable[[str], int], streamed: str, seconds: float) -> None:
        """Wrap an application.

        Args:
            app: the application.
            most: bytes of a body, by path.
            streamed: beginning of the paths whose bodies need not say their length.
            seconds: for a body to come in.
        """
        self._app, self._most, self._streamed, self._seconds = app, most, streamed, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse what says too much, and count what comes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refused(scope["method"], scope["path"], Headers(scope=scope))
        if refusal is not None:
            await refusal.response(scope["path"])(scope, receive, send)
            return
        counted = _CountedBody(receive, self._most(scope["path"]), self._seconds)
        await self._app(scope, counted, send)

    def _refused(self, method: str, path: str, headers: Headers) -> ApiError | None:
        limit, length = self._most(path), headers.get("content-length")
        if "transfer-encoding" in headers and length is not None:
            return ApiError(400, "a body that says its length twice")  # two readers would see two requests
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 20):
            return ApiError(400, "a length that is none")
        if length is not None and int(length) > limit:
            return ApiError(413, f"the body has more than {limit:,} bytes")
        if (
            length is None
            and not path.startswith(self._streamed)
            and (method in ("POST", "PUT") or "transfer-encoding" in headers)
        ):
            return ApiError(411, "the body does not say its length")
        return None


class _CountedBody:
    """A request's body as it comes."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive, self._left, self._most = receive, limit, limit
        self._until, self._seconds, self._whole = asyncio.get_running_loop().time() + seconds, seconds, False

    async def __call__(self) -> Message:
        """The next piece.

        Raises:
            ApiError: too long, or too slow.
        """
        if self._whole:  # what is waited for now is the end of the connection
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, f"the body did not come within {self._seconds:g} seconds") from None
        self._whole = not message.get("more_body", False)
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise ApiError(413, f"the body has more than {self._most:,} bytes")
        return message
