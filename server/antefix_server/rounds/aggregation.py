"""Adds up the updates of a round for the rule that makes the next shared prefix of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from antefix.rounds import Update
from antefix.rounds.noise import gaussian
from antefix.rounds.transforms import Contribution, Noise, Total, update_pipeline
from antefix_server.rounds.config import RoundConfig
from antefix_server.rounds.server_optimizer import Weighted
from antefix_server.rounds.shared_prefix import SharedVector


class UpdateAggregator:
    """Adds up the updates of a round: their sum alone, or all of them for rules that need them."""

    def __init__(
        self,
        config: RoundConfig,
        expected: float,
        size: int,
        seed: bytes,
        shared: SharedVector,
        streams: bool,
        draw: Noise = gaussian,
    ) -> None:
        """Start a round with no updates.

        Args:
            config: of the run.
            expected: users of a round, known before anybody answers.
            size: numbers of an update.
            seed: of the projection.
            shared: the prefix that is improved.
            streams: the rule is a mean of all answers.
            draw: makes the noise; a simulation gives a seeded one, to be repeated.
        """
        privacy = config.privacy
        self._pipeline = update_pipeline(
            size=len(shared.values),
            clip=config.clip,
            projection=config.projection_dim,
            seed=seed,
            by_examples=config.by_examples,
            expected=None if privacy is None else expected,
            deviation=0.0 if privacy is None else privacy.noise * config.clip,
            draw=draw,
        )
        self._shared, self._streams = shared, streams
        self._sum, self._weight = np.zeros(size), 0.0
        self._parts: list[Contribution] = []

    def add(self, update: Update) -> None:
        """Add one user's update."""
        part = self._pipeline.weigh(update.vector, update.examples)
        if self._streams:
            self.add_sum(part.weight * part.vector.astype(np.float64), part.weight)
        else:
            self._parts.append(part)

    def add_sum(self, total: NDArray[np.float64], weight: float) -> None:
        """Add the weighted sum of many updates, for a rule that is a mean."""
        self._sum += total
        self._weight += weight

    def updated(self) -> list[Weighted]:
        """What the rule gets: the shared prefix after the mean of all updates, or after each."""
        previous = self._shared.values.astype(np.float64)
        if self._streams:
            mean = self._pipeline.on_sum(Total(self._sum, self._weight))
            return [(previous + mean.vector, mean.weight)]
        return [(previous + self._pipeline.expand(part.vector), part.weight) for part in self._parts]
