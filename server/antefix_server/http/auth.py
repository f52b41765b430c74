"""The token of a request, as the gateway's routes take it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

Credentials = HTTPAuthorizationCredentials | None
Bearer = Annotated[
    Credentials, Depends(HTTPBearer(auto_error=False, description="The token that enrolling gave."))
]
