"""A Flower strategy for the shared prefix: private updates, checked one by one, under any rule of Flower's.

    PrefixRounds(FedAvg(), host, plan, data).run(grid)

The rule (FedAvg, FedAdam, FedMedian, Krum …) does the arithmetic alone. Around it: a fresh key for each
round, so that updates cross and rest in Flower's database sealed; checks before anything is added; one
update per user; a least number of users; stragglers are not waited for; noise for privacy; a release and a
checkpoint after each round. Rules that are means of all answers get the mean, which is summed as answers
come, in constant memory; the others need all updates of a round at once, and say so.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from antefix.errors import InvalidArgument
from antefix.rounds import Round, RoundKey
from antefix.wire import Release, Signed
from antefix_server.errors import TooFewUsers, VaultDamaged
from antefix_server.rounds.aggregation import KEY, UpdateAggregator
from antefix_server.rounds.checkpoint import RoundState
from antefix_server.rounds.collection import Gathered, Gathering, answers_of
from antefix_server.rounds.coordinator import Coordinator, LatestRelease, Participant
from antefix_server.rounds.plan import RoundPlan
from antefix_server.rounds.privacy import Spent, epsilon_of, too_few
from antefix_server.rounds.server_optimizer import ServerOptimizer
from antefix_server.rounds.shared_prefix import SharedVector

__all__ = ["PrefixRounds", "RoundPlan"]

_LOG = logging.getLogger("antefix.rounds")
_AGAIN_S = 2.0


@dataclass(frozen=True)
class _UnderWay:
    """The round that answers are awaited for. Its key is in memory alone."""

    round: Round
    key: RoundKey
    askable: dict[int, Participant]
    expected: float
    shared: SharedVector


class PrefixRounds(Strategy):
    """Runs rounds over a grid; see the module."""

    def __init__(self, rule: Strategy, coordinator: Coordinator, plan: RoundPlan, data: Path) -> None:
        """Wrap a rule.

        Args:
            rule: of Flower. Its own sampling is not used.
            coordinator: which holds vault and keys.
            plan: what to do.
            data: of the server; what a run needs to go on after a crash is kept there.

        Raises:
            InvalidArgument: a rule that needs other answers, or privacy with one that is no mean.
        """
        self._rule, self._coordinator, self._plan = ServerOptimizer(rule), coordinator, plan
        if plan.privacy is not None and not self._rule.is_mean:
            raise InvalidArgument(
                f"{self._rule.name} needs single updates, privacy their sum alone", "use a mean, like fedavg"
            )
        if plan.privacy is not None and plan.by_examples:
            raise InvalidArgument("with privacy all users count alike", "weights=users")
        if plan.privacy is not None and plan.patience:
            raise InvalidArgument("patience looks at losses, which privacy does not cover", "patience 0")
        self._state = RoundState(data, plan, self._rule)
        self._under_way: _UnderWay | None = None
        self._dice = random.SystemRandom()

    def run(self, grid: Grid) -> LatestRelease:
        """All rounds that are left; the last release.

        Raises:
            TooFewUsers: not enough updates came in time; nothing of that round was released.
            VaultBusy: another run is under way.
            VaultDamaged: what earlier rounds have spent of their users' privacy is not known any more.
        """
        with self._state.held():
            return self._run(grid)

    def _run(self, grid: Grid) -> LatestRelease:
        standing, done = self._taken_up()
        self._require_accounts(standing)
        last, losses = self._last_round(done), list[float]()
        for number in range(done + 1, last + 1):
            vector, gathered = self._one(grid, number)
            standing = self._released(standing, vector, number)
            self._say(number, standing, gathered)
            losses.append(gathered.loss)
            if self._plan.promote_every and number % self._plan.promote_every == 0:
                self._coordinator.promote(standing.version)
            if self._is_enough(losses):
                break
        if last:
            self._coordinator.promote(standing.version)
        self._state.clear()
        return standing

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Messages of a round, one for each user that is asked: the same for everybody."""
        standing, plan = self._coordinator.latest_release(), self._plan
        askable, expected = self._asked(grid)
        shared, key = SharedVector.of(standing.prefix), RoundKey()
        statement = Round(
            tenant=standing.tenant,
            id=key.id.hex(),
            release=standing.digest,
            number=server_round,
            key=key.public.hex(),
            clip=plan.clip,
            steps=plan.steps,
            learning_rate=plan.learning_rate,
            projection=plan.projection,
            until=int(time.time() + plan.timeout_s),
        )
        self._under_way = _UnderWay(statement, key, askable, expected, shared)
        self._rule.begin(server_round, shared.values, KEY)
        said: dict[str, Any] = {
            "server-round": server_round,
            "release": standing.signed,
            "round": self._coordinator.sign(statement.to_bytes()),
        }
        prefix = Array(np.frombuffer(standing.prefix, np.uint8))
        content = RecordDict({"arrays": ArrayRecord({KEY: prefix}), "config": ConfigRecord(said)})
        kind, group = MessageType.TRAIN, str(server_round)
        return [Message(content, dst_node_id=node, message_type=kind, group_id=group) for node in askable]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The shared vector after a round; None where too few updates came."""
        vector, gathered = self._aggregated(server_round, replies)
        if vector is None:
            return None, None
        metrics: dict[str, Any] = {"users": len(gathered.users)}
        if self._plan.privacy is None:
            metrics["loss"] = gathered.loss
        return ArrayRecord({KEY: Array(vector)}), MetricRecord(metrics)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: each device judges for itself."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing: each device judges for itself."""
        return None

    def summary(self) -> None:
        """Say what will be done."""
        _LOG.info("%s: %s", self._rule.name, self._plan)

    def _taken_up(self) -> tuple[LatestRelease, int]:
        """Where a run goes on: behind the last round that is done, which may not be released yet."""
        standing, found = self._coordinator.latest_release(), self._state.restore()
        if found is None:
            return standing, 0
        number, started, prefix = found
        if hashlib.sha256(prefix).digest() == hashlib.sha256(standing.prefix).digest():
            _LOG.info("the run goes on behind round %d", number)
            return standing, number
        if standing.digest == started:
            _LOG.info("round %d is released now; the run goes on behind it", number)
            return self._published(prefix, number), number
        _LOG.warning("another release came in between: the rounds begin anew")
        self._rule.forget()
        return standing, 0

    def _one(self, grid: Grid, number: int) -> tuple[NDArray[np.float32], Gathered]:
        messages = self.configure_train(number, ArrayRecord(), ConfigRecord(), grid)
        until = time.monotonic() + self._plan.timeout_s
        vector, gathered = self._aggregated(number, answers_of(grid, messages, until))
        if vector is None:
            count = len(gathered.users)
            reasons = "".join(f"; {times} times {why}" for why, times in gathered.refused.items())
            raise TooFewUsers(
                f"round {number}: {count} updates count, {self._plan.min_users} are needed{reasons}",
                "nothing of this round was released; start again when more devices are there",
            )
        return vector, gathered

    def _asked(self, grid: Grid) -> tuple[dict[int, Participant], float]:
        """A device for each user that a round asks, and how many users that are on average.

        Waits until enough are there.
        """
        until = time.monotonic() + self._plan.timeout_s
        while True:
            found = self._coordinator.participants(list(grid.get_node_ids()))
            users = sorted({one.user for one in found})
            if len(users) >= self._plan.min_users:
                break
            if time.monotonic() > until:
                raise TooFewUsers(
                    f"{len(users)} users are there, {self._plan.min_users} are needed",
                    "start again when more devices are there",
                )
            time.sleep(_AGAIN_S)
        chosen, expected = self._sampled(users)
        devices = {one.user: one for one in self._dice.sample(found, len(found)) if one.user in chosen}
        return {one.node: one for one in devices.values()}, expected

    def _is_welcome(self, node: int) -> bool:
        return bool(self._coordinator.participants([node]))

    def _sampled(self, users: Sequence[str]) -> tuple[set[str], float]:
        fraction = self._plan.fraction
        if self._plan.poisson:
            return {user for user in users if self._dice.random() < fraction}, max(1.0, fraction * len(users))
        count = max(self._plan.min_users, round(fraction * len(users)))
        return set(self._dice.sample(users, count)), float(count)

    def _aggregated(
        self, number: int, answers: Iterable[Message]
    ) -> tuple[NDArray[np.float32] | None, Gathered]:
        under_way, self._under_way = self._under_way, None  # the key opens one round
        if under_way is None:
            raise InvalidArgument("no round is under way", "configure_train comes first")
        size = self._plan.projection or len(under_way.shared.values)
        adding = UpdateAggregator(
            self._plan,
            under_way.expected,
            size,
            bytes.fromhex(under_way.round.release),
            under_way.shared,
            self._rule.is_mean,
        )
        gathered = Gathering(
            under_way.round, under_way.key, under_way.askable, self._is_welcome, size, adding.add
        ).read(answers)
        # Coins that decide again until enough users are in would protect nobody.
        least = 0 if self._plan.privacy is not None and self._plan.poisson else self._plan.min_users
        if len(gathered.users) < least:
            return None, gathered
        arrays, _ = self._rule.strategy.aggregate_train(number, adding.replies())
        vector = None if arrays is None else arrays[KEY].numpy().astype(np.float32)
        return vector, gathered

    def _released(self, standing: LatestRelease, vector: NDArray[np.float32], number: int) -> LatestRelease:
        """Counted, kept, published: in this order a crash in between loses and hides nothing."""
        content = SharedVector.of(standing.prefix).with_values(vector)
        privacy = self._plan.privacy
        self._state.spend(Spent(0.0, "fixed", 1.0, 1) if privacy is None else privacy.rounds(1))
        self._state.save(number, standing.digest, content)
        return self._published(content, number)

    def _published(self, content: bytes, number: int) -> LatestRelease:
        plan, privacy, spent = self._plan, None, self._state.spent
        if plan.privacy is not None and all(one.noise for one in spent):
            privacy = {
                "epsilon": epsilon_of(spent, plan.privacy.delta),
                "delta": plan.privacy.delta,
                "rounds": sum(one.rounds for one in spent),
                "noise": plan.privacy.noise,
                "clip": plan.clip,
                "users": plan.min_users,
            }
        return self._coordinator.publish(content, privacy, f"round {number}")

    def _require_accounts(self, standing: LatestRelease) -> None:
        """What was spent must be known: a release that promises privacy has its rounds in the accounts."""
        told = Release.model_validate_json(Signed.parse(standing.signed).body).privacy
        spent = self._state.spent
        if told is not None and sum(one.rounds for one in spent) < told.rounds:
            raise VaultDamaged(
                f"release {standing.version} has {told.rounds} private rounds behind it, spent.json fewer",
                "put DATA/rounds/spent.json back from a backup",
            )
        if self._plan.privacy is not None and not all(one.noise for one in spent):
            _LOG.warning("earlier rounds over these users had no noise: no epsilon is told, and none holds")
            if self._plan.epsilon is not None:
                raise InvalidArgument(
                    "earlier rounds over these users had no noise, so no epsilon can be kept",
                    "begin with a fresh shared prefix and other users, or leave target-epsilon out",
                )

    def _last_round(self, done: int) -> int:
        plan = self._plan
        if plan.privacy is None or plan.epsilon is None:
            return plan.rounds
        allowed = done + plan.privacy.rounds_within(plan.epsilon, plan.rounds - done, self._state.spent)
        if allowed < plan.rounds:
            _LOG.warning("epsilon %g allows %d of %d rounds", plan.epsilon, allowed, plan.rounds)
        return allowed

    def _is_enough(self, losses: Sequence[float]) -> bool:
        patience = self._plan.patience
        if not patience or len(losses) <= patience or min(losses[-patience:]) < min(losses[:-patience]):
            return False
        _LOG.info("no lower loss for %d rounds: the run ends", patience)
        return True

    def _say(self, number: int, standing: LatestRelease, gathered: Gathered) -> None:
        plan, users = self._plan, len(gathered.users)
        text = f"round {number}: {users} users, release {standing.version}"
        if plan.privacy is None:
            _LOG.info("%s, loss before %.3f nats per token", text, gathered.loss)
            return
        epsilon = epsilon_of(self._state.spent, plan.privacy.delta)
        _LOG.info("%s, epsilon %.2f at delta %g", text, epsilon, plan.privacy.delta)
        size = plan.projection or len(SharedVector.of(standing.prefix).values)
        if warning := too_few(plan.privacy.noise, users, size):
            _LOG.warning("%s", warning)
