"""Ends what Flower started: its engine and Ray's workers are in sessions of their own, and would go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

__all__ = ["end_family", "terminable"]

_WAIT_S = 20.0


def end_family(head: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, and that these started; kill what does not end by itself."""
    family = list[psutil.Process]()
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(head.pid).children(recursive=True)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(sign)
        head.send_signal(sign)
        until = time.monotonic() + _WAIT_S
        while (head.poll() is None or any(map(_runs, family))) and time.monotonic() < until:
            time.sleep(0.1)
        family = [process for process in family if _runs(process)]
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


def _runs(process: psutil.Process) -> bool:
    """Whether it has not ended; one that nobody waited for has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
