"""The gateway's routes for releases: what devices are to use, and its files by digest, with ranges."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import FastAPI, Header, Request, Response
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse

from antefix_server.http.auth import Bearer, Credentials
from antefix_server.http.responses import ApiError, error_responses
from antefix_server.registry import Session
from antefix_server.releases import Releases

Sha256 = Annotated[str, InPath(pattern="^[0-9a-f]{64}$", description="SHA-256 of a file, in hex.")]
_ONE_RANGE = re.compile("bytes=[0-9]{0,18}-[0-9]{0,18}")


class Downloads:
    """Both routes, for enrolled devices."""

    def __init__(self, releases: Releases, session: Callable[[Credentials], Awaitable[Session]]) -> None:
        """Use a vault's releases, and the gateway's way to know a device by its token."""
        self._releases, self._session = releases, session

    def install(self, app: FastAPI) -> None:
        """Add the routes to the gateway's."""
        statuses = error_responses(304, 401, 404, 429)
        app.get("/v1/release", responses=statuses, response_class=Response)(self.release)
        statuses = error_responses(206, 400, 401, 404, 416, 429)
        app.get("/v1/files/{sha256}", responses=statuses, response_class=Response)(self.file)

    async def release(
        self, bearer: Bearer, if_none_match: Annotated[str | None, Header(max_length=200)] = None
    ) -> Response:
        """What to use: the newest announcement and its release, signed; 304 where its `ETag` is known."""
        await self._session(bearer)
        offer = await run_in_threadpool(self._releases.offer)
        tag = f'"{hashlib.sha256(offer.announcement.body.encode()).hexdigest()}"'
        if if_none_match == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return Response(offer.model_dump_json(), media_type="application/json", headers={"ETag": tag})

    async def file(self, sha256: Sha256, bearer: Bearer, request: Request) -> Response:
        """A file of a release, or the range of it that is asked for."""
        await self._session(bearer)
        byte_range = request.headers.get("range")
        if byte_range is not None and _ONE_RANGE.fullmatch(byte_range) is None:
            raise ApiError(416, "one range of bytes can be asked for")  # many of them cost the server much
        path = await run_in_threadpool(self._releases.file, sha256)
        return FileResponse(path, media_type="application/octet-stream", headers={"ETag": f'"{sha256}"'})
