"""Listens for devices with TLS, and for operators on the server's own socket, in one loop."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from antefix_server.config import Configuration
from antefix_server.errors import ServerUnfit
from antefix_server.http.connection_limits import per_address_limit
from antefix_server.http.tls import Certificate

_CONNECTIONS = 2_000
_HANDSHAKE_S = 10.0
_STOPPING_S = 10


def bound(host: str, port: int) -> socket.socket:
    """A socket for devices.

    Raises:
        ServerUnfit: the port is in use or not allowed, the host is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        result = socket.socket(family, kind, protocol)
        result.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        result.bind(address)
    except OSError as error:
        raise ServerUnfit(
            f"{host}:{port} cannot be used: {error.strerror}",
            "choose another with --port, or see what has it",
        ) from None
    return result


def serve(
    devices: tuple[ASGIApp, socket.socket, Certificate],
    operators: tuple[ASGIApp, socket.socket],
    connections_per_address: int,
) -> None:
    """Until SIGTERM or SIGINT; requests under way are answered first.

    Raises:
        ServerUnfit: the certificate and its key do not belong together.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a thousand silent connections use up the usual
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(_serve(devices, operators, connections_per_address))


class _Loop(asyncio.SelectorEventLoop):
    """Does not wait a minute for a TLS handshake that never comes."""

    async def create_server(self, *given: Any, **options: Any) -> asyncio.Server:
        """As asyncio's own."""
        if options.get("ssl") is not None:
            options.setdefault("ssl_handshake_timeout", _HANDSHAKE_S)
        result: asyncio.Server = await super().create_server(*given, **options)
        return result


async def _serve(
    devices: tuple[ASGIApp, socket.socket, Certificate],
    operators: tuple[ASGIApp, socket.socket],
    connections_per_address: int,
) -> None:
    application, outside, certificate = devices
    try:
        with_tls = uvicorn.Config(
            application,
            http=per_address_limit(connections_per_address),
            ssl_certfile=str(certificate.chain),
            ssl_keyfile=str(certificate.key),
            limit_concurrency=_CONNECTIONS,
            **_COMMON,
        )
        with_tls.load()
    except (OSError, ssl.SSLError) as error:
        raise ServerUnfit(
            f"the certificate {certificate.chain} cannot be used: {error}",
            "give both files of one certificate",
        ) from None
    servers = [_Server(with_tls), _Server(uvicorn.Config(operators[0], **_COMMON))]

    def stop() -> None:
        for server in servers:
            server.should_exit = True

    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop)
    sockets = (outside, operators[1])
    await asyncio.gather(
        *(server.serve(sockets=[bound]) for server, bound in zip(servers, sockets, strict=True))
    )


class _Server(uvicorn.Server):
    """One of several in a loop, which listens to signals for all of them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not each for itself."""
        yield


_COMMON: dict[str, Any] = {
    "log_level": "warning",
    "access_log": False,
    "ws": "none",
    "lifespan": "on",
    "server_header": False,
    "proxy_headers": False,  # from loopback it would believe whatever address a request says it has
    "timeout_graceful_shutdown": _STOPPING_S,
}


def address_of(configuration: Configuration, listening: socket.socket) -> str:
    """URL by which a device on this machine reaches it; others use its name."""
    port = listening.getsockname()[1]
    host = "localhost" if configuration.host in ("127.0.0.1", "::1", "0.0.0.0", "::") else configuration.host
    return f"https://{host}:{port}"
