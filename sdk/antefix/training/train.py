"""Trains many users' prefixes together on one frozen base."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Never, Self

import torch
from torch import Tensor

from antefix.common.malloc import retain_large_blocks
from antefix.common.progress import ProgressBar
from antefix.common.validation import path_of, refuse_unknown, require, require_users
from antefix.data.example import Example
from antefix.data.tokenization import encode_user, texts_of
from antefix.errors import InvalidArgument, NoExamples
from antefix.model.frozen_base import FrozenBase
from antefix.model.kv_layout import Layout
from antefix.prefix.prefix import Prefix
from antefix.training.adam import Adam
from antefix.training.checkpoint import Checkpoint
from antefix.training.config import PrefixSpec, TrainingPlan
from antefix.training.initialization import (
    InitRequest,
    initial_prefixes,
    initial_vectors,
    keys_and_values,
    layout_of,
)
from antefix.training.micro_batch import MicroBatchResult
from antefix.training.micro_batch import forward_backward as run_rows
from antefix.training.queue import MicroBatch, row_queue
from antefix.training.reparameterization import (
    EmbeddingReparameterization,
    Reparameterization,
    reparameterization_for,
)
from antefix.training.user_state import UserState, split_rows
from antefix.training.workers import worker_count, workers_of

SHARED_WORDS = "Write the next text the way its author would write it."


@dataclass(frozen=True)
class TrainedUser:
    """Result of one user's training. The prefix and the losses are that user's private data.

    Attributes:
        prefix: the trained prefix: the better of start and end on the judging texts.
        loss_before, loss_after: nats per token on the judging texts, with the start and with `prefix`; NaN
            where nothing judged it.
        validated: the judging texts were kept out of training (else they are training texts).
        steps: optimizer steps taken.
        tokens: real tokens computed in those steps, no padding.
        diverged: a loss or a number of the prefix became NaN or infinite, which ended this user's training;
            `prefix` is the best one before that, at least the start. Try a lower learning rate.
    """

    prefix: Prefix
    loss_before: float
    loss_after: float
    validated: bool
    steps: int
    tokens: int
    diverged: bool


def train(
    base: FrozenBase,
    examples: Mapping[str, Iterable[Example]],
    spec: PrefixSpec | None = None,
    plan: TrainingPlan | Mapping[str, TrainingPlan] | None = None,
    *,
    start: Prefix | Mapping[str, Prefix] | None = None,
    validation: Mapping[str, Iterable[Example]] | None = None,
    checkpoint: str | Path | MutableMapping[str, bytes] | None = None,
    on_finished: Callable[[str, TrainedUser], None] | None = None,
    progress: bool | Callable[[int, int], None] = True,
    **unknown: Never,
) -> dict[str, TrainedUser]:
    """Train one private prefix per user, all users in shared micro-batches.

    Each user gets exactly its own gradient, and the bytes of its prefix are a function of its own texts,
    start, plan and seed (and of base, spec, hardware, thread count and library versions): not of who else
    is trained beside it. A user whose training diverges ends alone: see `TrainedUser.diverged`.

    Args:
        base: the frozen base.
        examples: each user's texts. Private; nothing of them is logged.
        spec: shape and start of the prefixes.
        plan: one plan for all, or one per user (micro-batch settings must agree).
        start: prefix to go on from, one for all (the shared prefix, say) or one per user.
        validation: texts that judge a user's prefix and are not trained on, in place of the share that
            its plan would hold out.
        checkpoint: folder by which an interrupted run goes on where it was; or a mapping from names to
            bytes, to keep them elsewhere. Holds prefixes in the clear. Where it cannot be written
            (OSError) the run goes on without, and a line in the log "antefix" says so.
        on_finished: called with each user's result as soon as it is there.
        progress: show a bar on stderr; or a function that is called after each step with the steps done
            and the steps there are, all users together. What it raises ends the run, checkpoint saved.

    Raises:
        NoExamples, EmptyText, TextTooLong, InvalidArgument, PrefixMismatch, CheckpointMismatch,
        OutOfMemory.
    """
    refuse_unknown("train", unknown)
    require(base, FrozenBase, "base")
    require_users(examples, "examples")
    if not (on_finished is None or callable(on_finished)):
        raise InvalidArgument("on_finished is no function", "it is called with a name and a TrainedUser")
    spec = _spec(spec)
    plans = _plans(examples, plan)
    starts = _starts(examples, start)
    layout = layout_of(base, spec)
    folder = Checkpoint(_place(checkpoint), base.fingerprint, spec)
    runs = _user_runs(base, examples, _validation(examples, validation), spec, plans, starts)
    for run in runs:
        folder.restore(run)
    results: dict[str, TrainedUser] = {}

    def finish(run: UserState) -> None:
        folder.save(run)
        results[run.name] = _result(base, layout, run)
        if on_finished is not None:
            on_finished(run.name, results[run.name])

    if runs:
        Trainer(base, layout, runs, folder, finish).run(progress)
    return {user: results[user] for user in examples}


def train_shared(
    base: FrozenBase,
    examples_by_user: Mapping[str, Iterable[Example]],
    spec: PrefixSpec | None = None,
    plan: TrainingPlan | None = None,
    *,
    start: Prefix | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    **unknown: Never,
) -> TrainedUser:
    """Train one prefix on everybody's texts: the centralised reference of the federated shared prefix.

    Without a `start` it starts from neutral words: a shared prefix goes to everybody, and a start from
    examples would carry the first user's text almost verbatim. There is one prefix and no neighbour, so the
    plan's `batching` is `per-user`: no dummies.

    Raises:
        As `train`; InvalidArgument for `start="examples"`.
    """
    refuse_unknown("train_shared", unknown)
    require(base, FrozenBase, "base")
    require_users(examples_by_user, "examples_by_user")
    spec = _spec(spec)
    if spec.start == "examples":
        raise InvalidArgument(
            "start is 'examples' for a shared prefix, which would hand one user's text to everybody",
            "use start='words'",
        )
    if spec.start is None and start is None:
        spec = PrefixSpec(**{**spec.model_dump(), "start": "words", "words": SHARED_WORDS})
    if not examples_by_user:
        raise NoExamples("no users to train a shared prefix on", "give at least one user's texts")
    plan = TrainingPlan(batch_size=16) if plan is None else plan
    require(plan, TrainingPlan, "plan")
    plan = plan.model_copy(update={"batching": "per-user"})
    everybody = {"shared": _joined(base, examples_by_user, spec, plan)}
    return train(base, everybody, spec, plan, start=start, checkpoint=checkpoint, progress=progress)["shared"]


def _joined(
    base: FrozenBase, examples_by_user: Mapping[str, Iterable[Example]], spec: PrefixSpec, plan: TrainingPlan
) -> list[Example]:
    """Everybody's texts, checked here too: `train` could not tell in its refusal whose text it was."""
    found: list[Example] = []
    for user, texts in examples_by_user.items():
        own = texts_of(user, texts)
        encode_user(base, user, own, length=spec.length, max_prompt_tokens=plan.max_prompt_tokens)
        found += own
    return found


