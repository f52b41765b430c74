"""Flower's part of a server: a SuperLink on loopback, and what runs the server's side of rounds.

DATA/flower/state.db      Flower's own database: public keys of nodes, messages (sealed), runs
DATA/flower/home/         FLWR_HOME: how `flwr` reaches the SuperLink
DATA/flower/secret        lets our SuperExec, and nobody else, ask for work
"""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

from antefix.common.files import atomic_write
from antefix.common.programs import free_port, program, search_path
from antefix_server.http.tls import Certificate
from antefix_server.processes.supervisor import Part
from antefix_server.registry.retired_nodes import FOLDER
from antefix_server.storage.os_errors import files

CONNECTION = "antefix"
_OFF = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
}
"""Nothing is sent to anybody, and nothing is fetched."""


def prepared(data: Path, certificate: Certificate, port: int) -> str:
    """Make what Flower needs; host and port of the SuperLink.

    Args:
        data: of the server.
        certificate: of our own authority, which is good for loopback.
        port: 0 for any that is free.

    Raises:
        VaultFull, VaultUnavailable.
    """
    home = data / FOLDER / "home"
    address = f"127.0.0.1:{port or free_port()}"
    authority = str(certificate.authority).replace("\\", "\\\\").replace('"', '\\"')
    with files(home):
        home.parent.mkdir(mode=0o700, exist_ok=True)
        home.mkdir(mode=0o700, exist_ok=True)
        atomic_write(
            home / "config.toml",
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
            f'address = "{address}"\nroot-certificates = "{authority}"\n'.encode(),
        )
        secret = data / FOLDER / "secret"
        if not secret.is_file():
            atomic_write(secret, base64.b64encode(os.urandom(32)))
    return address


def environment(data: Path) -> dict[str, str]:
    """For every program of Flower. They start one another by name, and no service manager activates ours."""
    path = search_path()
    return {**_OFF, "FLWR_HOME": str(data / FOLDER / "home"), "ANTEFIX_DATA": str(data), "PATH": path}


def parts(data: Path, certificate: Certificate, address: str) -> list[Part]:
    """SuperLink and SuperExec."""
    folder = data / FOLDER
    host, port = address.split(":")
    secret = ["--superexec-auth-secret-file", str(folder / "secret")]
    database = str(folder / "state.db")
    superlink = [
        *(sys.executable, "-m", "antefix_server.flower.state_database", database),
        *(program("flower-superlink"), "--host", host, "--port", port),
        *("--database", database, "--disable-runtime-dependency-installation"),
        *("--ssl-ca-certfile", str(certificate.authority)),
        *("--ssl-certfile", str(certificate.chain), "--ssl-keyfile", str(certificate.key)),
        *("--enable-supernode-auth", "--isolation", "process", *secret),
    ]
    superexec = [
        *(program("flower-superexec"), "--runtime-api-address", address),
        *("--root-certificates", str(certificate.authority), *secret),
    ]
    return [
        Part("superlink", superlink, environment(data)),
        Part("superexec", superexec, environment(data)),
    ]
