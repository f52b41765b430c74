"""An engine in a process of its own, as the gateway uses it. A process that dies is started again."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from antefix.errors import AntefixError, GrantRefused
from antefix_server.engine.interface import Granting
from antefix_server.engine.limits import Limits
from antefix_server.engine.output_stream import OutputStream
from antefix_server.engine_processes import rpc_messages
from antefix_server.engine_processes.rpc import Answer, RpcChannel
from antefix_server.errors import EngineClosed, EngineLost, ServerUnfit

__all__ = ["Plan", "RemoteEngine"]

_LOG = logging.getLogger("antefix.server")
_ASK_S, _MEASURE_S, _LAST_S = 60.0, 2.0, 5.0
_OURS = ("ANTEFIX_", "PG")  # settings of the server, a database's password among them
_MORE = "leave it more memory, or let it have more processes and open files: ulimit -a"
_AGAIN_S = (1.0, 30.0)  # before a new process is started: the first time, and at most
Said = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How an engine's process computes.

    Attributes:
        base: a name or a folder.
        device, dtype: as for `FrozenBase.load`; of several GPUs it takes that of its number.
        threads: of torch; 0 for as many as it likes.
        limits: of the engine.
    """

    base: str
    device: str = "cpu"
    dtype: str = "fp32"
    threads: int = 0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class _Row:
    user: bytes
    stream: OutputStream


