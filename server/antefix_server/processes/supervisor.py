"""Keeps the parts of a server running: starts them, starts them again, stops them."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from antefix_server.storage.os_errors import files

_LOG = logging.getLogger("antefix.server")
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_STEADY_S = 30.0
_STOP_S = 15.0
_LOG_BYTES = 10 * 2**20


@dataclass
class Part:
    """A program.

    Attributes:
        name: of its log, `DATA/logs/NAME.log`.
        command: program and arguments.
        environment: on top of ours.
    """

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    wait_s: float = _FIRST_WAIT_S
    due: float = 0.0


class Supervisor:
    """Runs parts until it is told to stop. What ends by itself is started again, later each time."""

    def __init__(self, parts: Sequence[Part], logs: Path) -> None:
        """Start nothing yet."""
        self._parts, self._logs = list(parts), logs
        self._stopping = threading.Event()

    def run(self) -> None:
        """Until `stop`, SIGTERM or SIGINT.

        Raises:
            VaultFull, VaultUnavailable: no log can be written.
        """
        with files(self._logs):
            self._logs.mkdir(mode=0o700, exist_ok=True)
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signal_number, lambda *_: self.stop())
        try:
            while not self._stopping.is_set():
                for part in self._parts:
                    self._tend(part)
                self._stopping.wait(0.1)
        finally:
            self._end()

    def stop(self) -> None:
        """Let `run` end."""
        self._stopping.set()

    def _tend(self, part: Part) -> None:
        now = time.monotonic()
        if part.process is None:
            if now >= part.due:
                self._start(part, now)
            return
        code = part.process.poll()
        if code is None:
            self._cut(part)
            return
        if now - part.started > _STEADY_S:
            part.wait_s = _FIRST_WAIT_S
        _LOG.warning("%s ended with %d; it is started again in %.1f s", part.name, code, part.wait_s)
        part.process, part.due = None, now + part.wait_s
        part.wait_s = min(_LONGEST_WAIT_S, 2 * part.wait_s)

    def _cut(self, part: Part) -> None:
        """A log that has grown too long begins again; one older piece is kept."""
        path = self._logs / f"{part.name}.log"
        with contextlib.suppress(OSError):  # a full disk must not end the server
            if path.stat().st_size > _LOG_BYTES:
                shutil.copyfile(path, path.with_suffix(".log.1"))
                os.truncate(path, 0)  # it is written to at its end, wherever that is

    def _start(self, part: Part, now: float) -> None:
        self._cut(part)
        path = self._logs / f"{part.name}.log"
        with files(path):
            descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            part.process = subprocess.Popen(
                [sys.executable, "-m", "antefix_server.processes.child", *part.command],
                env={**os.environ, **part.environment},
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,  # Ctrl-C at the terminal is for us; we stop them in order
            )
        finally:
            os.close(descriptor)
        part.started = now

    def _end(self) -> None:
        """The last part first: each of them needs those before it."""
        until = time.monotonic() + _STOP_S
        for part in reversed(self._parts):
            if part.process is not None and part.process.poll() is None:
                part.process.terminate()
                try:
                    part.process.wait(max(0.1, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    part.process.kill()
                    part.process.wait()
