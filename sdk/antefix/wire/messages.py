"""Bodies of requests and answers, as JSON. Bytes are written in hex."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from pydantic import BaseModel, ConfigDict, Field

from antefix.wire.invitation import server_id

_Id = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class _Message(BaseModel):
    """Unknown fields are refused, and nothing that was sent is repeated in an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ServerKeys(_Message):
    """What a server is known by; public, and worth nothing until it is compared with an invitation.

    Attributes:
        tenant: id of its vault.
        release_key: Ed25519, signs releases.
        log_key: one line, verifies receipts.
        authority: certificate of who signed the server's for TLS, PEM; empty where every machine knows it.
        names: by which devices may call it where every machine knows its certificate; `*` for one label.
        signature: by the release key, over all of the above.
    """

    tenant: _Id
    release_key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    log_key: Annotated[str, Field(max_length=400)]
    authority: Annotated[str, Field(max_length=10_000)] = ""
    names: Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(max_length=100)] = ()
    signature: Annotated[str, Field(pattern="^[0-9a-f]{128}$")]

    @classmethod
    def signed(
        cls, key: Ed25519PrivateKey, *, tenant: bytes, log_key: str, authority: str, names: Sequence[str] = ()
    ) -> Self:
        """Those of the server that has the release key."""
        release_key = key.public_key().public_bytes_raw()
        signature = key.sign(_server_keys(tenant.hex(), release_key.hex(), log_key, authority, *names))
        return cls(
            tenant=tenant.hex(),
            release_key=release_key.hex(),
            log_key=log_key,
            authority=authority,
            names=tuple(names),
            signature=signature.hex(),
        )

    def are_of(self, server: bytes) -> bool:
        """Whether they are of the server that an invitation names, and nobody changed them."""
        release_key = bytes.fromhex(self.release_key)
        if server_id(release_key) != server:
            return False
        message = _server_keys(self.tenant, self.release_key, self.log_key, self.authority, *self.names)
        try:
            Ed25519PublicKey.from_public_bytes(release_key).verify(bytes.fromhex(self.signature), message)
        except InvalidSignature:
            return False
        return True

    def are_for(self, host: str) -> bool:
        """Whether a device that calls this host talks to the server itself.

        Somebody in between has a host of its own, for which every machine may well know a certificate, and
        passes on what the server says. An authority of the server's own signs no such certificate.
        """
        label = "*." + host.lower().partition(".")[2]
        return bool(self.authority) or any(name.lower() in (host.lower(), label) for name in self.names)


class Enrol(_Message):
    """A device asks to be let in.

    Attributes:
        invitation: the code. Private.
        kem: public key for sealing to the device, 1,216 bytes.
        signing: Ed25519, 32 bytes.
        proof: `Invitation.proof`, 64 bytes.
        name: what the user calls the device.
    """

    invitation: Annotated[str, Field(max_length=200, repr=False)]
    kem: Annotated[str, Field(pattern="^[0-9a-f]{2432}$")]
    signing: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    proof: Annotated[str, Field(pattern="^[0-9a-f]{128}$")]
    name: Annotated[str, Field(max_length=200)] = ""


class Enrolled(_Message):
    """A device is let in.

    Attributes:
        tenant, user: its user's ids on this server.
        token: goes with every request from now on. Private.
    """

    tenant: _Id
    user: _Id
    token: Annotated[str, Field(max_length=200, repr=False)]


class NodeKey(_Message):
    """A device says by which key it takes part in rounds.

    Attributes:
        key: public, P-384, PEM as Flower writes it.
        proof: signature by it: who asks has the private one, and means this device.
    """

    key: Annotated[str, Field(max_length=400)]
    proof: Annotated[str, Field(pattern="^([0-9a-f]{2}){1,128}$")]

    @classmethod
    def proved(cls, key: ec.EllipticCurvePrivateKey, device: bytes) -> Self:
        """Of a device, 16 bytes."""
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        proof = key.sign(_node(device, pem), ec.ECDSA(SHA256()))
        return cls(key=pem.decode(), proof=proof.hex())

    def is_of(self, device: bytes) -> bool:
        """Whether the proof is good for that device, and the key one that Flower takes."""
        pem = self.key.encode()
        try:
            key = load_pem_public_key(pem)
            if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
                return False
            if key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) != pem:
                return False  # one key must not have two spellings
            key.verify(bytes.fromhex(self.proof), _node(device, pem), ec.ECDSA(SHA256()))
        except (ValueError, InvalidSignature):
            return False
        return True


def _server_keys(*parts: str) -> bytes:
    return b"antefix/v1/server keys\0" + json.dumps(parts).encode()


def _node(device: bytes, pem: bytes) -> bytes:
    return b"antefix/v1/node\0" + device + pem