class RemoteEngine:
    """Asked like an `Engine`. Any thread may call anything."""

    def __init__(self, plan: Plan, grants: Granting, index: int = 0) -> None:
        """Begin to start a process; `ready` waits for it.

        Args:
            plan: how it computes.
            grants: stay here: the process is given what it opens, for users who ask just then.
            index: which of several it is.
        """
        self._plan, self._grants, self._index = plan, grants, index
        self._lock, self._numbers = threading.Lock(), itertools.count(1)
        self._rows: dict[int, _Row] = {}
        self._words: dict[int, str] = {}
        self._line: RpcChannel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started, self._closing = threading.Event(), threading.Event()
        self._failed: AntefixError | None = None
        self._keeper = threading.Thread(target=self._keep, name=f"antefix-engine-{index}", daemon=True)
        self._keeper.start()

    def ready(self) -> None:
        """Wait until it answers.

        Raises:
            BaseError, InvalidArgument, OutOfMemory: about the base; nothing runs then.
            EngineLost: the process died.
            ServerUnfit: the system gave none.
        """
        self._started.wait()
        if self._failed is not None:
            raise self._failed

    @property
    def there(self) -> bool:
        """Whether its process can be asked."""
        return self._line is not None

    @property
    def process(self) -> int:
        """Id of the process; 0 for none."""
        return 0 if self._process is None else self._process.pid

    def ask(self, user: bytes, settings: Mapping[str, Any], *, personal: bool = True) -> OutputStream:
        """Begin a request; see `Engine.ask`.

        Raises:
            EngineLost: the process went away; nothing was begun.
        """
        if self._closing.is_set():
            raise EngineClosed
        row = next(self._numbers)
        stream = OutputStream(0, lambda: self._tell("cancel", {"row": row}))
        with self._lock:
            line = self._line
            if line is None:
                raise EngineLost
            self._rows[row] = _Row(user, stream)
        request = {"row": row, "user": user.hex(), "settings": dict(settings), "personal": personal}
        try:
            stream.prompt_tokens = line.call("ask", request, _ASK_S)[0]["prompt_tokens"]
        except BaseException:
            with self._lock:
                self._rows.pop(row, None)
            raise
        return stream

    def recheck(self, user: bytes) -> None:
        """See `Engine.recheck`."""
        self._tell("recheck", {"user": user.hex()})

    def word(self, token: int) -> str | None:
        """Text of a token, if one of this engine's answers came with it."""
        return self._words.get(token)

    def measured(self) -> dict[str, float]:
        """See `Engine.measured`; empty where no process answers, counted anew after it was started again."""
        line = self._line
        if line is None:
            return {}
        try:
            result: dict[str, float] = line.call("measured", {}, _MEASURE_S)[0]["measured"]
        except AntefixError:
            return {}
        return result

    def close(self) -> None:
        """Let what is there end, then the process."""
        self._closing.set()
        self._tell("close", {})
        self._keeper.join(self._plan.limits.drain_s + _LAST_S)
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()
        self._keeper.join()

    # --- in the keeper's thread

    def _keep(self) -> None:
        wait, longest = _AGAIN_S
        while not self._closing.is_set():
            began = time.monotonic()
            self._live()
            if self._failed is not None or self._closing.is_set():
                return
            _LOG.error("engine %d went away; it is started again", self._index)
            wait = _AGAIN_S[0] if time.monotonic() - began > longest else min(longest, 2 * wait)
            self._closing.wait(wait)

    def _live(self) -> None:
        """One process, from its start to its end."""
        try:
            process, line, reader = self._begun()
        except (OSError, RuntimeError) as error:  # no memory, or no process, thread or open file more
            _LOG.error("engine %d: %s", self._index, error)
            self._begin_failed(ServerUnfit(f"an engine's process cannot be started: {error}", _MORE))
            return
        try:
            line.call("start", {**asdict(self._plan), "index": self._index})
            with self._lock:
                self._line = line
            if self._closing.is_set():  # meanwhile
                line.tell("close", {})
            self._started.set()
        except AntefixError as error:
            self._begin_failed(error)
            line.hang_up()
        reader.join()
        self._lost()
        process.wait()

    def _begun(self) -> tuple[subprocess.Popen[bytes], RpcChannel, threading.Thread]:
        """A process, the line to it, and the thread that reads from it."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "antefix_server.engine_processes.worker", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env={name: value for name, value in os.environ.items() if not name.startswith(_OURS)},
                )
            handlers = {"pieces": self._pieces, "end": self._end, "tidy": self._tidy}
            line = RpcChannel(ours, handlers, {"of": self._of, "open": self._open})
            reader = threading.Thread(target=line.run, name="antefix-engine-reader", daemon=True)
            reader.start()
        except BaseException:
            ours.close()  # a process that is there ends with it
            raise
        return self._process, line, reader

    def _begin_failed(self, error: AntefixError) -> None:
        """The first start's failure is told to who waits in `ready`; after a later one there is another."""
        if not self._started.is_set():
            self._failed = error
            self._started.set()

    def _lost(self) -> None:
        with self._lock:
            self._line = None
            rows = list(self._rows.values())
            self._rows.clear()
        for row in rows:
            row.stream.end(EngineLost())

    def _tell(self, name: str, message: Mapping[str, Any]) -> None:
        line = self._line
        if line is not None:
            line.tell(name, message)

    # --- what the process says

    def _pieces(self, message: Said) -> None:
        self._deliver(self._rows.get(message["row"]), message)

    def _end(self, message: Said) -> None:
        with self._lock:  # `_open` goes through them
            row = self._rows.pop(message["row"], None)
        self._deliver(row, {"texts": [""], **message})
        if row is not None:
            failed = "error" in message
            row.stream.end(
                rpc_messages.error(message["error"]) if failed else rpc_messages.generated(message["result"])
            )

    def _deliver(self, row: _Row | None, message: Said) -> None:
        if row is None:  # its caller waited too long and went away
            self._tell("cancel", {"row": message["row"]})
            return
        self._words.update({int(token): word for token, word in message["words"].items()})
        logprobs = rpc_messages.logprobs(message["logprobs"])
        for text in message["texts"]:
            row.stream.put(text, logprobs)
            logprobs = ()

    def _tidy(self, _: Said) -> None:
        try:
            self._grants.tidy()
        except AntefixError as error:  # raised on, it would end the line, and every request with it
            _LOG.warning("keys of epochs that are over stay for now: %s", error.message)

    def _of(self, message: Said, answer: Answer) -> None:
        grants = self._grants.of(bytes.fromhex(message["user"]))
        answer({"grants": [grant.model_dump() for grant in grants]})

    def _open(self, message: Said, answer: Answer) -> None:
        """For who asks this engine just now: a process that is taken over cannot go through all users."""
        user = bytes.fromhex(message["user"])
        with self._lock:
            asks = any(row.user == user for row in self._rows.values())
        if not asks:
            raise GrantRefused("nobody asks this engine for it")
        with self._grants.open(user, message["grant"], bytes.fromhex(message["base"])) as opened:
            answer(rpc_messages.of_opened(opened), opened.payload)
