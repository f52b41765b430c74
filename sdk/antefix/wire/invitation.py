"""The code by which a person comes in: once, and only to the server that gave it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Self

from antefix.common.deprecation import FormerAttribute
from antefix.crypto.code32 import decode_secret, encode_secret
from antefix.errors import InvalidArgument
from antefix.keys.device_keys import DeviceKeys, DevicePublic

_WHAT = "an invitation"
_HALF = 16


@dataclass(frozen=True)
class Invitation:
    """A secret that is good for one device, and the server it is for. Private until it is used.

    Attributes:
        secret: 16 random bytes.
        server: `server_id` of the server's release key. The device pins that key by it, before it believes
            anything that the server says.
    """

    secret: bytes = field(repr=False)
    server: bytes

    mark = FormerAttribute("lookup_id")
    proves = FormerAttribute("verify_proof")

    def __post_init__(self) -> None:
        """Refuse other sizes."""
        if len(self.secret) != _HALF or len(self.server) != _HALF:
            raise InvalidArgument(
                f"an invitation of {len(self.secret)} and {len(self.server)} bytes", "16 each"
            )

    @classmethod
    def fresh(cls, server: bytes) -> Self:
        """A new one of a server."""
        return cls(os.urandom(_HALF), server)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what a person typed.

        Raises:
            InvalidArgument: mistyped; it is not repeated.
        """
        content = decode_secret(text, _WHAT, "copy it as you were given it")
        return cls(content[:_HALF], content[_HALF:])

    def text(self) -> str:
        """Fourteen groups of four letters and digits."""
        return encode_secret(self.secret + self.server, _WHAT)

    @property
    def lookup_id(self) -> bytes:
        """What the server looks it up by, 32 bytes; the code cannot be made of it."""
        return hashlib.sha256(b"antefix/v1/invitation mark\0" + self.secret).digest()

    @property
    def key(self) -> bytes:
        """Seals what the server keeps with it, 32 bytes."""
        return hashlib.sha256(b"antefix/v1/invitation key\0" + self.secret).digest()

    def proof(self, device: DeviceKeys) -> bytes:
        """Signature of the device that enrols: it has the keys that it names, and means this server."""
        return device.sign(self._message(device.public))

    def verify_proof(self, device: DevicePublic, proof: bytes) -> bool:
        """Whether a proof is that device's."""
        from cryptography.exceptions import InvalidSignature

        try:
            device.signing.verify(proof, self._message(device))
        except InvalidSignature:
            return False
        return True

    def _message(self, device: DevicePublic) -> bytes:
        keys = hashlib.sha256(device.kem_bytes + device.signing_bytes).digest()
        return b"antefix/v1/enrol\0" + self.secret + self.server + keys


def server_id(release_key: bytes) -> bytes:
    """16 bytes that stand for a server: a digest of its release key (32 bytes, Ed25519)."""
    return hashlib.sha256(b"antefix/v1/server\0" + release_key).digest()[:_HALF]
