"""A Flower strategy for the shared prefix: private updates, checked one by one, under any rule of Flower's.

Around the rule (`antefix_server.rounds.server_optimizer`): a fresh key for each round, so that updates cross
and rest in Flower's database sealed; checks before anything is added; one update per user; a least number of
users; stragglers are not waited for; noise for privacy. Rules that are means of all updates get the mean,
which is summed as replies come, in constant memory; the others need all updates of a round at once.
`RoundRunner` runs it, and keeps and releases what comes of each round.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from antefix.errors import InvalidArgument
from antefix.rounds import Round, RoundKey
from antefix_server.errors import TooFewUsers
from antefix_server.rounds.aggregation import UpdateAggregator
from antefix_server.rounds.collection import RoundResult, UpdateCollector
from antefix_server.rounds.config import RoundConfig
from antefix_server.rounds.coordinator import Coordinator, Participant
from antefix_server.rounds.server_optimizer import ServerOptimizer, State
from antefix_server.rounds.shared_prefix import SharedVector

__all__ = ["PrefixStrategy"]

_LOG = logging.getLogger("antefix.rounds")
_AGAIN_S = 2.0
_KEY = "shared"


@dataclass(frozen=True)
class _ActiveRound:
    """The round that replies are awaited for. Its key is in memory alone."""

    round: Round
    key: RoundKey
    participants: dict[int, Participant]
    expected: float
    shared: SharedVector


class PrefixStrategy(Strategy):
    """Asks users' devices, and makes the next shared prefix of their updates.

    Attributes:
        state: what the rule remembers from round to round.
    """

    def __init__(self, rule: ServerOptimizer, coordinator: Coordinator, config: RoundConfig) -> None:
        """Wrap a rule.

        Args:
            rule: makes the next shared prefix.
            coordinator: which holds vault and keys.
            config: of the run.

        Raises:
            InvalidArgument: privacy with what it does not cover.
        """
        if config.privacy is not None and not rule.is_mean:
            raise InvalidArgument(
                f"{rule.name} needs single updates, privacy their sum alone", "use a mean, like fedavg"
            )
        if config.privacy is not None and config.by_examples:
            raise InvalidArgument("with privacy all users count alike", "weights=users")
        if config.privacy is not None and config.patience:
            raise InvalidArgument("patience looks at losses, which privacy does not cover", "patience 0")
        self._rule, self._coordinator, self._config = rule, coordinator, config
        if not rule.is_mean:
            _LOG.info("%s keeps all updates of a round in memory", rule.name)
        self._round: _ActiveRound | None = None
        self._dice = random.SystemRandom()
        self.state: State = rule.init()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Messages of a round, one for each user that is asked: the same for everybody."""
        release, settings = self._coordinator.latest_release(), self._config
        participants, expected = self._participants(grid)
        key = RoundKey()
        statement = Round(
            tenant=release.tenant,
            id=key.id.hex(),
            release=release.digest,
            number=server_round,
            key=key.public.hex(),
            clip=settings.clip,
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            projection=settings.projection_dim,
            until=int(time.time() + settings.round_timeout_s),
        )
        shared = SharedVector.of(release.prefix)
        self._round = _ActiveRound(statement, key, participants, expected, shared)
        request: dict[str, Any] = {
            "server-round": server_round,
            "release": release.signed,
            "round": self._coordinator.sign(statement.to_bytes()),
        }
        prefix = Array(np.frombuffer(release.prefix, np.uint8))
        content = RecordDict({"arrays": ArrayRecord({_KEY: prefix}), "config": ConfigRecord(request)})
        kind, group = MessageType.TRAIN, str(server_round)
        return [
            Message(content, dst_node_id=node, message_type=kind, group_id=group) for node in participants
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The shared vector after a round; None where too few updates came."""
        vector, result = self.aggregate(server_round, replies)
        if vector is None:
            return None, None
        metrics: dict[str, Any] = {"users": len(result.users)}
        if self._config.privacy is None:
            metrics["loss"] = result.loss
        return ArrayRecord({_KEY: Array(vector)}), MetricRecord(metrics)

    def aggregate(
        self, number: int, replies: Iterable[Message]
    ) -> tuple[NDArray[np.float32] | None, RoundResult]:
        """The shared vector after a round, fp32 [size], and what came of it; None for too few updates."""
        active, self._round = self._round, None  # the key opens one round
        if active is None:
            raise InvalidArgument("no round is under way", "configure_train comes first")
        config = self._config
        size = config.projection_dim or len(active.shared.values)
        seed = bytes.fromhex(active.round.release)
        aggregator = UpdateAggregator(config, active.expected, size, seed, active.shared, self._rule.is_mean)
        result = UpdateCollector(
            active.round, active.key, active.participants, self._is_active, size, aggregator.add
        ).read(replies)
        # Coins that decide again until enough users are in would protect nobody.
        least = 0 if config.privacy is not None and config.is_poisson else config.min_users
        if len(result.users) < least:
            return None, result
        self.state, vector = self._rule.apply(self.state, number, active.shared.values, aggregator.updated())
        return vector, result

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: each device judges for itself."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing: each device judges for itself."""
        return None

    def summary(self) -> None:
        """Nothing: `RoundRunner` says what is done."""

    def _participants(self, grid: Grid) -> tuple[dict[int, Participant], float]:
        """A device for each user that a round asks, and how many users that are on average.

        Waits until enough are there.
        """
        until = time.monotonic() + self._config.round_timeout_s
        while True:
            present = self._coordinator.participants(list(grid.get_node_ids()))
            users = sorted({node.user for node in present})
            if len(users) >= self._config.min_users:
                break
            if time.monotonic() > until:
                raise TooFewUsers(
                    f"{len(users)} users are there, {self._config.min_users} are needed",
                    "start again when more devices are there",
                )
            time.sleep(_AGAIN_S)
        chosen, expected = self._sample(users)
        shuffled = self._dice.sample(present, len(present))
        devices = {device.user: device for device in shuffled if device.user in chosen}
        return {device.node: device for device in devices.values()}, expected

    def _is_active(self, node: int) -> bool:
        """Whether its user is still there: an update of one that was removed is not added."""
        return bool(self._coordinator.participants([node]))

    def _sample(self, users: Sequence[str]) -> tuple[set[str], float]:
        fraction = self._config.fraction_train
        if self._config.is_poisson:
            return {user for user in users if self._dice.random() < fraction}, max(1.0, fraction * len(users))
        count = max(self._config.min_users, round(fraction * len(users)))
        return set(self._dice.sample(users, count)), float(count)
