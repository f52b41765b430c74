"""Serves an ASGI application on loopback for a test."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from antefix.http.timeouts import TimeoutProtocol
from antefix_server.http.tls import Certificate


@contextlib.contextmanager
def serving(
    application: Any,
    listening: socket.socket | None = None,
    certificate: Certificate | None = None,
    protocol: Any = TimeoutProtocol,
) -> Iterator[str]:
    """Serve while the block runs, and yield the address; with a certificate, over TLS."""
    if listening is None:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
    tls = {} if certificate is None else {"ssl_certfile": certificate.chain, "ssl_keyfile": certificate.key}
    options: dict[str, Any] = {
        "log_level": "critical",
        "access_log": False,
        "lifespan": "auto",
        "ws": "none",
        **tls,
    }
    config = uvicorn.Config(application, http=protocol, **options)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        name = listening.getsockname()
        scheme = "http" if certificate is None else "https"
        yield f"{scheme}://127.0.0.1:{name[1]}" if isinstance(name, tuple) else str(name)
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
