"""Programs without a token that hold connections to the service: it lets them go, and answers its owner."""

import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from antefix.http import timeouts
from antefix_client import PersonalModel
from antefix_client.service import listener
from antefix_client.service.app import Service
from tests.client.people import KEY
from tests.support import tiny_models

TOKEN = "a token"


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The service as the command sets it up, on loopback, with less patience and fewer connections."""
    monkeypatch.setattr(timeouts, "HEADERS_S", 1.5)
    monkeypatch.setattr(listener, "_MAX_CONNECTIONS", 10)
    with (
        PersonalModel.create(tmp_path / "profile", unlock=KEY, base=tiny_models.base("llama")) as model,
        socket.socket() as listening,
    ):
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(listener.listener_config(Service(model).application(TOKEN)))
        server.config.log_level = "critical"
        server.config.configure_logging()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(20)


@pytest.mark.slow
def test_half_requests_are_let_go(port: int) -> None:
    held = []
    for _ in range(30):
        one = socket.create_connection(("127.0.0.1", port), timeout=5)
        one.sendall(b"GET /health HTTP/1.1\r\nHost: ")
        held.append(one)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as owner:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert owner.get("/health", headers=headers).status_code == 503  # at once, not after a wait
        for one in held:
            assert one.recv(1) == b""  # the service has closed it
            one.close()
        assert owner.get("/health", headers=headers).status_code == 200


def test_few_files_allow_few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, most in ((256, 192), (10**6, 200), (64, 8)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        assert listener.listener_config(lambda *_: None).limit_concurrency == most  # type: ignore[arg-type]
