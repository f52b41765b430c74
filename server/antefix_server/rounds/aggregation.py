"""Adds up the updates of a round for the rule that makes the next shared prefix of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from numpy.typing import NDArray

from antefix.rounds import Projection, Update
from antefix_server.rounds import noise as noise_module
from antefix_server.rounds.plan import RoundPlan
from antefix_server.rounds.shared_prefix import SharedVector

KEY = "shared"
_MOST = 4096


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
        gaussian: Callable[[int, float], NDArray[np.float64]] = noise_module.gaussian,
    ) -> None:
        """Nothing yet.

        Args:
            plan: of the run.
            expected: users of a round, known before anybody answers.
            size: numbers of an update.
            seed: of the projection.
            shared: the prefix that is improved.
            streams: the rule is a mean of all answers.
            gaussian: noise, by count and deviation; a simulation gives another, to be repeated.
        """
        self._plan, self._expected, self._shared, self._streams = plan, expected, shared, streams
        self._sum, self._weight, self._all = np.zeros(size), 0.0, list[tuple[NDArray[np.float32], float]]()
        self._gaussian = gaussian
        self._projection = Projection(len(shared.values), size, seed) if plan.projection else None

    def add(self, update: Update) -> None:
        """One more."""
        if not self._streams:
            self._all.append((update.vector, self._weight_of(update)))
            return
        weight = self._weight_of(update)
        self._sum += weight * update.vector.astype(np.float64)
        self._weight += weight

    def add_sum(self, total: NDArray[np.float64], weight: float) -> None:
        """Many at once, for a rule that is a mean: their weighted sum."""
        self._sum += total
        self._weight += weight

    def replies(self) -> list[Message]:
        """What the rule gets: the mean as one answer, or each."""
        if not self._streams:
            return [self._reply(vector, examples) for vector, examples in self._all]
        privacy = self._plan.privacy
        if privacy is None:
            return [self._reply(self._sum / self._weight, self._weight)]
        deviation = privacy.noise * self._plan.clip
        noisy = noise_module.on_grid(self._sum, deviation) + self._gaussian(len(self._sum), deviation)
        return [self._reply(noisy / self._expected, self._expected)]

    def _weight_of(self, update: Update) -> float:
        """How many texts there are a device says itself: it must not say how much it counts."""
        return float(min(update.examples, _MOST)) if self._plan.by_examples else 1.0

    def _reply(self, update: NDArray[Any], weight: float) -> Message:
        whole = update if self._projection is None else self._projection.up(update)
        values = self._shared.values.astype(np.float64) + whole
        content = RecordDict(
            {
                "arrays": ArrayRecord({KEY: Array(values)}),
                "metrics": MetricRecord({"num-examples": float(weight)}),
            }
        )
        return Message(content=content, dst_node_id=0, message_type=MessageType.TRAIN)
