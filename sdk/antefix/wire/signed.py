"""Statements of a server: JSON in one canonical form, signed, read as if an attacker had written it."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, ClassVar, Self, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from antefix.errors import ReleaseRefused

MAX_BYTES = 2**20
"""Of the body of a statement."""
MAX_NUMBER = 2**53 - 1  # every JSON reader can hold it
_Model = TypeVar("_Model", bound=BaseModel)

Id = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Number = Annotated[int, Field(ge=1, le=MAX_NUMBER)]
Size = Annotated[int, Field(ge=0, le=MAX_NUMBER)]


class StrictModel(BaseModel):
    """Unknown fields are refused, nothing is converted, and nothing that was sent is repeated in an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Signed(StrictModel):
    """A release or an announcement as it travels; worth nothing before `verified`.

    Attributes:
        body: canonical JSON.
        signature: Ed25519, in hex, over a label and the body.
    """

    body: Annotated[str, Field(max_length=MAX_BYTES)]
    signature: Annotated[str, Field(pattern="^[0-9a-f]{128}$")]

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read one from anyone; nothing is verified.

        Raises:
            ReleaseRefused: too large, or not in the format.
        """
        return parse_model(cls, content, 2 * MAX_BYTES)

    def to_bytes(self) -> bytes:
        """JSON."""
        return self.model_dump_json().encode()


class Statement(StrictModel):
    """What a server signs."""

    label: ClassVar[bytes]

    def to_bytes(self) -> bytes:
        """Canonical JSON: every field, sorted keys, no blanks, ASCII."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, in hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def signed(self, key: Ed25519PrivateKey) -> Signed:
        """With a server's signature.

        Raises:
            ReleaseRefused: more bytes than any device reads.
        """
        body = self.to_bytes()
        if len(body) > MAX_BYTES:
            raise ReleaseRefused(f"it has {len(body):,} bytes, {MAX_BYTES:,} are allowed")
        return Signed(body=body.decode(), signature=key.sign(self.label + body).hex())

    @classmethod
    def verified(cls, signed: Signed, key: bytes) -> Self:
        """What a server signed.

        Args:
            signed: from anyone.
            key: the server's release key, 32 bytes, known from an invitation.

        Raises:
            ReleaseRefused: another key, another kind of statement, or not in the one form of its content.
        """
        try:
            body = signed.body.encode()
            Ed25519PublicKey.from_public_bytes(key).verify(bytes.fromhex(signed.signature), cls.label + body)
        except (InvalidSignature, UnicodeEncodeError):
            raise ReleaseRefused("it is not signed by this server") from None
        statement = parse_model(cls, body, MAX_BYTES)
        if statement.to_bytes() != body:  # two readers must not see two releases in one
            raise ReleaseRefused("it is not in canonical form")
        return statement


def parse_model(kind: type[_Model], content: bytes, max_bytes: int) -> _Model:
    """A model from JSON that anyone may have written.

    Raises:
        ReleaseRefused: too large, or not in the format; says where, not what.
    """
    if len(content) > max_bytes:
        raise ReleaseRefused(f"it has {len(content):,} bytes, {max_bytes:,} are allowed")
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ReleaseRefused(f"{where}: {first['type']}") from None
