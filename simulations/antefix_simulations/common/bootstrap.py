"""How sure a mean over users is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean, and the 95 % interval of it over users."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign of the mean is beyond doubt at this level."""
        return self.low > 0 or self.high < 0


def interval(values: Sequence[float], *, resamples: int = 10_000) -> Interval:
    """Percentile bootstrap over users: one value per user, drawn again with replacement.

    Users are what is drawn, so seeds must be averaged within each user before: two runs of one user are
    no two users.
    """
    given = np.asarray(values, dtype=float)
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(given), size=(resamples, len(given)))  # users of each resample
    means = given[drawn].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(given.mean()), float(low), float(high))
