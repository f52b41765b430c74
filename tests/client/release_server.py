"""A server with a release, and a device that has enrolled with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from antefix.keys import DeviceKeys
from antefix.wire import ReleaseState
from antefix_client.remote.download import SourceLimits
from antefix_server.gateway import application
from antefix_server.registry import Registry
from antefix_server.releases import Releases
from antefix_server.vault import Vault
from tests.support.loopback import serving
from tests.support.records import some_bytes
from tests.support.vaults import new_vault

PHONE = DeviceKeys(some_bytes("phone", 64))
SHORT = SourceLimits(wait_s=1.0, least_rate=1e5)
LONG = SourceLimits(wait_s=20.0)


@dataclass
class Home:
    """The server, and what its device knows.

    Attributes:
        http: with the device's token.
        key: the release key that the invitation named.
        folder: where the device keeps files.
    """

    vault: Vault
    releases: Releases
    http: httpx.Client
    key: bytes
    seen: ReleaseState
    folder: Path

    def stored(self, digest: str) -> Path:
        """A file of the server's, to damage."""
        return self.vault.folder / "releases" / "files" / digest


@contextmanager
def at_home(folder: Path) -> Iterator[Home]:
    """Both, while the block runs."""
    with new_vault(folder / "vault", None, folder / "mirror.db") as vault:
        registry = Registry(vault)
        invitation = registry.add("ann").invitation
        token = registry.enrol(invitation, PHONE.public, invitation.proof(PHONE), "phone").token
        headers = {"Authorization": f"Bearer {token}"}
        key = vault.identity.releasing.public_key().public_bytes_raw()
        with (
            serving(application(vault)) as address,
            httpx.Client(base_url=address, headers=headers) as http,
        ):
            seen = ReleaseState(tenant=vault.tenant.hex())
            yield Home(vault, Releases(vault), http, key, seen, folder / "device")
