"""The server's own socket, as commands ask over it."""

import socket
import threading
from pathlib import Path

import pytest

from antefix_server.admin import admin_socket
from antefix_server.errors import ServerRefused


def _answer(listening: socket.socket, content: bytes) -> None:
    asked, _ = listening.accept()
    with asked:
        asked.recv(65536)
        asked.sendall(content)


@pytest.mark.parametrize("body", [b"Internal Server Error", b"[]", b"{}", b'"text"', b"\xff"])
@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_that_is_none_of_ours_is_told(body: bytes, status: int, tmp_path: Path) -> None:
    """What a server says of an error that nobody thought of: plain text, with 500."""
    content = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )
    with admin_socket.listening(tmp_path) as listening:
        threading.Thread(target=_answer, args=(listening, content), daemon=True).start()
        with pytest.raises(ServerRefused, match=f"failed at 'status' .status {status}") as refused:
            admin_socket.ask(tmp_path, "status", {})
    assert refused.value.hint == "see its log"
