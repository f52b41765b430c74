"""A server for tests of devices: the real gateway over TLS, its vault in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from antefix.keys import DeviceKeys
from antefix.wire import Enrol, Enrolled, Invitation
from antefix_client._remote import Remote, keys_of
from antefix_server import _tls
from antefix_server.gateway import application
from antefix_server.registry import Registry
from antefix_server.vault import Vault
from tests.loopback import serving
from tests.vaults import new_vault


@dataclass
class Server:
    """One that runs.

    Attributes:
        url: of the gateway.
        vault: behind it.
        registry: of its users.
    """

    url: str
    vault: Vault
    registry: Registry

    def invited(self, name: str) -> str:
        """A code for a device of a user, who is added if need be."""
        if any(user.name == name for user in self.registry.users()):
            return self.registry.invite(name).text()
        return self.registry.add(name).invitation.text()


@contextmanager
def server(folder: Path, *, public: bool = False) -> Iterator[Server]:
    """A new one, while the block runs; a public one does not say who signed its certificate."""
    with new_vault(folder) as vault:
        certificate = _tls.own(folder, [])
        assert certificate.authority is not None
        authority = "" if public else certificate.authority.read_text()
        made = application(vault, authority=authority, names=_tls.names_of(certificate) if public else ())
        with serving(made, certificate=certificate) as url:
            yield Server(url, vault, Registry(vault))


def enrolled(url: str, code: Invitation, keys: DeviceKeys) -> Enrolled:
    """Enrol a device that is nothing but its keys."""
    asked = Enrol(
        invitation=code.text(),
        kem=keys.public.kem_bytes.hex(),
        signing=keys.public.signing_bytes.hex(),
        proof=code.proof(keys).hex(),
    )
    with remote(url, code, None) as device:
        return device.enrol(asked)


def remote(url: str, code: Invitation, token: str | None) -> Remote:
    """The server as a device sees it."""
    return Remote(url, keys_of(url, code).authority, token)
