"""Answers that no server of Antefix gives, and addresses that are none: two lines, no traceback."""

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from antefix.wire import Invitation, NodeKey
from antefix_client.errors import ServerNotTrusted, ServerRefused, ServerUnreachable
from antefix_client.remote import grants
from antefix_client.remote.api_client import ApiClient, _require_clock, fetch_server_keys
from tests.client.release_server import PHONE

CODE = Invitation(bytes(16), bytes(16))
NODE = ec.generate_private_key(ec.SECP384R1())
ODD = [
    b"",
    b"<html>Login</html>",
    b"[]",
    b"null",
    b"{}",
    b"[" * 100_000,
    b"\xff",
    b'{"node": "x", "revoked": "x"}',
]


def answering(content: bytes, status: int = 200) -> ApiClient:
    remote = ApiClient("https://example.org", "")
    transport = httpx.MockTransport(lambda _: httpx.Response(status, stream=httpx.ByteStream(content)))
    remote.http = httpx.Client(base_url="https://example.org", transport=transport)
    return remote


@pytest.mark.parametrize("content", ODD, ids=range(len(ODD)))
def test_a_proxy_that_answers_for_the_server(content: bytes) -> None:
    with answering(content) as remote:
        with pytest.raises(ServerRefused, match="not understood"):
            remote.register_node(NodeKey.proved(NODE, PHONE.id))
        with pytest.raises(ServerRefused, match="not understood"):
            grants.revoke_all(remote)
    with answering(content, 500) as remote, pytest.raises(ServerRefused, match="status 500"):
        remote.request("GET", "/health")


@pytest.mark.parametrize(
    "url",
    [
        "https://[::1",
        "https://[x]",
        "https://a\u2100b",
        "example.org",
        "",
        "https://",
        "https://a..b",
        "https://\0",
    ],
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ServerUnreachable):
        fetch_server_keys(url, CODE)


def test_a_certificate_that_is_none() -> None:
    for authority in ("\u00fc", "none", "\0"):
        with pytest.raises(ServerNotTrusted, match="is no certificate"):
            ApiClient("https://example.org", authority)


def test_a_date_of_no_zone_is_universal_time_and_one_that_is_none_says_nothing() -> None:
    with pytest.raises(ServerRefused, match="ahead of"):
        _require_clock(httpx.Response(200, headers={"Date": "Tue, 04 Jan 2000 10:00:00 -0000"}))
    for date in ("", "soon", "Tue, 99 Jan 2000 10:00:00 GMT", "Tue, 04 Jan 2000 10:00:00 +9999"):
        _require_clock(httpx.Response(200, headers={"Date": date}))
