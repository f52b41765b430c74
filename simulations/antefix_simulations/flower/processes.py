"""Ends what Flower started: its engine and Ray's workers are in sessions of their own, and would go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["end_family", "terminable"]

_WAIT_S = 20.0


def end_family(head: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, and that these started; kill what does not end by itself."""
    family = _below(head.pid)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, sign)
        head.send_signal(sign)
        until = time.monotonic() + _WAIT_S
        while (head.poll() is None or family & _parents().keys()) and time.monotonic() < until:
            time.sleep(0.1)
        family &= _parents().keys()
    head.wait()


@contextmanager
def terminable() -> Iterator[None]:
    """Let `kill` end the block as Ctrl-C does, with exit code 143."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _below(pid: int) -> set[int]:
    parents = _parents()
    found, new = set[int](), {pid}
    while new:
        new = {one for one, parent in parents.items() if parent in new}
        found |= new
    return found


def _parents() -> dict[int, int]:
    """The parent of every process that runs."""
    if sys.platform != "linux":
        said = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        return {int(one): int(parent) for one, parent in map(str.split, said.splitlines())}
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # A name in brackets may hold anything; state and parent follow it.
            state, parent, *_ = path.read_text("utf-8", "replace").rpartition(")")[2].split()
            if state != "Z":
                found[int(path.parent.name)] = int(parent)
    return found
