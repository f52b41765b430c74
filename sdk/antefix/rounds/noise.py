"""Noise for differential privacy, from the system's cryptographic generator.

Whoever can guess the generator's state can take the noise off again, so it is not a simulation's generator.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

_GRID = 2.0**-20


def gaussian(count: int, deviation: float) -> NDArray[np.float64]:
    """Independent normal numbers of mean 0, [count].

    Made by Box and Muller's transform of 53-bit uniforms, in float64, and rounded to a grid of 2⁻²⁰ of the
    deviation: the low bits of a floating-point sample tell from which value it was shifted (Mironov 2012).
    """
    if count == 0 or deviation == 0:
        return np.zeros(count)
    pairs = (count + 1) // 2
    words = np.frombuffer(os.urandom(16 * pairs), "<u8").astype(np.uint64) >> np.uint64(11)
    uniform = (words.astype(np.float64) + 0.5) * 2.0**-53  # never 0
    radius = np.sqrt(-2 * np.log(uniform[:pairs]))
    angle = 2 * np.pi * uniform[pairs:]
    normal = np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:count]
    grained: NDArray[np.float64] = np.round(normal / _GRID) * _GRID * deviation
    return grained


def on_grid(values: NDArray[np.floating], deviation: float) -> NDArray[np.float64]:
    """What noise is added to, on the noise's own grid, so that the sum is a grid's point whatever it was."""
    step = _GRID * deviation
    grained: NDArray[np.float64] = np.round(np.asarray(values, np.float64) / step) * step
    return grained
