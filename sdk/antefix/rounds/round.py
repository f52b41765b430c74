"""A round: what a server signs about it, and the key that updates are sealed to."""

from __future__ import annotations

import os
from typing import Annotated, ClassVar

from cryptography.exceptions import InvalidTag
from pydantic import Field

from antefix.crypto import hpke
from antefix.crypto.aead import SecretBytes
from antefix.errors import UpdateRefused
from antefix.wire.signed import Digest, Id, Number, Size, Statement

Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


class Round(Statement):
    """What devices are asked to do, signed with the server's release key.

    Attributes:
        tenant: id of the server's vault.
        id: 16 random bytes; never used twice.
        release: digest of the release whose shared prefix is improved.
        number: of the round in its run.
        key: updates are sealed to it, X-Wing, 1,216 bytes.
        clip: largest L2 norm of an update.
        steps: optimizer steps on the device.
        learning_rate: of the first step; it falls linearly.
        projection: numbers of an update (`Projection`); 0 for all.
        until: seconds since 1970.
    """

    label: ClassVar[bytes] = b"antefix/v1/round\0"

    tenant: Id
    id: Id
    release: Digest
    number: Number
    key: Annotated[str, Field(pattern="^[0-9a-f]{2432}$")]
    clip: Positive
    steps: Annotated[int, Field(ge=1, le=1000)]
    learning_rate: Positive
    projection: Annotated[int, Field(ge=0, le=2**31)] = 0
    until: Size

    def bound(self, node: int) -> bytes:
        """What an update is bound to: this server, this round, this release, the node that sends it."""
        ids = bytes.fromhex(self.tenant + self.id + self.release)
        return b"antefix/v1/update\0" + ids + node.to_bytes(8, "big")


class RoundKey:
    """Opens the updates of one round. In memory alone: who loses it repeats the round."""

    def __init__(self) -> None:
        """A fresh one."""
        with SecretBytes.random(hpke.SEED) as seed:
            self._private, self.public = hpke.private_key(bytes(seed.data))
        self.id = os.urandom(16)

    def open(self, sealed: bytes, bound: bytes) -> SecretBytes:
        """What was sealed for this round.

        Raises:
            UpdateRefused: for another round or node, or damaged.
        """
        try:
            return SecretBytes.take(hpke.SUITE.decrypt(sealed, self._private, info=bound))
        except (InvalidTag, ValueError):
            raise UpdateRefused("it does not open") from None

    def __repr__(self) -> str:
        """Its round."""
        return f"RoundKey({self.id.hex()})"
