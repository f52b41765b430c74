"""Programs that are started beside this one: where they are, and a port for them."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

__all__ = ["free_port", "program", "search_path"]


def program(name: str) -> str:
    """Path of a program of this environment, whether that is activated or not."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


def search_path() -> str:
    """`PATH` with the programs of this environment first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def free_port() -> int:
    """A port of the loopback address that nobody listens on now; another program may take it meanwhile."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
