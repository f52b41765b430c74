"""Somebody with a host of its own, and a good certificate for it, passes on what the server says."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from antefix.wire import Invitation, ServerKeys, server_id
from antefix_client.errors import ServerNotTrusted
from antefix_client.remote.api_client import fetch_server_keys
from antefix_server.gateway import application
from antefix_server.http import tls
from antefix_server.registry import Registry
from tests.support.loopback import serving
from tests.support.vaults import new_vault

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.mark.slow
def test_the_code_goes_to_no_host_that_the_server_is_not_called(tmp_path: Path) -> None:
    with new_vault(tmp_path / "vault") as vault:
        certificate = tls.own(vault.folder, [])
        code = Registry(vault).add("ann").invitation
        passed_on = application(vault, names=["antefix.example.org"])
        with (
            serving(passed_on, certificate=certificate) as url,
            pytest.raises(ServerNotTrusted, match=r"is not called '127\.0\.0\.1', but antefix\.example\.org"),
        ):
            fetch_server_keys(url, Invitation.parse(code.text()))
        with serving(application(vault, names=tls.names_of(certificate)), certificate=certificate) as url:
            assert fetch_server_keys(url, Invitation.parse(code.text())).names == ("localhost", "127.0.0.1")


def test_names_are_signed_and_a_star_is_one_label() -> None:
    keys = ServerKeys.signed(KEY, tenant=bytes(16), log_key="k", authority="", names=["*.example.org"])
    assert keys.are_for("a.EXAMPLE.org")
    assert not keys.are_for("example.org")
    assert not keys.are_for("a.b.example.org")
    assert not keys.are_for("example.org.evil.net")
    changed = keys.model_copy(update={"names": ("evil.net",)})
    server = server_id(bytes.fromhex(keys.release_key))
    assert keys.are_of(server)
    assert not changed.are_of(server)