class Trainer:
    """Drives all users of one run to their end."""

    def __init__(
        self,
        base: FrozenBase,
        layout: Layout,
        runs: list[UserState],
        folder: Checkpoint,
        finish: Callable[[UserState], None],
    ) -> None:
        self._layout = layout
        self._base, self._folder, self._finish = base, folder, finish
        self._todo = list(reversed(runs))
        self._active: list[UserState] = []
        self._plan = runs[0].plan
        self._queue = row_queue(base, self._plan)

    def run(self, progress: bool | Callable[[int, int], None]) -> None:
        steps = sum(run.total_steps - run.adam.step for run in self._todo if not run.progress.finished)
        with (
            _Bar(steps, progress) as bar,
            self._base.activation_checkpointing(self._plan.activation_checkpointing),
            retain_large_blocks(),
        ):
            try:
                self._loop(bar)
            except BaseException:
                for run in self._active:  # an interrupt loses nothing that was finished
                    self._folder.save(run)
                raise

    def _loop(self, bar: _Bar) -> None:
        with workers_of(self._run_batch, _worker_count(self._base, self._plan)) as workers:
            self._admit()
            while self._active:
                while not workers.full and (batch := self._queue.pop()):
                    workers.submit(batch)
                for batch, outcome in workers.finished():
                    self._deliver(batch, outcome, bar)
                self._admit()
                self._folder.save_now_and_then(self._active)

    def _admit(self) -> None:
        """Let waiting users in, as others leave."""
        while self._todo and len(self._active) < self._plan.users_in_flight:
            run = self._todo.pop()
            self._active.append(run)
            self._go_on(run)

    def _go_on(self, run: UserState) -> None:
        """Queue a user's next rows, or let it go."""
        jobs = run.next_rows()
        if jobs:
            self._queue.add(jobs)
        else:
            self._active.remove(run)
            self._finish(run)

    def _run_batch(self, batch: MicroBatch) -> MicroBatchResult:
        prefixes = torch.stack([job.user.prefix for job in batch.jobs])
        weights = [job.weight for job in batch.jobs if job.weight is not None]
        rows = [job.row for job in batch.jobs]
        return run_rows(self._base, batch.shape, rows, prefixes, weights or None, self._layout)

    def _deliver(self, batch: MicroBatch, outcome: MicroBatchResult, bar: _Bar) -> None:
        for number, job in enumerate(batch.jobs):
            gradient = None if outcome.gradients is None else outcome.gradients[number]
            before = job.user.adam.step
            if job.user.accept_result(job, outcome.losses[number], gradient):
                self._go_on(job.user)
                bar.add(job.user.adam.step - before)


