"""Trains and scores the prefixes of a cohort in one batch, in micro-batches that the memory allows."""

from __future__ import annotations

from collections.abc import Mapping

from antefix import FrozenBase, Prefix, PrefixSpec, TrainedUser, TrainingPlan, score, train
from antefix.training.bucketing import Buckets
from antefix_simulations.data.store import Split
from antefix_simulations.settings import RunSettings

__all__ = ["Trainer"]

_MIN_MICRO_BATCH = 64


class Trainer:
    """`train` and `score` of the SDK with a run's settings; users have numbers here.

    Attributes:
        micro_batch_tokens: of one forward and backward pass.
    """

    def __init__(self, base: FrozenBase, settings: RunSettings) -> None:
        """Begin with the micro-batches of the settings."""
        self._base, self._settings = base, settings
        self._spec = PrefixSpec(length=settings.length)
        self.micro_batch_tokens = settings.micro_batch_tokens or Buckets.of(base, None).tokens

    def halve(self) -> bool:
        """Halve the micro-batches from here on; False where they are as small as can be."""
        if self.micro_batch_tokens < 2 * _MIN_MICRO_BATCH:
            return False
        self.micro_batch_tokens = self.micro_batch_tokens // 2 // _MIN_MICRO_BATCH * _MIN_MICRO_BATCH
        return True

    def private_plan(self, rate: float) -> TrainingPlan:
        """How a private prefix is trained.

        Args:
            rate: learning rate; 0 for that of the settings.
        """
        settings = self._settings
        return TrainingPlan(
            passes=settings.private_passes,
            batch_size=settings.private_batch_size,
            learning_rate=rate or settings.private_learning_rate,
            validation_fraction=0,
            evaluate=False,
            seed=settings.seed,
            micro_batch_tokens=self.micro_batch_tokens,
        )

    def train(
        self, users: Mapping[int, Split], plan: TrainingPlan | Mapping[str, TrainingPlan], start: Prefix
    ) -> dict[int, TrainedUser]:
        """A prefix for each user from the training texts, all in one batch.

        Args:
            users: their texts.
            plan: for all, or for each user by the number as text.
            start: where every prefix begins.
        """
        texts = {str(user): split.training for user, split in users.items()}
        trained = train(self._base, texts, self._spec, plan, start=start, progress=False)
        return {int(user): result for user, result in trained.items()}

    def score(self, users: Mapping[int, Split], prefixes: Mapping[int, Prefix] | None) -> dict[int, float]:
        """Nats per token of each user's held-out texts.

        Args:
            users: their texts.
            prefixes: one for each user; None for the base alone.
        """
        texts = {str(user): split.held_out for user, split in users.items()}
        under = None if prefixes is None else {str(user): prefixes[user] for user in users}
        halved = self.micro_batch_tokens < Buckets.of(self._base, None).tokens
        # Scoring needs less memory than training, so it takes its own size unless that was too large.
        tokens = self.micro_batch_tokens if halved else None
        losses = score(self._base, texts, under, micro_batch_tokens=tokens)
        return {int(user): loss for user, loss in losses.items()}
