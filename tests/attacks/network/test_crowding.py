"""One address that opens connections without end leaves room for others, and so does a slow reader."""

import socket
import ssl
import time
from pathlib import Path

import httpx
import psutil
import pytest

from antefix.keys import DeviceKeys
from antefix.wire import Invitation
from antefix_server.gateway import application
from antefix_server.http import listener, tls
from antefix_server.http.connection_limits import per_address_limit
from antefix_server.registry import Registry
from tests.attacks.network.test_slow_client import is_closed, opened
from tests.support.loopback import serving
from tests.support.records import some_bytes
from tests.support.server.gateway import enrolled
from tests.support.server.processes import command, part, up
from tests.support.vaults import Person, new_vault

PHONE = DeviceKeys(some_bytes("phone", 64))


@pytest.mark.slow
def test_an_address_has_so_many_connections(tmp_path: Path) -> None:
    with new_vault(tmp_path / "vault") as vault:
        certificate = tls.own(vault.folder, [])
        context = ssl.create_default_context(cafile=str(certificate.authority))
        with serving(application(vault), certificate=certificate, protocol=per_address_limit(5)) as url:
            held = [opened(url, context) for _ in range(5)]
            with opened(url, context) as one_more:
                assert is_closed(one_more, 3)
            held.pop().close()
            time.sleep(0.2)
            assert httpx.get(f"{url}/health", verify=context).status_code == 200
            for one in held:
                assert not is_closed(one, 0.01)
                one.close()


def test_who_says_to_come_from_elsewhere_is_not_believed(tmp_path: Path) -> None:
    """Enrolments are counted by address; a proxy's header would give everybody a thousand of them."""
    assert listener._COMMON["proxy_headers"] is False


@pytest.mark.slow
def test_connections_without_a_handshake_are_let_go(tmp_path: Path) -> None:
    data = tmp_path / "data"
    command(data, "init", data)
    with up(data, "--no-rounds") as (url, supervisor):
        gateway = part(supervisor, "gateway.process")
        soft, hard = gateway.rlimit(psutil.RLIMIT_NOFILE)
        assert soft == hard
        host, port = url.removeprefix("https://").split(":")
        silent = [socket.create_connection((host, int(port)), 10) for _ in range(60)]
        assert httpx.get(f"{url}/health", verify=False, timeout=5).status_code == 200
        time.sleep(listener._HANDSHAKE_S + 1)
        for one in silent:
            one.settimeout(2)
            assert one.recv(1) == b""
            one.close()


@pytest.mark.slow
def test_slow_readers_hold_no_records(tmp_path: Path) -> None:
    """Forty downloads of 16 MB that nobody reads take far less memory than 640 MB."""
    with new_vault(tmp_path / "vault") as vault:
        certificate = tls.own(vault.folder, [])
        context = ssl.create_default_context(cafile=str(certificate.authority))
        authority = Path(str(certificate.authority)).read_text()
        with serving(application(vault, authority=authority), certificate=certificate) as url:
            code: Invitation = Registry(vault).add("ann").invitation
            said = enrolled(url, code, PHONE)
            person = Person.with_id(vault.tenant, bytes.fromhex(said.user), "ann")
            person.put(vault, some_bytes("large", 2**24))
            before = psutil.Process().memory_info().rss
            head = f"GET /v1/records/{person.prefix.hex()} HTTP/1.1\r\nHost: x\r\n"
            slow = [opened(url, context) for _ in range(40)]
            for one in slow:
                one.sendall(f"{head}Authorization: Bearer {said.token}\r\n\r\n".encode())
            time.sleep(3)
            grown = psutil.Process().memory_info().rss - before
            for one in slow:
                one.close()
    assert grown < 400 * 2**20
