"""A cohort's work: its users in one batch, each of them exactly its own, and a sum for the server.

What is here runs in this process, or in any worker of Flower's engine, with the same result bit for bit.
"""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from antefix import FrozenBase, Prefix, TrainingPlan
from antefix.errors import AntefixError, OutOfMemory
from antefix.rounds.transforms import update_pipeline
from antefix_simulations.arms.interface import Arm
from antefix_simulations.arms.registry import arm_class
from antefix_simulations.data.store import Population, Split
from antefix_simulations.run.private_prefixes import PrivatePrefixes
from antefix_simulations.run.task import Result, Task
from antefix_simulations.run.texts import CohortTexts
from antefix_simulations.run.trainer import Trainer
from antefix_simulations.run.tuning import TUNE, grid, inner_splits
from antefix_simulations.settings import RunSettings

__all__ = ["Cohort"]

Work = Callable[[dict[int, Split], Prefix, Task, Result], None]
"""Does a task for some of its users: their texts, the shared prefix, the task; adds to the result."""


class Cohort:
    """Does tasks of one run; the base is loaded once."""

    def __init__(self, base: FrozenBase, population: Population, settings: RunSettings, out: Path) -> None:
        """Nothing is computed yet."""
        self._base, self._settings = base, settings
        self._texts = CohortTexts(base, population, settings)
        self._trainer = Trainer(base, settings)
        self._arm: tuple[str, Arm] | None = None
        private = PrivatePrefixes(base, settings, self._trainer, out)
        self._work: dict[str, Work] = {
            "round": self._round,
            "newcomers": self._newcomers,
            "personal": private.measure,
            "history": private.histories,
            f"{TUNE}private": private.tune,
        }
        for name in settings.more_arms:
            self._work[name] = partial(self._measure_arm, name)
            self._work[f"{TUNE}{name}"] = partial(self._tune_arm, name)

    def do(self, task: Task) -> Result:
        """Do one task. What fails for one user is told in its line, and the others go on.

        Where memory does not last, micro-batches are halved, for later tasks too, and the result says so.

        Raises:
            OutOfMemory: the smallest are too large.
        """
        tokens_before = self._trainer.micro_batch_tokens
        while True:
            try:
                result = self._try(task)
            except OutOfMemory:
                if not self._trainer.halve():
                    raise
            else:
                tokens = self._trainer.micro_batch_tokens
                result.micro_batch_tokens = tokens if tokens < tokens_before else 0
                return result

    def _try(self, task: Task) -> Result:
        started, result = time.monotonic(), Result()
        shared, work = Prefix.from_bytes(task.shared), self._work[task.kind]
        users, failures = self._texts.read(task.users)
        result.facts += failures
        self._each(users, lambda part: work(part, shared, task, result), result)
        result.facts.sort(key=lambda line: int(line["user"]))
        result.seconds, result.peak_mb = time.monotonic() - started, _peak_mb()
        return result

    def _each(
        self, users: dict[int, Split], work: Callable[[dict[int, Split]], None], result: Result
    ) -> None:
        """All together; where that fails, in halves, until it is known who it is."""
        lines_before = len(result.facts)
        try:
            if users:
                work(users)
        except OutOfMemory:
            raise
        except AntefixError as error:
            del result.facts[lines_before:]
            if len(users) == 1:
                result.facts.append({"user": next(iter(users)), "failed": type(error).__name__})
                return
            names = list(users)
            for half in (names[: len(names) // 2], names[len(names) // 2 :]):
                self._each({user: users[user] for user in half}, work, result)

    def _round(self, users: dict[int, Split], shared: Prefix, task: Task, result: Result) -> None:
        """Every user from the same shared prefix; the sum of what it changes."""
        settings, start = self._settings, shared.values.numpy()
        plan = TrainingPlan(
            max_steps=settings.steps,
            learning_rate=settings.learning_rate,
            evaluate=False,
            seed=task.round,
            micro_batch_tokens=self._trainer.micro_batch_tokens,
        )
        trained = self._trainer.train(users, plan, shared)
        pipeline = update_pipeline(
            size=len(start),
            clip=settings.clip,
            projection=settings.projection_dim,
            seed=hashlib.sha256(start.tobytes()).digest(),
            by_examples=settings.weights == "examples",
        )
        if result.sum is None:
            result.sum = np.zeros(settings.projection_dim or len(start))
        for user, state in trained.items():
            change = state.prefix.values.numpy() - start
            part = pipeline.on_update(change, len(users[user].training))
            result.sum += part.weight * part.vector.astype(np.float64)
            result.weight += part.weight
            result.tokens += state.tokens
            result.facts.append({"user": user, "norm": part.norm})

    def _newcomers(self, users: dict[int, Split], shared: Prefix, task: Task, result: Result) -> None:
        """What the shared prefix of a round is worth to users who took no part."""
        losses = self._trainer.score(users, dict.fromkeys(users, shared))
        result.facts += [{"user": user, "loss": loss} for user, loss in losses.items()]

    def _measure_arm(
        self, name: str, users: dict[int, Split], shared: Prefix, task: Task, result: Result
    ) -> None:
        losses = self._load(name).losses(users, shared, task.rate)
        result.facts += [{"user": user, name: loss} for user, loss in losses.items()]

    def _tune_arm(
        self, name: str, users: dict[int, Split], shared: Prefix, task: Task, result: Result
    ) -> None:
        inner, arm = inner_splits(users), self._load(name)
        columns = [arm.losses(inner, shared, rate) for rate in grid(self._settings, name)]
        result.facts += [{"user": user, "losses": [losses[user] for losses in columns]} for user in inner]

    def _load(self, name: str) -> Arm:
        """One at a time: an arm may hold a model of its own, and the next one has no need of it."""
        if self._arm is None or self._arm[0] != name:
            self._arm = None  # before the next is loaded: memory may not last for two
            self._arm = name, arm_class(name)(self._base, self._settings)
        return self._arm[1]


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, kB elsewhere
