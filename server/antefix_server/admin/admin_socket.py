"""The server's own socket: operators' commands reach a running server through it.

A Unix socket in the data folder, which its owner alone can open. Who can open it could read the data as well.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from antefix.errors import InvalidArgument
from antefix_server.admin import operations
from antefix_server.admin.operations import Site
from antefix_server.engine.interface import Hosting
from antefix_server.errors import ServerRefused, ServerUnreachable, VaultBusy
from antefix_server.http.responses import register_handlers
from antefix_server.storage.os_errors import files
from antefix_server.vault import Vault

NAME = "admin.sock"
_LONGEST = 100  # the system takes 107, macOS 103
_WAITING = 128
_BYTES = "application/octet-stream"


def application(vault: Vault, hosting: Hosting | None = None) -> FastAPI:
    """The routes of `antefix_server.admin.operations`."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.state.site = Site(vault, hosting)
    app.include_router(operations.router)
    register_handlers(app, operator_hint=operations.SAME_VERSION)
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
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        with files(path):
            path.unlink(missing_ok=True)  # of a server that was killed
            listener.bind(str(path))
            listener.listen(_WAITING)
    finally:
        os.umask(previous)
    try:
        yield listener
    finally:
        listener.close()
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


def ask(folder: Path, name: str, /, content: bytes | list[int] | None = None, **arguments: Any) -> Any:
    """Have a running server do an operation; its result, from JSON or as bytes.

    Args:
        folder: the server's data.
        name: of the operation.
        content: its body: bytes, or what is sent as JSON.
        arguments: its other parameters; None for a default.

    Raises:
        InvalidArgument: a parameter is longer than HTTP takes.
        ServerRefused: with the server's own message.
        ServerUnreachable: it went away.
    """
    # No TLS on a socket of our own: certificates need not be read, which takes 30 ms.
    transport = httpx.HTTPTransport(uds=str(folder / NAME), verify=False)
    body: dict[str, Any] = {"json": content}
    if isinstance(content, bytes):
        body = {"content": content, "headers": {"Content-Type": _BYTES}}
    params = {key: value for key, value in arguments.items() if value is not None}
    try:
        with httpx.Client(transport=transport, base_url="http://admin", timeout=None) as client:
            answer = client.post(f"/{name}", params=params, **body)
    except httpx.InvalidURL:
        raise InvalidArgument(
            f"an argument of {name} is too long to be sent to the server", "is it the right file?"
        ) from None
    except httpx.HTTPError as error:
        raise ServerUnreachable(
            f"the server in {folder} went away ({type(error).__name__})",
            "see its log, then look whether it was done",
        ) from None
    kind = answer.headers.get("Content-Type")
    if answer.status_code == 200 and kind == _BYTES:
        return answer.content
    try:
        result = answer.json()
        if answer.status_code == 200 and kind == "application/json":
            return result
        refused = ServerRefused(result["message"], result["hint"])
    except (ValueError, KeyError, TypeError):  # an error that nobody thought of is told as plain text
        refused = ServerRefused(f"the server failed at {name!r} (status {answer.status_code})", "see its log")
    raise refused


def call(folder: Path, name: str, /, content: bytes | None = None, **arguments: Any) -> Any:
    """Have an operation done by a running server, else here; parameters as `ask`.

    Raises:
        VaultBusy: another command is at it, or a server that does not answer yet.
        AntefixError: what the operation raises.
    """
    if is_up(folder):
        return ask(folder, name, content, **arguments)
    try:
        with Vault.open(folder) as vault:
            body = {} if content is None else {"content": content}
            return operations.find(name)(Site(vault), **arguments, **body)
    except VaultBusy:
        if is_up(folder):  # it came up meanwhile
            return ask(folder, name, content, **arguments)
        raise
