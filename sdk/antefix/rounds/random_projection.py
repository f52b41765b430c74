"""A fixed random subspace for updates: fewer numbers cross, and noise for privacy falls on fewer.

A = S·H·D: random signs D, Walsh-Hadamard transform H, and k random rows S. The rows of A are orthonormal, so
A·v is never longer than v, and Aᵀ·A·v is v's part in the subspace. Both sides make the same A of the same
seed (the release's digest), in n log n steps, without ever holding it.
Subsampled randomized Hadamard transform: Ailon & Chazelle 2006; Tropp 2011.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antefix.errors import InvalidArgument

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Projection:
    """From `size` numbers to `kept` and back.

    Attributes:
        size: of an update.
        kept: of its projection.
        seed: of the subspace.
    """

    size: int
    kept: int
    seed: bytes

    def __post_init__(self) -> None:
        """Refuse what is no projection."""
        if not 1 <= self.kept <= self.size:
            raise InvalidArgument(f"a projection of {self.size:,} numbers to {self.kept:,}", "keep fewer")

    def down(self, vector: Vector) -> Vector:
        """A·v, [kept]."""
        padded = np.zeros(self._padded, np.float64)
        padded[: self.size] = vector
        chosen: Vector = _transformed(padded * self._signs)[self._rows].astype(np.float32)
        return chosen

    def up(self, kept: NDArray[np.floating]) -> Vector:
        """Aᵀ·z, [size]."""
        padded = np.zeros(self._padded, np.float64)
        padded[self._rows] = kept
        found: Vector = (_transformed(padded) * self._signs)[: self.size].astype(np.float32)
        return found

    @property
    def _padded(self) -> int:
        return 1 << (self.size - 1).bit_length()

    @property
    def _signs(self) -> NDArray[np.float64]:
        bits = np.frombuffer(self._stream(b"signs", -(-self._padded // 8)), np.uint8)
        return 1.0 - 2.0 * np.unpackbits(bits)[: self._padded].astype(np.float64)

    @property
    def _rows(self) -> NDArray[np.int64]:
        """Chosen by sorting random words: the same on every machine, unlike a library's generator."""
        words = np.frombuffer(self._stream(b"rows", 8 * self._padded), "<u8")
        return np.argsort(words, kind="stable")[: self.kept]

    def _stream(self, purpose: bytes, size: int) -> bytes:
        return hashlib.shake_256(b"antefix/v1/projection\0" + purpose + b"\0" + self.seed).digest(size)


def _transformed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The orthonormal Walsh-Hadamard transform of a vector whose length is a power of two."""
    size, step = len(values), 1
    values = values.copy()
    while step < size:
        pairs = values.reshape(-1, 2, step)
        values = np.stack((pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]), axis=1).reshape(-1)
        step *= 2
    scaled: NDArray[np.float64] = values / np.sqrt(size)
    return scaled
