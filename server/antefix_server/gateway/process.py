"""The gateway's process: `python -m antefix_server.gateway.process DATA`, started by `antefix-server up`."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from antefix.errors import AntefixError
from antefix_server.admin import admin_socket
from antefix_server.config import Configuration
from antefix_server.engine_processes.launch import hosting
from antefix_server.gateway.app import Limits, application
from antefix_server.gateway.fleet_proxy import FleetProxy
from antefix_server.http import listener, tls
from antefix_server.http.tls import Certificate
from antefix_server.registry import Registry
from antefix_server.registry.retired_nodes import Retired
from antefix_server.vault import Vault

if TYPE_CHECKING:
    from antefix_server.flower.superlink import SuperLink

_AGAIN_S = 5.0
_LOG = logging.getLogger("antefix.server")


def certificate_of(data: Path, configuration: Configuration) -> Certificate:
    """The one that devices see.

    Raises:
        ServerUnfit: it expired, or is none.
    """
    if configuration.certificate is None or configuration.key is None:
        return tls.own(data, configuration.names)
    return tls.read_certificate(configuration.certificate, configuration.key)


def serve(data: Path, configuration: Configuration, flower: str | None) -> None:
    """Until a signal comes.

    Args:
        data: of the server.
        configuration: how it runs.
        flower: host and port of the SuperLink; None for none.

    Raises:
        VaultBusy, ServerUnfit, and what opening the vault may raise.
    """
    certificate = certificate_of(data, configuration)
    own = tls.own(data, configuration.names)
    limits = Limits(
        record_bytes=configuration.record_bytes,
        requests_per_minute=configuration.requests_per_minute,
        enrolments_per_minute=configuration.enrolments_per_minute,
        user_bytes=configuration.user_bytes,
        user_records=configuration.user_records,
    )
    authority = "" if certificate.authority is None else certificate.authority.read_text()
    with (
        Vault.open(data) as vault,
        admin_socket.listening(data) as inside,
        hosting(vault, configuration) as hosted,
    ):
        fleet = None if flower is None or own.authority is None else _fleet(vault, flower, own.authority)
        outside = listener.bound(configuration.host, configuration.port)
        names = [] if authority else tls.names_of(certificate)
        devices = application(vault, limits, authority=authority, names=names, fleet=fleet, hosting=hosted)
        _say(configuration, outside)
        per_address = configuration.connections_per_address
        listener.serve(
            (devices, outside, certificate), (admin_socket.application(vault, hosted), inside), per_address
        )


def _fleet(vault: Vault, flower: str, authority: Path) -> FleetProxy:
    from antefix_server.flower.superlink import SuperLink

    superlink = SuperLink(flower, authority)
    registry, retired = Registry(vault), Retired(vault.folder)
    threading.Thread(target=_retire, args=(retired, registry, superlink), daemon=True).start()
    return FleetProxy(registry, superlink, flower, authority)


def _retire(retired: Retired, registry: Registry, superlink: SuperLink) -> None:
    """Take the nodes of removed users and revoked devices from Flower, as long as it takes."""
    while True:
        try:
            _retire_some(retired, registry, superlink)
        except Exception as error:  # a full disk, say: it has room again one day, and nobody starts us anew
            _LOG.warning("nodes stay registered for now: %s: %s", type(error).__name__, error)
        threading.Event().wait(_AGAIN_S)


def _retire_some(retired: Retired, registry: Registry, superlink: SuperLink) -> None:
    """Those that no device has. One that Flower does not let go of keeps no other one."""
    for node in retired.nodes():
        try:
            if not registry.nodes.has(node):
                superlink.unregister(node)
                retired.done(node)
        except AntefixError as error:
            _LOG.warning("node %d stays registered for now: %s", node, error.message)


def _say(configuration: Configuration, listening: socket.socket) -> None:
    print(listener.address_of(configuration, listening), flush=True)


def main() -> None:
    """Serve; an error is two lines on stderr."""
    data, flower = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    try:
        serve(data, Configuration.read(data), flower)
    except AntefixError as error:
        print(f"antefix-server: error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"antefix-server: hint: {error.hint}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
