"""The gateway that a bench measures, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from antefix_server.admin import admin_socket
from antefix_server.errors import ServerUnreachable
from antefix_server.http.listener import bound

_START_S = 60.0


@contextmanager
def gateway(data: Path, **settings: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A gateway over a server's data, with settings over its configuration: its address and its process."""
    with bound("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    given = {f"ANTEFIX_SERVER_{name.upper()}": value for name, value in settings.items()}
    environment = {**os.environ, "ANTEFIX_SERVER_PORT": str(port), **given}
    command = [sys.executable, "-m", "antefix_server.gateway.process", str(data)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _START_S
        while not admin_socket.is_up(data):
            if process.poll() is not None or time.monotonic() > until:
                raise ServerUnreachable("the gateway did not start", "see what it said above")
            time.sleep(0.05)
        admin_socket.ask(data, "status")  # answered when the base is loaded
        yield f"https://localhost:{port}", process
    finally:
        process.terminate()
        process.wait(_START_S)


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """Seconds of processor time of a process; NaN where the system does not tell."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return float("nan")
