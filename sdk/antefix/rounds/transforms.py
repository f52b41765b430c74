"""What happens to an update between a user's training and the next shared prefix, each step in one class.

A step has two halves: one for each user's own update, before anything is added up, and one for the sum. The
device, a simulated cohort and the server build the same pipeline and call the half that is theirs, so that
no side can differ from the others. A new step is a class here and a line in `update_pipeline`.

    pipeline = update_pipeline(size=len(change), clip=1.0)
    part = pipeline.on_update(change, examples=12)                  # for each user
    ...
    mean = pipeline.on_sum(Total(weighted_sum, sum_of_weights))     # once
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from antefix.rounds.noise import gaussian, on_grid
from antefix.rounds.random_projection import Projection
from antefix.rounds.update import Vector, clip_to_norm

MAX_EXAMPLES = 4096
"""The most that a user's number of texts can count: a device says it itself."""

Noise = Callable[[int, float], NDArray[np.float64]]


@dataclass(frozen=True)
class Contribution:
    """One user's update on its way into a sum. Private: text can be made out from it.

    Attributes:
        vector: what the user's training changed, fp32 [size], or [projected size].
        examples: texts it was trained on.
        weight: how much it counts in the sum.
        norm: L2 norm before the clip; NaN until it was clipped.
    """

    vector: Vector = field(repr=False)
    examples: int
    weight: float = 1.0
    norm: float = float("nan")


@dataclass(frozen=True)
class Total:
    """Updates that were added up.

    Attributes:
        vector: the weighted sum, float64 [size], or [projected size]; after the last step the mean.
        weight: of all that was added.
    """

    vector: NDArray[np.float64] = field(repr=False)
    weight: float


class UpdateTransform(Protocol):
    """One step of the pipeline."""

    def on_update(self, part: Contribution) -> Contribution:
        """Change one user's update, before it is added to any other."""

    def on_sum(self, total: Total) -> Total:
        """Change the sum of all updates."""


@dataclass(frozen=True)
class Project:
    """Sends a random projection of the update; the sum is expanded again. See `Projection`."""

    projection: Projection

    def on_update(self, part: Contribution) -> Contribution:
        """A·v."""
        return replace(part, vector=self.projection.down(part.vector))

    def on_sum(self, total: Total) -> Total:
        """Aᵀ·z."""
        return replace(total, vector=self.projection.up(total.vector).astype(np.float64))


@dataclass(frozen=True)
class Clip:
    """Bounds what one user can change, in L2 norm. The privacy of a round rests on it."""

    norm: float

    def on_update(self, part: Contribution) -> Contribution:
        """Shorten the vector to the norm."""
        length = float(np.linalg.norm(part.vector))
        return replace(part, vector=clip_to_norm(part.vector, self.norm), norm=length)

    def on_sum(self, total: Total) -> Total:
        """Nothing: the sum is not bounded."""
        return total


@dataclass(frozen=True)
class Weigh:
    """Turns the sum into a mean.

    Attributes:
        by_examples: users count by their texts, `MAX_EXAMPLES` at most; else all alike.
        expected: divide by this many users, whoever answered, as the privacy of a round needs it. None:
            divide by the weight of the sum.
    """

    by_examples: bool
    expected: float | None

    def on_update(self, part: Contribution) -> Contribution:
        """Say how much the update counts."""
        return replace(part, weight=float(min(part.examples, MAX_EXAMPLES)) if self.by_examples else 1.0)

    def on_sum(self, total: Total) -> Total:
        """Divide."""
        weight = total.weight if self.expected is None else self.expected
        return Total(total.vector / weight, weight)


@dataclass(frozen=True)
class AddNoise:
    """Gaussian noise on the sum: user-level differential privacy (Mironov 2017), see `antefix.rounds.noise`.

    Attributes:
        deviation: of the noise, on the sum.
        draw: noise by count and deviation; a simulation gives a seeded one, to be repeated.
    """

    deviation: float
    draw: Noise = gaussian

    def on_update(self, part: Contribution) -> Contribution:
        """Nothing: the clip has bounded it."""
        return part

    def on_sum(self, total: Total) -> Total:
        """Put the sum on the noise's grid, and add the noise."""
        values = on_grid(total.vector, self.deviation)
        return replace(total, vector=values + self.draw(len(values), self.deviation))


class UpdatePipeline:
    """The steps in the order of their update halves; the sum goes through them in the opposite order."""

    def __init__(self, steps: Sequence[UpdateTransform]) -> None:
        """Take the steps."""
        self._steps = tuple(steps)

    def on_update(self, change: NDArray[np.floating], examples: int) -> Contribution:
        """Make one user's contribution.

        Args:
            change: trained prefix minus shared prefix, [size]. Private.
            examples: texts it was trained on.
        """
        part = Contribution(np.asarray(change, np.float32), examples)
        for step in self._steps:
            part = step.on_update(part)
        return part

    def weigh(self, vector: Vector, examples: int) -> Contribution:
        """The contribution of an update that a device has prepared, for the server that adds it up."""
        part = Contribution(vector, examples)
        for step in self._steps:
            part = step.on_update(part) if isinstance(step, Weigh) else part
        return part

    def on_sum(self, total: Total) -> Total:
        """The mean change of the shared prefix, [size], from the weighted sum."""
        for step in reversed(self._steps):
            total = step.on_sum(total)
        return total

    def expand(self, vector: NDArray[np.floating]) -> NDArray[np.float64]:
        """One update as a change of the shared prefix, [size], for rules that are no mean of all."""
        total = Total(np.asarray(vector, np.float64), 1.0)
        for step in reversed(self._steps):
            total = step.on_sum(total) if isinstance(step, Project) else total
        return total.vector


def update_pipeline(
    *,
    size: int,
    clip: float,
    projection: int = 0,
    seed: bytes = b"",
    by_examples: bool = False,
    expected: float | None = None,
    deviation: float = 0.0,
    draw: Noise = gaussian,
) -> UpdatePipeline:
    """The steps of a round.

    Args:
        size: numbers of the shared prefix.
        clip: largest L2 norm of an update.
        projection: numbers of an update; 0 for all.
        seed: of the projection, the digest of the release.
        by_examples: users count by their texts.
        expected: users of a round, with privacy; None without.
        deviation: of the noise on the sum; 0 for none.
        draw: makes the noise.

    Raises:
        InvalidArgument: a projection to more numbers than there are.
    """
    steps: list[UpdateTransform] = [Project(Projection(size, projection, seed))] if projection else []
    steps += [Clip(clip), Weigh(by_examples, expected)]
    if deviation:
        steps.append(AddNoise(deviation, draw))
    return UpdatePipeline(steps)
