"""Two processes that call each other over a socket: JSON, and bytes that are wiped.

No pickle: whoever takes over an engine's process can send what it likes, and gains nothing here by its form.
"""

from __future__ import annotations

import itertools
import json
import logging
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

from antefix.crypto.aead import SecretBytes
from antefix.errors import AntefixError
from antefix_server.engine_processes import rpc_messages
from antefix_server.errors import EngineLost

__all__ = ["Answer", "RpcChannel"]

_HEAD = struct.Struct(">IQ")
_MOST = 2**31  # of either part
_LOG = logging.getLogger("antefix.server")
Said = dict[str, Any]


class Answer(Protocol):
    """How a handler answers a call: once."""

    def __call__(self, said: Mapping[str, Any], payload: bytes | memoryview = b"") -> None:
        """Send it; the payload is the caller's to wipe."""


class RpcChannel:
    """One end. Any thread may call anything."""

    def __init__(
        self,
        end: socket.socket,
        told: Mapping[str, Callable[[Said], None]],
        asked: Mapping[str, Callable[[Said, Answer], None]],
        threads: int = 8,
    ) -> None:
        """Take over a connected socket; nothing is read before `run`.

        Args:
            end: of a pair.
            told: what is done about news, in the reading thread, in the order in which they came.
            asked: what answers calls, in threads.
            threads: for `asked`.
        """
        self._end, self._told, self._asked = end, told, asked
        self._lock, self._numbers = threading.Lock(), itertools.count(1)
        self._waiting: dict[int, Future[tuple[Said, SecretBytes]]] = {}
        self._over = False
        self._threads = ThreadPoolExecutor(threads, "antefix-line")

    def tell(self, name: str, said: Mapping[str, Any]) -> None:
        """News, which nobody answers; lost where nobody is there."""
        with suppress(EngineLost):
            self._send({"do": name, **said})

    def call(
        self, name: str, said: Mapping[str, Any], seconds: float | None = None
    ) -> tuple[Said, SecretBytes]:
        """Ask the other side; the payload is the caller's to wipe.

        Raises:
            EngineLost: it went away, or took too long.
            AntefixError: what the other side raised.
        """
        number, answer = next(self._numbers), Future[tuple[Said, SecretBytes]]()
        with self._lock:
            if self._over:
                raise EngineLost
            self._waiting[number] = answer
        try:
            self._send({"do": name, "number": number, **said})
            return answer.result(seconds)
        except TimeoutError:
            raise EngineLost from None
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    def run(self) -> None:
        """Read until the other side goes away; whoever waits is told so."""
        try:
            while True:
                self._take(*self._receive())
        except (OSError, EOFError):
            pass
        except Exception as error:  # what was said has no sense: it is not our program any more
            _LOG.error("a line is hung up: %s", type(error).__name__)
        self.hang_up()
        with self._lock:
            self._over = True
            left = list(self._waiting.values())
        for answer in left:
            answer.set_exception(EngineLost())
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._end.close()

    def hang_up(self) -> None:
        """End `run`, on both sides."""
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    def _take(self, message: Said, payload: SecretBytes) -> None:
        name, number = message.pop("do", None), message.pop("number", None)
        if name is None:
            self._answered(number, message, payload)
        elif number is None:
            self._told[name](message)
        else:
            self._threads.submit(self._do, name, number, message)

    def _answered(self, number: int, message: Said, payload: SecretBytes) -> None:
        with self._lock:
            answer = self._waiting.pop(number, None)
        if answer is None:  # nobody waits for it any more
            payload.wipe()
        elif "error" in message:
            answer.set_exception(rpc_messages.error(message["error"]))
        else:
            answer.set_result((message, payload))

    def _do(self, name: str, number: int, message: Said) -> None:
        def answer(said: Mapping[str, Any], payload: bytes | memoryview = b"") -> None:
            self._send({"number": number, **said}, payload)

        try:
            self._asked[name](message, answer)
        except EngineLost:  # nobody hears it
            return
        except AntefixError as error:
            with suppress(EngineLost):
                answer({"error": rpc_messages.of_error(error)})
        except Exception as error:
            _LOG.error("%s failed: %s", name, type(error).__name__)
            with suppress(EngineLost):
                answer({"error": rpc_messages.of_error(EngineLost())})

    def _send(self, message: Mapping[str, Any], payload: bytes | memoryview = b"") -> None:
        body = json.dumps(message).encode()
        try:
            with self._lock:
                self._end.sendall(_HEAD.pack(len(body), len(payload)) + body)
                self._end.sendall(payload)
        except OSError:
            raise EngineLost from None

    def _receive(self) -> tuple[Said, SecretBytes]:
        body, payload = _HEAD.unpack(self._exactly(_HEAD.size).data)
        if max(body, payload) > _MOST:
            raise EOFError
        message = json.loads(self._exactly(body).data)
        return message, self._exactly(payload)

    def _exactly(self, size: int) -> SecretBytes:
        """So many bytes, into memory that is wiped."""
        result = SecretBytes(bytearray(size))
        with memoryview(result.data) as view:
            at = 0
            while at < size:
                read = self._end.recv_into(view[at:])
                if not read:
                    raise EOFError
                at += read
        return result
