"""A server for tests of devices: the real gateway over TLS, with its vault in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from antefix import FrozenBase
from antefix.keys import DeviceKeys
from antefix.wire import Enrol, Enrolled, Invitation
from antefix_client.remote.api_client import ApiClient, fetch_server_keys
from antefix_server.engine.core import Engine
from antefix_server.engine.interface import Hosting
from antefix_server.gateway import application
from antefix_server.grants import Grants
from antefix_server.grants.epochs import Epochs
from antefix_server.http import tls
from antefix_server.registry import Registry
from antefix_server.vault import Vault
from tests.support.loopback import serving
from tests.support.vaults import new_vault


@dataclass
class Server:
    """A server that runs.

    Attributes:
        url: address of the gateway.
        vault: its records.
        registry: its users and devices.
        hosting: an engine with its grants and epochs, or None.
    """

    url: str
    vault: Vault
    registry: Registry
    hosting: Hosting | None = None

    def invited(self, name: str) -> str:
        """Return an invitation for a device of this user; add the user if the registry has none."""
        if any(user.name == name for user in self.registry.users()):
            return self.registry.invite(name).text()
        return self.registry.add(name).invitation.text()


@contextmanager
def server(folder: Path, *, public: bool = False, base: FrozenBase | None = None) -> Iterator[Server]:
    """Run a new server while the block runs.

    Args:
        folder: of its vault.
        public: invitations do not name the authority that signed the certificate.
        base: a server with a base generates under granted prefixes.
    """
    with new_vault(folder) as vault, _hosting(vault, base) as hosted:
        certificate = tls.own(folder, [])
        assert certificate.authority is not None
        authority = "" if public else certificate.authority.read_text()
        names = tls.names_of(certificate) if public else ()
        gateway = application(vault, authority=authority, names=names, hosting=hosted)
        with serving(gateway, certificate=certificate) as url:
            yield Server(url, vault, Registry(vault), hosted)


@contextmanager
def _hosting(vault: Vault, base: FrozenBase | None) -> Iterator[Hosting | None]:
    if base is None:
        yield None
        return
    epochs = Epochs(vault.folder)
    grants = Grants(vault, epochs)
    with Engine(base, grants) as engine:
        yield Hosting(engine, grants, epochs)


def enrolled(url: str, code: Invitation, keys: DeviceKeys) -> Enrolled:
    """Enrol a device that has keys and nothing else."""
    request = Enrol(
        invitation=code.text(),
        kem=keys.public.kem_bytes.hex(),
        signing=keys.public.signing_bytes.hex(),
        proof=code.proof(keys).hex(),
    )
    with remote(url, code, None) as device:
        return device.enrol(request)


def remote(url: str, code: Invitation, token: str | None) -> ApiClient:
    """Open a connection as a device does."""
    return ApiClient(url, fetch_server_keys(url, code).authority, token)
