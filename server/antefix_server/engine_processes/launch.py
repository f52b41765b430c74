"""Brings an engine up for a gateway, as its configuration says, with its figures on loopback."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from antefix_server.config import Configuration
from antefix_server.engine.interface import Hosting
from antefix_server.errors import ServerUnfit
from antefix_server.grants import Grants
from antefix_server.grants.epochs import Epochs
from antefix_server.vault import Vault

if TYPE_CHECKING:
    from antefix_server.engine.core import Engine
    from antefix_server.engine.limits import Limits
    from antefix_server.engine_processes.router import EngineRouter

__all__ = ["hosting"]


@contextmanager
def hosting(vault: Vault, configuration: Configuration) -> Iterator[Hosting | None]:
    """An engine, or several, while the block runs; None where none is configured.

    Raises:
        BaseError, InvalidArgument, OutOfMemory: about the base.
        ServerUnfit: the port for the figures is taken.
    """
    if not configuration.inference:
        yield None
        return
    from antefix_server.engine.limits import Limits

    limits = Limits(
        rows=configuration.inference_rows,
        waiting=configuration.inference_waiting,
        bank_bytes=configuration.inference_bank_bytes,
        exact=configuration.inference_exact,
    )
    epochs = Epochs(vault.folder)
    grants = Grants(vault, epochs)
    begin = _start_engine if configuration.inference_engines == 1 else _several
    with (
        begin(configuration, grants, limits) as engine,
        _figures(engine.measured, configuration.metrics_port),
    ):
        yield Hosting(engine, grants, epochs)


def _start_engine(config: Configuration, grants: Grants, limits: Limits) -> Engine:
    """In this process."""
    from antefix import FrozenBase
    from antefix_server.engine.core import Engine

    device, dtype = config.inference_device, config.inference_dtype
    base = FrozenBase.load(config.inference, device=device, dtype=dtype, progress=False)
    return Engine(base, grants, limits)


def _several(config: Configuration, grants: Grants, limits: Limits) -> EngineRouter:
    """In processes of their own, which share the cores."""
    from antefix_server.engine_processes.client import Plan, RemoteEngine
    from antefix_server.engine_processes.router import EngineRouter

    count = config.inference_engines
    threads = max(1, (os.cpu_count() or 1) // count) if config.inference_device == "cpu" else 0
    plan = Plan(config.inference, config.inference_device, config.inference_dtype, threads, limits)
    return EngineRouter([RemoteEngine(plan, grants, index) for index in range(count)])


@contextmanager
def _figures(measured: Callable[[], dict[str, float]], port: int) -> Iterator[None]:
    if not port:
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server

    from antefix_server.engine.metrics import EngineMetrics

    registry = CollectorRegistry()
    registry.register(EngineMetrics(measured))
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise ServerUnfit(f"port {port} cannot be used: {error.strerror}", "change metrics_port") from None
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
