"""An engine in a process of its own: `python -m antefix_server.engine_processes.worker FD`, run by a gateway.

It has no key and no vault. Prefixes come to it opened, one by one, for requests that the gateway passed on.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any

import torch

from antefix import FrozenBase
from antefix.errors import AntefixError
from antefix.generation.request import TokenLogprob
from antefix.grants import Grant
from antefix.records import OpenedRecord
from antefix_server.engine.core import Engine
from antefix_server.engine.limits import Limits
from antefix_server.engine.output_stream import OutputStream
from antefix_server.engine_processes import rpc_messages
from antefix_server.engine_processes.rpc import Answer, RpcChannel
from antefix_server.errors import EngineClosed

__all__ = ["Worker"]

Said = dict[str, Any]


class Worker:
    """The engine's end of a line."""

    def __init__(self, end: socket.socket) -> None:
        """Nothing happens before `run`."""
        notices = {"cancel": self._cancel, "recheck": self._recheck, "close": self._close}
        calls = {"start": self._start, "ask": self._ask, "measured": self._measured}
        self._line = RpcChannel(end, notices, calls)
        self._engine: Engine | None = None
        self._rows: dict[int, OutputStream] = {}

    def run(self) -> None:
        """Until the gateway hangs up or goes away; then nothing that was opened is left."""
        self._line.run()
        for stream in list(self._rows.values()):
            stream.cancel()
        if self._engine is not None:
            self._engine.close()

    def _start(self, message: Said, answer: Answer) -> None:
        device = message["device"]
        if device == "cuda" and torch.cuda.device_count():
            device = f"cuda:{message['index'] % torch.cuda.device_count()}"
        if message["threads"]:
            torch.set_num_threads(message["threads"])
        base = FrozenBase.load(message["base"], device=device, dtype=message["dtype"], progress=False)
        self._engine = Engine(base, _Granted(self._line), Limits(**message["limits"]))
        answer({"fingerprint": base.fingerprint})

    def _ask(self, message: Said, answer: Answer) -> None:
        row, user = message["row"], bytes.fromhex(message["user"])
        stream = self._running.ask(user, message["settings"], personal=message["personal"])
        self._rows[row] = stream
        answer({"prompt_tokens": stream.prompt_tokens})
        forward = _Forward(self._line, self._rows, row, stream, self._running.word)
        stream.listen(forward)
        forward()

    def _cancel(self, message: Said) -> None:
        stream = self._rows.get(message["row"])
        if stream is not None:
            stream.cancel()

    def _recheck(self, message: Said) -> None:
        if self._engine is not None:
            self._engine.recheck(bytes.fromhex(message["user"]))

    def _measured(self, _: Said, answer: Answer) -> None:
        answer({"measured": self._running.measured()})

    def _close(self, _: Said) -> None:
        """Let rows end, in a thread: grants are still asked for over this line."""

        def close() -> None:
            if self._engine is not None:
                self._engine.close()
            self._line.hang_up()

        threading.Thread(target=close, name="antefix-closing").start()

    @property
    def _running(self) -> Engine:
        if self._engine is None:
            raise EngineClosed
        return self._engine


class _Granted:
    """The gateway's grants."""

    def __init__(self, line: RpcChannel) -> None:
        self._line = line

    def of(self, user: bytes) -> list[Grant]:
        message, _ = self._line.call("of", {"user": user.hex()})
        return [Grant.model_validate(grant) for grant in message["grants"]]

    def open(self, user: bytes, grant: str, base: bytes) -> OpenedRecord:
        message, payload = self._line.call("open", {"user": user.hex(), "grant": grant, "base": base.hex()})
        return rpc_messages.opened(message, payload)

    def tidy(self) -> int:
        self._line.tell("tidy", {})
        return 0


class _Forward:
    """Passes on what comes of one request, in whichever thread it comes."""

    def __init__(
        self, line: RpcChannel, rows: dict[int, OutputStream], row: int, stream: OutputStream, word: Any
    ) -> None:
        self._line, self._rows, self._row, self._stream, self._word = line, rows, row, stream, word
        self._lock, self._over = threading.Lock(), False

    def __call__(self) -> None:
        with self._lock:
            while not self._over:
                try:
                    texts = self._stream.taken()
                except AntefixError as error:
                    self._end({"error": rpc_messages.of_error(error)})
                    return
                if texts:
                    self._tell("pieces", {"texts": texts})
                if self._stream.result is not None:
                    self._end({"result": rpc_messages.of_generated(self._stream.result)})
                elif not texts:
                    return

    def _end(self, message: Mapping[str, Any]) -> None:
        self._over = True
        self._rows.pop(self._row, None)
        self._tell("end", message)

    def _tell(self, name: str, message: Mapping[str, Any]) -> None:
        logprobs = self._stream.logprobs_taken()
        words = {token: self._word(token) for logprob in logprobs for token in _tokens(logprob)}
        self._line.tell(
            name,
            {"row": self._row, "logprobs": rpc_messages.of_logprobs(logprobs), "words": words, **message},
        )


def _tokens(logprob: TokenLogprob) -> list[int]:
    return [logprob.token, *(token for token, _ in logprob.top)]


def main() -> None:
    """Work for the gateway that started us; its signals are not ours."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    Worker(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
