"""How sure a mean over users is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean over users, and the 95 % interval of it."""

    mean: float
    low: float
    high: float
    users: int = 2

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign of the mean is beyond doubt at this level; never for one user."""
        return self.users > 1 and (self.low > 0 or self.high < 0)

    def bounds(self, digits: str = ".3f") -> str:
        """Both ends as text, in the format `digits`; a dash for one user, of whom nothing can be drawn."""
        return f"{self.low:{digits}}…{self.high:{digits}}" if self.users > 1 else "\N{EN DASH}"

    def as_json(self) -> dict[str, float]:
        """For programs; of one user both ends are the mean."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def interval(values: Sequence[float], *, resamples: int = 10_000) -> Interval:
    """Percentile bootstrap over users: one value per user, drawn again with replacement.

    Users are what is drawn, so seeds must be averaged within each user before: two runs of one user are
    no two users.
    """
    numbers = np.asarray(values, dtype=float)
    generator = np.random.default_rng(0)
    resampled = generator.integers(len(numbers), size=(resamples, len(numbers)))  # users of each resample
    means = numbers[resampled].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(numbers.mean()), float(low), float(high), len(numbers))
