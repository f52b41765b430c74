"""Drives the users of one training run to their end, in shared micro-batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch

from antefix.common.malloc import retain_large_blocks
from antefix.common.progress import ProgressBar
from antefix.model.frozen_base import FrozenBase
from antefix.model.kv_layout import Layout
from antefix.training.checkpoint import Checkpoint
from antefix.training.config import TrainingPlan
from antefix.training.micro_batch import MicroBatchResult, forward_backward
from antefix.training.queue import MicroBatch, row_queue
from antefix.training.user_state import UserState
from antefix.training.workers import worker_count, workers_of


class Trainer:
    """Keeps micro-batches running until every user is done."""

    def __init__(
        self,
        base: FrozenBase,
        layout: Layout,
        users: list[UserState],
        checkpoint: Checkpoint,
        finish: Callable[[UserState], None],
    ) -> None:
        self._layout = layout
        self._base, self._checkpoint, self._finish = base, checkpoint, finish
        self._waiting = list(reversed(users))
        self._active: list[UserState] = []
        self._plan = users[0].plan
        self._queue = row_queue(base, self._plan)

    def run(self, progress: bool | Callable[[int, int], None]) -> None:
        steps = sum(user.total_steps - user.adam.step for user in self._waiting if not user.progress.finished)
        with (
            StepProgress(steps, progress) as bar,
            self._base.activation_checkpointing(self._plan.activation_checkpointing),
            retain_large_blocks(),
        ):
            try:
                self._loop(bar)
            except BaseException:
                for user in self._active:  # an interrupt loses nothing that was finished
                    self._checkpoint.save(user)
                raise

    def _loop(self, bar: StepProgress) -> None:
        with workers_of(self._compute, _worker_count(self._base, self._plan)) as workers:
            self._admit()
            while self._active:
                while not workers.full and (batch := self._queue.pop()):
                    workers.submit(batch)
                for batch, result in workers.finished():
                    self._deliver(batch, result, bar)
                self._admit()
                self._checkpoint.save_now_and_then(self._active)

    def _admit(self) -> None:
        """Let waiting users in, as others leave."""
        while self._waiting and len(self._active) < self._plan.users_in_flight:
            user = self._waiting.pop()
            self._active.append(user)
            self._advance(user)

    def _advance(self, user: UserState) -> None:
        """Queue a user's next rows, or let it go."""
        rows = user.next_rows()
        if rows:
            self._queue.add(rows)
        else:
            self._active.remove(user)
            self._finish(user)

    def _compute(self, batch: MicroBatch) -> MicroBatchResult:
        prefixes = torch.stack([pending.user.prefix for pending in batch.rows])  # (rows, size(P))
        weights = [pending.weight for pending in batch.rows if pending.weight is not None]
        rows = [pending.row for pending in batch.rows]
        return forward_backward(self._base, batch.shape, rows, prefixes, weights or None, self._layout)

    def _deliver(self, batch: MicroBatch, result: MicroBatchResult, bar: StepProgress) -> None:
        for number, pending in enumerate(batch.rows):
            gradient = None if result.gradients is None else result.gradients[number]
            user, step = pending.user, pending.user.adam.step
            if user.accept_result(pending, result.losses[number], gradient):
                self._advance(user)
                bar.add(user.adam.step - step)


class StepProgress:
    """Steps done, as a bar on stderr or by a function of the caller."""

    def __init__(self, steps: int, progress: bool | Callable[[int, int], None]) -> None:
        self._on_step = progress if callable(progress) else None
        self._bar = ProgressBar(total=steps, desc="training", unit="step", disable=progress is not True)
        self._done, self._steps = 0, steps

    def add(self, steps: int) -> None:
        self._bar.update(steps)
        self._done += steps
        if self._on_step is not None and steps:
            self._on_step(self._done, self._steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _worker_count(base: FrozenBase, plan: TrainingPlan) -> int:
    """Micro-batches at once: one per core, but one where a user's rows share a single micro-batch."""
    if base.device.type != "cpu":
        return 1
    return plan.workers or (1 if plan.batching == "per-user" else worker_count(base))