class _Bar:
    """Steps done, on stderr or for whoever wants to know."""

    def __init__(self, steps: int, progress: bool | Callable[[int, int], None]) -> None:
        self._tell = progress if callable(progress) else None
        self._bar = ProgressBar(total=steps, desc="training", unit="step", disable=progress is not True)
        self._done, self._steps = 0, steps

    def add(self, steps: int) -> None:
        self._bar.update(steps)
        self._done += steps
        if self._tell is not None and steps:
            self._tell(self._done, self._steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _user_runs(
    base: FrozenBase,
    examples: Mapping[str, Iterable[Example]],
    validation: Mapping[str, Iterable[Example]],
    spec: PrefixSpec,
    plans: Mapping[str, TrainingPlan],
    given: Mapping[str, Prefix],
) -> list[UserState]:
    """Each user at its start, nothing trained yet."""
    split = {}
    for user, texts in examples.items():
        cut = plans[user].max_prompt_tokens
        rows = encode_user(base, user, texts, length=spec.length, max_prompt_tokens=cut)
        if user in validation:
            judging = encode_user(base, user, validation[user], length=spec.length, max_prompt_tokens=cut)
            split[user] = rows, judging, True
        else:
            split[user] = split_rows(rows, plans[user])
        if spec.place == "infix":
            _require_causal(base)
            training, judging, apart = split[user]
            split[user] = [row.with_infix for row in training], [row.with_infix for row in judging], apart
    beginners = [InitRequest(split[user][0], given.get(user), plans[user].seed) for user in examples]
    runs = []
    for user, (start, reparam) in zip(examples, _beginnings(base, spec, beginners), strict=True):
        if not torch.isfinite(start).all():
            raise InvalidArgument(
                f"the start of user {user!r} has NaN or infinite values in {base.dtype}",
                "load the base with dtype='fp32', or choose another start",
            )
        adam = Adam.of(reparam.initial().to(base.device))
        digest = hashlib.sha256(start.numpy().tobytes()).hexdigest()
        runs.append(UserState(user, *split[user], plans[user], reparam, adam, digest))
    return runs


def _require_causal(base: FrozenBase) -> None:
    if base.is_encoder_decoder:
        raise InvalidArgument(
            "place is 'infix', and this base is an encoder-decoder", "use place='prefix', or a causal base"
        )


def _beginnings(
    base: FrozenBase, spec: PrefixSpec, beginners: Sequence[InitRequest]
) -> Iterator[tuple[Tensor, Reparameterization]]:
    """Each user's prefix at the start, flat on the CPU, and what trains it."""
    if spec.layers == "embedding":
        for vectors in initial_vectors(base, spec, beginners):
            embedded = EmbeddingReparameterization(partial(keys_and_values, base), vectors, spec.freeze_sink)
            with torch.no_grad():
                yield embedded.prefix(vectors.flatten()).cpu(), embedded
        return
    hidden = base.head.weight.shape[1]
    for start, beginner in zip(initial_prefixes(base, spec, beginners), beginners, strict=True):
        yield (
            start,
            reparameterization_for(spec, layout_of(base, spec), start.to(base.device), hidden, beginner.seed),
        )


def _result(base: FrozenBase, layout: Layout, run: UserState) -> TrainedUser:
    state = run.progress
    after = state.best_loss if run.validated and state.best is not None else state.last_loss
    return TrainedUser(
        prefix=Prefix(run.final_prefix(), layout, base.fingerprint),
        loss_before=float("nan") if state.first_loss is None else state.first_loss,
        loss_after=float("nan") if after is None else after,
        validated=run.validated,
        steps=run.adam.step,
        tokens=state.tokens,
        diverged=state.diverged,
    )


def _spec(spec: PrefixSpec | None) -> PrefixSpec:
    spec = PrefixSpec() if spec is None else spec
    require(spec, PrefixSpec, "spec")
    return spec


def _plans(
    users: Iterable[str], plan: TrainingPlan | Mapping[str, TrainingPlan] | None
) -> dict[str, TrainingPlan]:
    """One plan per user, all of one micro-batch shape."""
    if plan is None or isinstance(plan, TrainingPlan):
        return dict.fromkeys(users, plan or TrainingPlan())
    require_users(plan, "plan")
    for user, given in plan.items():
        require(given, TrainingPlan, f"plan[{user!r}]")
    missing = [user for user in users if user not in plan]
    if missing:
        raise InvalidArgument(f"no plan for user {missing[0]!r}", "give one plan per user, or one for all")
    if len({given.shape() for given in plan.values()}) > 1:
        raise InvalidArgument(
            "the users' plans differ in batching, micro_batch_tokens, workers, users_in_flight or "
            "activation_checkpointing",
            "these belong to the run: give all plans the same",
        )
    return {user: plan[user] for user in users}


def _starts(users: Iterable[str], start: Prefix | Mapping[str, Prefix] | None) -> dict[str, Prefix]:
    if start is None:
        return {}
    if isinstance(start, Prefix):
        return dict.fromkeys(users, start)
    require_users(start, "start")
    for user, given in start.items():
        require(given, Prefix, f"start[{user!r}]")
    unknown = set(start) - set(users)
    if unknown:
        raise InvalidArgument(f"a start is given for {sorted(unknown)[0]!r}, who has no examples")
    return dict(start)


def _place(
    checkpoint: str | Path | MutableMapping[str, bytes] | None,
) -> Path | MutableMapping[str, bytes] | None:
    if checkpoint is None or isinstance(checkpoint, MutableMapping):
        return checkpoint
    return path_of(checkpoint, "checkpoint")


def _validation(
    examples: Mapping[str, Iterable[Example]], validation: Mapping[str, Iterable[Example]] | None
) -> Mapping[str, Iterable[Example]]:
    if validation is None:
        return {}
    require_users(validation, "validation")
    unknown = set(validation) - set(examples)
    if unknown:
        raise InvalidArgument(f"validation texts of {sorted(unknown)[0]!r}, who has no examples")
    return validation


def _worker_count(base: FrozenBase, plan: TrainingPlan) -> int:
    """Micro-batches at once: one per core, but one where a user's rows share a single micro-batch."""
    if base.device.type != "cpu":
        return 1
    return plan.workers or (1 if plan.batching == "per-user" else worker_count(base))
