"""Adds up the updates of a round for the rule that makes the next shared prefix of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from numpy.typing import NDArray

from antefix.rounds import Update
from antefix.rounds.noise import gaussian
from antefix.rounds.transforms import Contribution, Noise, Total, update_pipeline
from antefix_server.rounds.plan import RoundPlan
from antefix_server.rounds.shared_prefix import SharedVector

KEY = "shared"


class UpdateAggregator:
    """Adds up the updates of a round: their sum alone, or all of them for rules that need them."""

    def __init__(
        self,
        plan: RoundPlan,
        expected: float,
        size: int,
        seed: bytes,
        shared: SharedVector,
        streams: bool,
        draw: Noise = gaussian,
    ) -> None:
        """Start a round with no updates.

        Args:
            plan: of the run.
            expected: users of a round, known before anybody answers.
            size: numbers of an update.
            seed: of the projection.
            shared: the prefix that is improved.
            streams: the rule is a mean of all answers.
            draw: makes the noise; a simulation gives a seeded one, to be repeated.
        """
        private = plan.privacy is not None
        self._pipeline = update_pipeline(
            size=len(shared.values),
            clip=plan.clip,
            projection=plan.projection,
            seed=seed,
            by_examples=plan.by_examples,
            expected=expected if private else None,
            deviation=plan.privacy.noise * plan.clip if plan.privacy is not None else 0.0,
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

    def replies(self) -> list[Message]:
        """What the rule gets: the mean as one answer, or each update."""
        if not self._streams:
            return [self._reply(self._pipeline.expand(part.vector), part.weight) for part in self._parts]
        mean = self._pipeline.on_sum(Total(self._sum, self._weight))
        return [self._reply(mean.vector, mean.weight)]

    def _reply(self, change: NDArray[Any], weight: float) -> Message:
        values = self._shared.values.astype(np.float64) + change
        content = RecordDict(
            {
                "arrays": ArrayRecord({KEY: Array(values)}),
                "metrics": MetricRecord({"num-examples": float(weight)}),
            }
        )
        return Message(content=content, dst_node_id=0, message_type=MessageType.TRAIN)
