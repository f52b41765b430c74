"""How the service listens: whoever has no token must not hold it up."""

from __future__ import annotations

import resource

import uvicorn
from starlette.types import ASGIApp

from antefix.http.timeouts import TimeoutProtocol

_MAX_CONNECTIONS = 200
_SPARED_FILES = 64  # files that the profile, the base and the system need


def listener_config(application: ASGIApp) -> uvicorn.Config:
    """Few connections at a time, none of which waits long for a request's head."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    max_connections = _MAX_CONNECTIONS
    if files != resource.RLIM_INFINITY:
        max_connections = max(8, min(_MAX_CONNECTIONS, files - _SPARED_FILES))
    return uvicorn.Config(
        application,
        http=TimeoutProtocol,
        limit_concurrency=max_connections,
        log_level="warning",
        access_log=False,
        ws="none",
    )
