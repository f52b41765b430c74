"""An update of the shared prefix: what one device sends in a round, sealed and signed.

sealed to the round key (HPKE, info = Round.bound(node)):
    examples    4 bytes   texts it was trained on
    count       4 bytes   of numbers
    loss        8 bytes   nats per token before training, float64; NaN where it is not told
    numbers     4·count   float32, little-endian
    signature   64 bytes  Ed25519 of the device over label, Round.bound(node), and all of the above
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray

from antefix.crypto import hpke
from antefix.errors import UpdateRefused
from antefix.keys.device_keys import DeviceKeys
from antefix.rounds.round import Round, RoundKey

Vector = NDArray[np.float32]
_HEAD = struct.Struct(">IId")
_LABEL = b"antefix/v1/signed update\0"
_SIGNATURE = 64
_MOST_EXAMPLES = 10**7
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Update:
    """One device's part in a round. Private: text can be made out from it.

    Attributes:
        vector: difference to the shared prefix, projected where the round says so, no longer than its clip.
        examples: texts it was trained on.
        loss: nats per token of those under the shared prefix; NaN where it is not told.
    """

    vector: Vector = field(repr=False)
    examples: int
    loss: float = float("nan")

    def sealed(self, round: Round, node: int, device: DeviceKeys) -> bytes:
        """For the server's memory in this round, nobody else's. Its size depends on the round alone.

        Raises:
            UpdateRefused: the round's key is none.
        """
        bound = round.bound(node)
        head = _HEAD.pack(self.examples, len(self.vector), self.loss)
        body = head + np.ascontiguousarray(self.vector, "<f4").tobytes()
        try:
            key = hpke.public_key(bytes.fromhex(round.key))
            return hpke.SUITE.encrypt(body + device.sign(_LABEL + bound + body), key, info=bound)
        except ValueError:
            raise UpdateRefused("the round's key is none") from None

    @staticmethod
    def sealed_bytes(numbers: int) -> int:
        """Bytes of a sealed update of so many numbers."""
        return hpke.OVERHEAD + _HEAD.size + 4 * numbers + _SIGNATURE

    @classmethod
    def opened(
        cls, sealed: bytes, round: Round, key: RoundKey, *, node: int, signing: bytes, size: int
    ) -> Update:
        """What a device sent, after every check.

        Args:
            sealed: from anyone.
            round: as it was signed.
            key: of the round.
            node: that the answer came from.
            signing: public key of the device that has this node, 32 bytes.
            size: numbers that an update of this round has.

        Raises:
            UpdateRefused: says why, without a number of the update.
        """
        expected = _HEAD.size + 4 * size + _SIGNATURE
        bound = round.bound(node)
        with key.open(sealed, bound) as plain:
            if len(plain.data) != expected:
                raise UpdateRefused(f"it has {len(plain.data):,} bytes, expected {expected:,}")
            body, signature = bytes(plain.data[:-_SIGNATURE]), bytes(plain.data[-_SIGNATURE:])
        try:
            Ed25519PublicKey.from_public_bytes(signing).verify(signature, _LABEL + bound + body)
        except InvalidSignature:
            raise UpdateRefused("it is not signed by the device of this node") from None
        examples, count, loss = _HEAD.unpack_from(body)
        if count != size or not 1 <= examples <= _MOST_EXAMPLES:
            raise UpdateRefused("its numbers or examples are not as many as they can be")
        vector = np.frombuffer(body, "<f4", offset=_HEAD.size).astype(np.float32)
        if not np.isfinite(vector).all():
            raise UpdateRefused("some of its numbers are NaN or infinite")
        if norm(vector) > round.clip * (1 + 2 * _ROUNDING):
            raise UpdateRefused("it is longer than the clip")
        return cls(vector, examples, loss if math.isfinite(loss) else float("nan"))


def clip_to_norm(vector: NDArray[np.floating], most: float) -> Vector:
    """A vector no longer than `most`, of the same direction (L2)."""
    exact = np.asarray(vector, np.float64)
    length = float(np.linalg.norm(exact))
    scale = 1.0 if length <= most else most * (1 - _ROUNDING) / length
    shorter: Vector = (exact * scale).astype(np.float32)
    return shorter


def norm(vector: Vector) -> float:
    """L2, in float64."""
    return float(np.linalg.norm(vector.astype(np.float64)))
