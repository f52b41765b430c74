"""One user's training, from start to finish, as a sequence of row batches.

A user knows nothing of others: it hands out the rows of its next step or evaluation, takes back their
losses and gradients in any order, and moves on once all are there. Gradients are summed in the order of
its own batch.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from antefix.data.tokenization import Row
from antefix.training.adam import Adam
from antefix.training.config import TrainingPlan
from antefix.training.reparameterization import Reparameterization

_log = logging.getLogger("antefix")
_FEW_TEXTS = 4  # below this no text is spared for validation


@dataclass(frozen=True, eq=False)
class PendingRow:
    """One row that waits for its place in a micro-batch.

    Attributes:
        user: whose row it is.
        row: the tokens.
        place: position in the user's own batch.
        weight: factor on the row's summed loss in a training step; None in an evaluation.
    """

    user: UserState
    row: Row
    place: int
    weight: float | None


@dataclass
class Progress:
    """What a user has done so far; part of a checkpoint.

    Attributes:
        tokens: real tokens computed in training steps.
        first_loss, last_loss: nats per token on the judging texts, before training and last.
        best_loss, best: lowest such loss, and the trained numbers that gave it.
        misses: evaluations in a row without improvement.
        finished: nothing is left to do.
        diverged: a loss or a trained number became NaN or infinite, which ended this user's training.
    """

    tokens: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    best_loss: float = float("inf")
    best: Tensor | None = None
    misses: int = 0
    evaluated_at: int = -1
    finished: bool = False
    diverged: bool = False


@dataclass(eq=False)
class UserState:
    """State of one user's training.

    Attributes:
        name: the user.
        rows: texts to train on.
        validation_rows: texts that judge the prefix: the validation slice, the first training texts, or none.
        validated: whether `validation_rows` was kept out of training.
        plan: this user's plan.
        reparam: from trained numbers to the prefix.
        adam: optimizer state and trained numbers.
        start_digest: hex digest of the flat start, by which a checkpoint knows the run.
        progress: the rest of the state.
        settled: no step is half done, so that the state may be saved.
    """

    name: str
    rows: list[Row]
    validation_rows: list[Row]
    validated: bool
    plan: TrainingPlan
    reparam: Reparameterization
    adam: Adam
    start_digest: str
    progress: Progress = field(default_factory=Progress)
    at_step_boundary: bool = True
    _losses: dict[int, float] = field(default_factory=dict)
    _gradients: dict[int, Tensor] = field(default_factory=dict)
    _waiting: list[PendingRow] = field(default_factory=list)
    _flat: Tensor | None = None

    @property
    def total_steps(self) -> int:
        """Steps if nothing stops it early."""
        return self.plan.steps_for(len(self.rows))

    @property
    def prefix(self) -> Tensor:
        """The current prefix, flat [size(P)]; the same memory until the next step."""
        if self._flat is None:
            self._flat = self.reparam.prefix(self.adam.trained).detach()
        return self._flat

    def next_rows(self) -> list[PendingRow]:
        """Rows of the next step or evaluation; none when finished."""
        if self.progress.finished:
            return []
        if self._evaluation_due():
            rows = [PendingRow(self, row, place, None) for place, row in enumerate(self.validation_rows)]
        else:
            batch = self._batch(self.adam.step)
            weight = 1.0 / sum(len(row.targets) for row in batch)  # this user's own mean
            rows = [PendingRow(self, row, place, weight) for place, row in enumerate(batch)]
        self._waiting = rows
        return rows

    def accept_result(self, pending: PendingRow, loss: float, gradient: Tensor | None) -> bool:
        """Take a row's result; True when it was the last of its batch and the user moved on."""
        self._losses[pending.place] = loss
        if gradient is not None:
            self._gradients[pending.place] = gradient
        if len(self._losses) < len(self._waiting):
            return False
        self.at_step_boundary = False
        if gradient is None:
            self._evaluate()
        else:
            self._step()
        self.at_step_boundary = True
        self._losses, self._gradients, self._waiting = {}, {}, []
        return True

    def final_prefix(self) -> Tensor:
        """The better of start and end (and of all evaluated between), flat [size(P)]."""
        best = self.progress.best if self.validated else None
        return self.reparam.prefix(self.adam.trained if best is None else best).detach()

    def _evaluation_due(self) -> bool:
        step, every = self.adam.step, self.plan.evaluate_every
        if not self.plan.evaluate:
            return False
        wanted = step == 0 or step >= self.total_steps or bool(every and step % every == 0)
        return wanted and self.progress.evaluated_at != step

    def _batch(self, step: int) -> list[Row]:
        """Rows of a step: a slice of this pass's own permutation."""
        size = self.plan.batch_size
        per_pass = -(-len(self.rows) // size)
        at = step % per_pass
        generator = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + step // per_pass)
        order = torch.randperm(len(self.rows), generator=generator).tolist()
        return [self.rows[i] for i in order[at * size : (at + 1) * size]]

    def _step(self) -> None:
        summed = self._gradients[0]
        for place in range(1, len(self._waiting)):
            summed = summed + self._gradients[place]
        self.progress.tokens += sum(pending.row.tokens for pending in self._waiting)
        self.adam.update(self.reparam.gradient(self.adam.trained, summed), self.plan, self.total_steps)
        self._flat = None
        self.progress.finished = not self.plan.evaluate and self.adam.step >= self.total_steps
        if not (all(map(math.isfinite, self._losses.values())) and self._is_finite()):
            self._stop_diverged()

    def _evaluate(self) -> None:
        state = self.progress
        targets = sum(len(row.targets) for row in self.validation_rows)
        loss = sum(self._losses[place] for place in range(len(self.validation_rows))) / targets
        if not math.isfinite(loss):
            self._stop_diverged()
            return
        state.first_loss = loss if state.first_loss is None else state.first_loss
        state.last_loss, state.evaluated_at = loss, self.adam.step
        if loss < state.best_loss:
            state.best_loss, state.misses = loss, 0
            state.best = self.adam.trained.clone()
        else:
            state.misses += 1
        patient = self.plan.patience is None or state.misses < self.plan.patience
        state.finished = self.adam.step >= self.total_steps or not (patient or self.adam.step == 0)

    def _is_finite(self) -> bool:
        """Whether everything that a checkpoint and a prefix are made of is finite."""
        parts = (self.adam.trained, self.adam.mean, self.adam.square, self.prefix)
        return bool(torch.stack([part.isfinite().all() for part in parts]).all())

    def _stop_diverged(self) -> None:
        """End this user's training at the best numbers so far, at least at the start."""
        state, steps = self.progress, self.adam.step
        best = self.reparam.initial() if state.best is None else state.best
        self.adam = Adam.of(best.to(self.adam.trained.device, copy=True))
        self.adam.step, self._flat = steps, None
        state.last_loss = None if state.best is None else state.best_loss
        state.diverged = state.finished = True
        _log.warning(
            "training of %r diverged at learning rate %g, step %d: its best prefix before that is kept; "
            "try a lower rate",
            self.name,
            self.plan.learning_rate,
            steps,
        )


def split_rows(rows: list[Row], plan: TrainingPlan) -> tuple[list[Row], list[Row], bool]:
    """Training rows, judging rows, and whether those are apart: every n-th text, spread over the whole.

    Without evaluation nothing judges, and every text trains.
    """
    if not plan.evaluate:
        return rows, [], False
    held = round(len(rows) * plan.validation_fraction)
    if plan.validation_fraction and len(rows) >= _FEW_TEXTS:
        held = max(1, held)
    if not held or len(rows) < _FEW_TEXTS:
        return rows, rows[:16], False
    chosen = {(2 * i + 1) * len(rows) // (2 * held) for i in range(held)}
    return (
        [row for i, row in enumerate(rows) if i not in chosen],
        [row for i, row in enumerate(rows) if i in chosen],
        True,
    )
