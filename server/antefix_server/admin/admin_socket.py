"""The server's own socket: operators' commands reach a running server through it.

A Unix socket in the data folder, which its owner alone can open. Who can open it could read the data as well.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

from antefix.errors import InvalidArgument
from antefix_server.admin.operations import Operations
from antefix_server.engine.interface import Hosting
from antefix_server.errors import ServerRefused, ServerUnreachable, VaultBusy
from antefix_server.http.responses import install
from antefix_server.storage.os_errors import files
from antefix_server.vault import Vault

NAME = "admin.sock"
_LONGEST = 100  # the system takes 107, macOS 103
_WAITING = 128


def application(vault: Vault, hosting: Hosting | None = None) -> FastAPI:
    """`POST /do/OPERATION` with the arguments as JSON."""
    operations, app = Operations(vault, hosting), FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    async def do(name: str, request: Request) -> dict[str, Any]:
        arguments = json.loads(await request.body() or b"{}")
        return {"result": await run_in_threadpool(operations.do, name, arguments)}

    app.post("/do/{name}")(do)
    install(app, to_operator=True)
    return app


@contextmanager
def listening(folder: Path) -> Iterator[socket.socket]:
    """The socket, which nobody else can open even between two calls; gone when the block ends.

    The vault's lock says that no other server has it. Who asks before anybody accepts waits: a server takes
    its time to load a base, and holds the vault meanwhile.

    Raises:
        InvalidArgument: the folder's path is too long for one.
        VaultUnavailable.
    """
    path = folder / NAME
    if len(os.fsencode(path)) > _LONGEST:
        raise InvalidArgument(
            f"{path} is too long for a socket", f"use a folder whose path is shorter: {_LONGEST}"
        )
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with files(path):
            path.unlink(missing_ok=True)  # of a server that was killed
            made.bind(str(path))
            made.listen(_WAITING)
    finally:
        os.umask(before)
    try:
        yield made
    finally:
        made.close()
        path.unlink(missing_ok=True)


def is_up(folder: Path) -> bool:
    """Whether a server answers there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(5)
        try:
            asking.connect(str(folder / NAME))
        except OSError:
            return False
    return True


def ask(folder: Path, name: str, arguments: dict[str, Any]) -> Any:
    """Have a running server do something.

    Raises:
        ServerRefused: with what it said.
        ServerUnreachable: it went away.
    """
    # No TLS on a socket of our own: certificates need not be read, which takes 30 ms.
    transport = httpx.HTTPTransport(uds=str(folder / NAME), verify=False)
    try:
        with httpx.Client(transport=transport, base_url="http://admin", timeout=None) as client:
            answer = client.post(f"/do/{name}", json=arguments)
    except httpx.HTTPError as error:
        raise ServerUnreachable(
            f"the server in {folder} went away ({type(error).__name__})",
            "see its log, then look whether it was done",
        ) from None
    try:
        said = answer.json()
        if answer.status_code == 200:
            return said["result"]
        refused = ServerRefused(said["message"], said["hint"])
    except (ValueError, KeyError, TypeError):  # an error that nobody thought of is told as plain text
        refused = ServerRefused(f"the server failed at {name!r} (status {answer.status_code})", "see its log")
    raise refused


def done(folder: Path, name: str, arguments: dict[str, Any]) -> Any:
    """Have it done by a running server, else here.

    Raises:
        VaultBusy: another command is at it, or a server that does not answer yet.
        AntefixError: what the operation raises.
    """
    if is_up(folder):
        return ask(folder, name, arguments)
    try:
        with Vault.open(folder) as vault:
            return Operations(vault).do(name, arguments)
    except VaultBusy:
        if is_up(folder):  # it came up meanwhile
            return ask(folder, name, arguments)
        raise
