"""Brings an engine up for a gateway, as its configuration says, with its figures on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from antefix_server._configuration import Configuration
from antefix_server.epochs import Epochs
from antefix_server.errors import ServerUnfit
from antefix_server.grants import Grants
from antefix_server.hosting import Hosting
from antefix_server.vault import Vault

if TYPE_CHECKING:
    from antefix_server.engine.loop import Engine

__all__ = ["hosting"]


@contextmanager
def hosting(vault: Vault, configuration: Configuration) -> Iterator[Hosting | None]:
    """An engine while the block runs; None where none is configured.

    Raises:
        BaseError, InvalidArgument, OutOfMemory: about the base.
        ServerUnfit: the port for the figures is taken.
    """
    if not configuration.inference:
        yield None
        return
    from antefix import FrozenBase
    from antefix_server.engine.limits import Limits
    from antefix_server.engine.loop import Engine

    asked = configuration
    base = FrozenBase.load(
        asked.inference, device=asked.inference_device, dtype=asked.inference_dtype, progress=False
    )
    limits = Limits(
        rows=asked.inference_rows,
        waiting=asked.inference_waiting,
        bank_bytes=asked.inference_bank_bytes,
        exact=asked.inference_exact,
    )
    epochs = Epochs(vault.folder)
    grants = Grants(vault, epochs)
    with Engine(base, grants, limits) as engine, _figures(engine, asked.metrics_port):
        yield Hosting(engine, grants, epochs)


@contextmanager
def _figures(engine: Engine, port: int) -> Iterator[None]:
    if not port:
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server

    from antefix_server.engine.figures import Figures

    registry = CollectorRegistry()
    registry.register(Figures(engine.measured))
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise ServerUnfit(f"port {port} cannot be used: {error.strerror}", "change metrics_port") from None
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
