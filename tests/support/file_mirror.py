"""A file server that misbehaves in a chosen manner."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Mirror:
    """The files that the server gives, its manner, and the requests that it received.

    Attributes:
        folder: the files that it gives.
        manner: see `_Handler.do_GET`.
        requests: path and headers of every request.
    """

    folder: Path
    manner: str = "honest"
    requests: list[dict[str, str]] = field(default_factory=list)
    address: str = ""
    stopped: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mirror: Mirror

    def do_GET(self) -> None:
        mirror = self.mirror
        mirror.requests.append(
            {"path": self.path, **{key.lower(): value for key, value in self.headers.items()}}
        )
        content = (mirror.folder / Path(self.path).name).read_bytes()
        begin = 0
        if (span := self.headers.get("Range")) is not None and mirror.manner != "no ranges":
            begin = int(span.removeprefix("bytes=").rstrip("-"))
        shown = begin + 1 if mirror.manner == "another range" else begin
        body = content[shown:]
        if mirror.manner == "damaged":
            body = bytes([body[0] ^ 1]) + body[1:]
        if mirror.manner == "wrong bytes of a range" and begin:
            body = bytes(len(body))
        self.send_response(206 if self.headers.get("Range") and mirror.manner != "no ranges" else 200)
        if begin or shown:
            self.send_header("Content-Range", f"bytes {shown}-{len(content) - 1}/{len(content)}")
        if mirror.manner == "packed":
            self.send_header("Content-Encoding", "gzip")
        if mirror.manner == "endless":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._send(body)

    def _send(self, body: bytes) -> None:
        mirror = self.mirror
        with contextlib.suppress(OSError):
            if mirror.manner == "truncates":
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            elif mirror.manner == "stalls":
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                mirror.stopped.wait(10)
                self.close_connection = True
            elif mirror.manner == "trickles":
                for at in range(len(body)):
                    self.wfile.write(body[at : at + 1])
                    self.wfile.flush()
                    if mirror.stopped.wait(0.02):
                        return
            elif mirror.manner == "endless":
                while not mirror.stopped.is_set():
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(body), bytes(len(body))))
            else:
                self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no log."""


@contextlib.contextmanager
def mirroring(folder: Path) -> Iterator[Mirror]:
    """Serve a mirror on loopback while the block runs."""
    mirror = Mirror(folder)
    handler = type("Handler", (_Handler,), {"mirror": mirror})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        mirror.address = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield mirror
        finally:
            mirror.stopped.set()
            server.shutdown()
            thread.join(10)
