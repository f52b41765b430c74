"""A server that sends without end, packed, or a byte now and then holds neither memory nor the device."""

import gzip
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from antefix_client.errors import ServerRefused, ServerUnreachable
from antefix_client.remote import api_client
from antefix_client.remote.api_client import ApiClient


def remote(answer: Callable[[], httpx.Response]) -> ApiClient:
    made = ApiClient("https://example.org", "")
    made.http.close()
    made.http = httpx.Client(
        base_url="https://example.org", transport=httpx.MockTransport(lambda request: answer())
    )
    return made


def without_end(piece: bytes, pause: float = 0) -> Iterator[bytes]:
    for _ in range(100_000):
        yield piece
        time.sleep(pause)


def test_an_answer_without_end() -> None:
    with remote(lambda: httpx.Response(200, content=without_end(bytes(2**16)))) as server:
        with pytest.raises(ServerRefused, match="sends more than 1,048,576 bytes"):
            server.request("GET", "/v1/release")
        with pytest.raises(ServerRefused, match="sends more than"):
            server.request("GET", "/v1/release", also=(404,), max_bytes=10)


def test_an_answer_that_unpacks_to_gigabytes() -> None:
    packed = gzip.compress(bytes(2**24))
    with (
        remote(lambda: httpx.Response(200, content=packed, headers={"Content-Encoding": "gzip"})) as server,
        pytest.raises(ServerRefused, match="packs what it sends"),
    ):
        server.request("GET", "/v1/release")


def test_an_answer_that_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_client, "_WAIT_S", 0.2)
    with (
        remote(lambda: httpx.Response(200, content=without_end(b"x", 0.05))) as server,
        pytest.raises(ServerUnreachable, match="the server sent"),
    ):
        server.request("GET", "/v1/release")
