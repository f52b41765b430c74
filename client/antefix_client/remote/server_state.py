"""What a profile knows of its server, in the sealed file `server`."""

from __future__ import annotations

from typing import Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from antefix.wire import ReleaseState
from antefix_client.errors import NotJoined, ProfileDamaged
from antefix_client.profile.encrypted_files import EncryptedFiles

NAME = "server"


class AutoGrant(BaseModel):
    """That the user wants versions granted anew; kept because it was asked for, and gone when it was revoked.

    Attributes:
        seconds: of each grant, at most.
        revocations: what the server counted when it was asked for; another number ends it.
        version, record: number and digest of the version that was granted last.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    seconds: int
    revocations: int
    version: int
    record: str


class ServerState(BaseModel):
    """A profile's place on a server. Private.

    Attributes:
        url: of the server.
        authority: certificate of who signed the server's, PEM; empty for those that the system knows.
        release_key, log_key: as in `antefix.wire.ServerKeys`, pinned with the invitation.
        tenant, user: 32 hex digits each.
        token: opens the server to this device.
        rounds: the user wants to take part.
        node_key: private key of the device's node, PEM.
        known: tag of the record that is here already.
        refused: the server did not know this device the last time.
        seen: what is known of the server's releases; None for nothing yet.
        release: the one in use, JSON; None for none.
        last_round: version of the release that the last round improved; 0 for none.
        keeping: new versions are granted too; None for no.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str
    authority: str
    release_key: str
    log_key: str
    tenant: str
    user: str
    token: str = Field(repr=False)
    rounds: bool = False
    node_key: str = Field(default="", repr=False)
    known: str | None = None
    refused: bool = False
    seen: ReleaseState | None = None
    release: str | None = None
    last_round: int = 0
    keeping: AutoGrant | None = None

    @classmethod
    def read(cls, sealed: EncryptedFiles) -> Self:
        """That of a profile.

        Raises:
            NotJoined: it is on no server.
            ProfileDamaged: the file does not open.
        """
        stored = sealed.read(NAME)
        if stored is None:
            raise NotJoined
        with stored:
            try:
                return cls.model_validate_json(bytes(stored.data))
            except ValidationError:
                raise ProfileDamaged(
                    f"{sealed.folder / NAME} is damaged", "antefix leave, then join again"
                ) from None

    def write(self, sealed: EncryptedFiles) -> None:
        """Keep it."""
        sealed.write(NAME, self.model_dump_json().encode())

    @property
    def node(self) -> ec.EllipticCurvePrivateKey:
        """Key of the device's node, once `with_fresh_node` has made it.

        Raises:
            ValueError: there is none.
        """
        return load_node_key(self.node_key)

    def with_fresh_node(self) -> Self:
        """With a key that was never used: Flower takes none a second time."""
        key = ec.generate_private_key(ec.SECP384R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return self.model_copy(update={"node_key": pem})


def load_node_key(pem: str) -> ec.EllipticCurvePrivateKey:
    """Key of a node, as it is kept.

    Raises:
        ValueError: it is none.
    """
    key = load_pem_private_key(pem.encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the node's key is of another kind")
    return key
