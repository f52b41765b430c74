"""`antefix serve`."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antefix_client.cli.options import HOME, Device, Dtype, Folder, KeyFile
from antefix_client.cli.unlocking import open_model

if TYPE_CHECKING:
    from starlette.routing import Route

    from antefix_client import PersonalModel
    from antefix_client.service.background import BackgroundSync

TOKEN = "ANTEFIX_TOKEN"
SOCKET = "service.sock"
_LONGEST_SOCKET = 100  # the system takes 107, macOS 103


def register(app: typer.Typer) -> None:
    """Add the command to a command line."""
    app.command()(serve)


def serve(
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Listen on this port of 127.0.0.1.", show_default="the Unix socket"
        ),
    ] = None,
    folder: Folder = HOME,
    key_file: KeyFile = None,
    device: Device = "cpu",
    dtype: Dtype = "fp32",
) -> None:
    """Unlock once and serve the applications of this device: OpenAI's API, and antefix's own.

    On a Unix socket in the profile, which only you can open; or with --port on loopback, for who has the
    token (printed, or what ANTEFIX_TOKEN says). Ctrl-C ends it.
    """
    folder = folder.expanduser()
    require_service()
    with open_model(folder, key_file, device, dtype) as model:
        _take_servers_base(model)
        serve_model(model, folder, port)


def require_service() -> None:
    """Say before anything is asked that the service cannot be started."""
    from antefix.errors import InvalidArgument

    try:
        import uvicorn  # noqa: F401
    except ImportError:
        raise InvalidArgument("the service is not installed", "pip install 'antefix[service]'") from None


def serve_model(model: PersonalModel, folder: Path, port: int | None) -> None:
    """Serve an open model until a signal comes."""
    import uvicorn

    from antefix_client.service.app import Service
    from antefix_client.service.listener import listener_config

    model.load_base()
    listening = _socket(folder / SOCKET) if port is None else _loopback(port)
    token = None if port is None else os.environ.get(TOKEN) or secrets.token_urlsafe(32)
    resident = _resident(model, folder / SOCKET if port is None else None)
    try:
        # uvicorn raises the signal again when it is done; unhandled, it would end us before we clean up.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        typer.echo(_where(listening, token))
        more = [] if resident is None else _server_routes(resident)
        application = Service(model, more).application(token)
        if resident is not None:
            resident.start()
        uvicorn.Server(listener_config(application)).run(sockets=[listening])
    finally:
        if resident is not None:
            resident.stop()
        listening.close()
        if port is None:
            (folder / SOCKET).unlink(missing_ok=True)


def _take_servers_base(model: PersonalModel) -> None:
    """A joined profile without a base takes the server's: the first that is loaded stays pinned.

    So it is where `antefix join` was cut off before the release came.
    """
    try:
        from antefix_client.membership import Membership
    except ImportError:
        return
    membership = Membership(model)
    if model.status().fingerprint is None and membership.place is not None:
        membership.follow()


def _resident(model: PersonalModel, socket: Path | None) -> BackgroundSync | None:
    """What keeps a joined device in step; None where what talks to servers is not installed."""
    try:
        from antefix_client.membership import Membership
        from antefix_client.service.background import BackgroundSync
    except ImportError:
        return None
    return BackgroundSync(Membership(model), socket)


def _server_routes(resident: BackgroundSync) -> list[Route]:
    from antefix_client.service.server_routes import ServerRoutes

    return ServerRoutes(resident).routes


def _socket(path: Path) -> socket.socket:
    """A socket that its owner alone can open; nobody else can even between two calls."""
    from antefix.errors import InvalidArgument
    from antefix_client.profile.os_errors import translate_os_errors

    if len(os.fsencode(path)) > _LONGEST_SOCKET:
        raise InvalidArgument(f"{path} is too long for a socket", "use --port, or a shorter --profile")
    with translate_os_errors(path):
        path.unlink(missing_ok=True)  # of a service that was killed: the profile's lock says that none runs
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with translate_os_errors(path):
            listening.bind(str(path))
    finally:
        os.umask(before)
    return listening


def _loopback(port: int) -> socket.socket:
    from antefix.errors import InvalidArgument

    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        raise InvalidArgument(f"port {port} cannot be used: {error.strerror}", "choose another") from None
    return listening


def _where(listening: socket.socket, token: str | None) -> str:
    address = listening.getsockname()
    if token is None:
        return f"antefix serves on unix:{address}"
    return f"antefix serves on http://127.0.0.1:{address[1]}/v1 with token {token}"
