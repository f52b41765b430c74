"""Clients that send a byte now and then (slow-loris) are let go; others are answered meanwhile."""

import socket
import ssl
import time
from pathlib import Path

import httpx
import pytest

from antefix.http import timeouts
from antefix.keys import DeviceKeys
from antefix_server.gateway import Limits, application
from antefix_server.http import tls
from antefix_server.registry import Registry
from tests.support.loopback import serving
from tests.support.records import some_bytes
from tests.support.server.gateway import enrolled
from tests.support.vaults import new_vault

pytestmark = pytest.mark.slow


def opened(url: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    host, port = url.removeprefix("https://").split(":")
    return context.wrap_socket(socket.create_connection((host, int(port)), 10), server_hostname=host)


def is_closed(one: ssl.SSLSocket, seconds: float) -> bool:
    one.settimeout(seconds)
    try:
        while one.recv(4096):
            pass
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


def test_half_a_request_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "HEADERS_S", 1.0)
    with new_vault(tmp_path / "vault") as vault:
        certificate = tls.own(vault.folder, [])
        context = ssl.create_default_context(cafile=str(certificate.authority))
        with serving(application(vault), certificate=certificate) as url:
            slow = [opened(url, context) for _ in range(40)]
            for one in slow[:20]:
                one.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")  # the other half sends nothing
            begun = time.monotonic()
            while time.monotonic() - begun < 0.8:
                for one in slow[:10]:
                    one.sendall(b"X: y\r\n")
                assert httpx.get(f"{url}/health", verify=context).status_code == 200
                time.sleep(0.1)
            assert all(is_closed(one, 3) for one in slow)
            for one in slow:
                one.close()


def test_a_body_that_does_not_come_is_let_go(tmp_path: Path) -> None:
    with new_vault(tmp_path / "vault") as vault:
        certificate = tls.own(vault.folder, [])
        context = ssl.create_default_context(cafile=str(certificate.authority))
        authority = Path(str(certificate.authority)).read_text()
        made = application(vault, Limits(body_s=0.5), authority=authority)
        with serving(made, certificate=certificate) as url:
            code = Registry(vault).add("ann").invitation
            token = enrolled(url, code, DeviceKeys(some_bytes("phone", 64))).token
            with opened(url, context) as one:
                head = f"PUT /v1/records/{'0' * 32} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
                one.sendall(f"{head}Content-Length: 5000\r\n\r\nabc".encode())
                one.settimeout(5)
                assert b"408" in one.recv(200)


def test_a_connection_is_not_kept_for_a_next_request_that_does_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "HEADERS_S", 0.5)
    with new_vault(tmp_path / "vault") as vault:
        certificate = tls.own(vault.folder, [])
        context = ssl.create_default_context(cafile=str(certificate.authority))
        with serving(application(vault), certificate=certificate) as url, opened(url, context) as one:
            one.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            one.settimeout(5)
            assert b"200" in one.recv(4096)
            one.sendall(b"GET /health HTTP/1.1\r\n")
            time.sleep(0.2)
            one.sendall(b"Host: x\r\n")
            assert is_closed(one, 3)


@pytest.mark.parametrize("path", ["/v1/enrol", "/v1/node"])
def test_bodies_without_a_token_are_bounded_too(path: str, tmp_path: Path) -> None:
    """A framework would read them whole before it asks who sends them."""
    method = "POST" if path == "/v1/enrol" else "PUT"
    with new_vault(tmp_path / "vault") as vault:
        certificate = tls.own(vault.folder, [])
        context = ssl.create_default_context(cafile=str(certificate.authority))
        with serving(application(vault, Limits(body_s=1.0)), certificate=certificate) as url:
            for headers, said in (
                ("Transfer-Encoding: chunked\r\n", b"411"),
                ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"400"),
                ("Content-Length: 99999999\r\n", b"413"),
                ("Content-Length: 1000\r\n", b"400"),  # it never comes
            ):
                with opened(url, context) as one:
                    kind = "Content-Type: application/json"
                    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{kind}\r\n{headers}\r\n"
                    one.sendall(head.encode() + b"abc")
                    one.settimeout(5)
                    begun = time.monotonic()
                    assert said in one.recv(4096).split(b"\r\n")[0]
                    assert time.monotonic() - begun < 3
