"""Runs rounds to their end, and goes on after a crash: each round is counted, kept, released and told.

RoundRunner(config.rule, coordinator, config, data).run(grid)
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from antefix.errors import InvalidArgument
from antefix.wire import Release, Signed
from antefix_server.errors import TooFewUsers, VaultDamaged
from antefix_server.rounds.checkpoint import RoundState
from antefix_server.rounds.collection import RoundResult, collect_replies
from antefix_server.rounds.config import RoundConfig
from antefix_server.rounds.coordinator import Coordinator, LatestRelease
from antefix_server.rounds.plan import RoundPlan
from antefix_server.rounds.privacy import Spent, epsilon_of, too_few
from antefix_server.rounds.server_optimizer import ServerOptimizer, from_flower
from antefix_server.rounds.shared_prefix import SharedVector
from antefix_server.rounds.strategy import PrefixStrategy

__all__ = ["PrefixRounds", "RoundPlan", "RoundRunner"]

_LOG = logging.getLogger("antefix.rounds")


class RoundRunner:
    """Rounds over a grid, with a checkpoint and a release after each."""

    def __init__(
        self, rule: ServerOptimizer | Strategy, coordinator: Coordinator, config: RoundConfig, data: Path
    ) -> None:
        """Prepare a run; nothing is asked of anybody yet.

        Args:
            rule: makes the next shared prefix; one of Flower's strategies is taken for its arithmetic alone.
            coordinator: which holds vault and keys.
            config: what to do.
            data: of the server; what a run needs to go on after a crash is kept there.

        Raises:
            InvalidArgument: a rule that needs other answers, or privacy with what it does not cover.
        """
        rule = from_flower(rule) if isinstance(rule, Strategy) else rule
        self._rule, self._coordinator, self._config = rule, coordinator, config
        self._strategy = PrefixStrategy(rule, coordinator, config)
        self._state = RoundState(data, config, rule)

    def run(self, grid: Grid) -> LatestRelease:
        """All rounds that are left; the last release.

        Raises:
            TooFewUsers: not enough updates came in time; nothing of that round was released.
            VaultBusy: another run is under way.
            VaultDamaged: what earlier rounds have spent of their users' privacy is not known any more.
        """
        _LOG.info("%s: %s", self._rule.name, self._config)
        with self._state.held():
            return self._run(grid)

    def _run(self, grid: Grid) -> LatestRelease:
        release, done = self._resume()
        self._check_privacy_ledger(release)
        last, losses = self._last_round(done), list[float]()
        for number in range(done + 1, last + 1):
            vector, result = self._run_round(grid, number)
            release = self._keep(release, vector, number)
            self._log_round(number, release, result)
            losses.append(result.loss)
            if self._config.promote_every and number % self._config.promote_every == 0:
                self._coordinator.promote(release.version)
            if self._has_settled(losses):
                break
        if last:
            self._coordinator.promote(release.version)
        self._state.clear()
        return release

    def _resume(self) -> tuple[LatestRelease, int]:
        """Where a run goes on: behind the last round that is done, which may not be released yet."""
        release, checkpoint = self._coordinator.latest_release(), self._state.restore()
        if checkpoint is None:
            return release, 0
        number, started, prefix, state = checkpoint
        is_released = hashlib.sha256(prefix).digest() == hashlib.sha256(release.prefix).digest()
        if not is_released and release.digest != started:
            _LOG.warning("another release came in between: the rounds begin anew")
            return release, 0
        self._strategy.state = state
        if is_released:
            _LOG.info("the run goes on behind round %d", number)
            return release, number
        _LOG.info("round %d is released now; the run goes on behind it", number)
        return self._publish(prefix, number), number

    def _run_round(self, grid: Grid, number: int) -> tuple[NDArray[np.float32], RoundResult]:
        messages = self._strategy.configure_train(number, ArrayRecord(), ConfigRecord(), grid)
        until = time.monotonic() + self._config.round_timeout_s
        vector, result = self._strategy.aggregate(number, collect_replies(grid, messages, until))
        if vector is None:
            count = len(result.users)
            reasons = "".join(f"; {times} times {why}" for why, times in result.refused.items())
            raise TooFewUsers(
                f"round {number}: {count} updates count, {self._config.min_users} are needed{reasons}",
                "nothing of this round was released; start again when more devices are there",
            )
        return vector, result

    def _keep(self, release: LatestRelease, vector: NDArray[np.float32], number: int) -> LatestRelease:
        """Counted, kept, published: in this order a crash in between loses and hides nothing."""
        content = SharedVector.of(release.prefix).with_values(vector)
        privacy = self._config.privacy
        self._state.spend(Spent(0.0, "fixed", 1.0, 1) if privacy is None else privacy.rounds(1))
        self._state.save(number, release.digest, content, self._strategy.state)
        return self._publish(content, number)

    def _publish(self, content: bytes, number: int) -> LatestRelease:
        privacy, guarantee, spent = self._config.privacy, None, self._state.spent
        if privacy is not None and all(rounds.noise for rounds in spent):
            guarantee = {
                "epsilon": epsilon_of(spent, privacy.delta),
                "delta": privacy.delta,
                "rounds": sum(rounds.rounds for rounds in spent),
                "noise": privacy.noise,
                "clip": self._config.clip,
                "users": self._config.min_users,
            }
        return self._coordinator.publish(content, guarantee, f"round {number}")

    def _check_privacy_ledger(self, release: LatestRelease) -> None:
        """What was spent must be known: a release that promises privacy has its rounds in the ledger."""
        promise = Release.model_validate_json(Signed.parse(release.signed).body).privacy
        spent = self._state.spent
        if promise is not None and sum(rounds.rounds for rounds in spent) < promise.rounds:
            raise VaultDamaged(
                f"release {release.version} has {promise.rounds} private rounds behind it, spent.json fewer",
                "put DATA/rounds/spent.json back from a backup",
            )
        if self._config.privacy is not None and not all(rounds.noise for rounds in spent):
            _LOG.warning("earlier rounds over these users had no noise: no epsilon is told, and none holds")
            if self._config.target_epsilon:
                raise InvalidArgument(
                    "earlier rounds over these users had no noise, so no epsilon can be kept",
                    "begin with a fresh shared prefix and other users, or leave target-epsilon out",
                )

    def _last_round(self, done: int) -> int:
        rounds, privacy = self._config.num_server_rounds, self._config.privacy
        epsilon = self._config.target_epsilon
        if privacy is None or not epsilon:
            return rounds
        allowed = done + privacy.rounds_within(epsilon, rounds - done, self._state.spent)
        if allowed < rounds:
            _LOG.warning("epsilon %g allows %d of %d rounds", epsilon, allowed, rounds)
        return allowed

    def _has_settled(self, losses: Sequence[float]) -> bool:
        patience = self._config.patience
        if not patience or len(losses) <= patience or min(losses[-patience:]) < min(losses[:-patience]):
            return False
        _LOG.info("no lower loss for %d rounds: the run ends", patience)
        return True

    def _log_round(self, number: int, release: LatestRelease, result: RoundResult) -> None:
        users, privacy = len(result.users), self._config.privacy
        text = f"round {number}: {users} users, release {release.version}"
        if privacy is None:
            _LOG.info("%s, loss before %.3f nats per token", text, result.loss)
            return
        epsilon = epsilon_of(self._state.spent, privacy.delta)
        _LOG.info("%s, epsilon %.2f at delta %g", text, epsilon, privacy.delta)
        size = self._config.projection_dim or len(SharedVector.of(release.prefix).values)
        if warning := too_few(privacy.noise, users, size):
            _LOG.warning("%s", warning)


PrefixRounds = RoundRunner
"""Its former name, and beside it `RoundPlan`: for who imports `antefix_server.strategy`, which warns."""
