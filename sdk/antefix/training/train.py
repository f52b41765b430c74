"""Trains many users' prefixes together on one frozen base."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from antefix.common.validation import path_of, require, require_users
from antefix.data.example import Example
from antefix.data.tokenization import encode_user, texts_of
from antefix.errors import ExampleError, InvalidArgument
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
from antefix.training.reparameterization import (
    EmbeddingReparameterization,
    Reparameterization,
    reparameterization_for,
)
from antefix.training.trainer import Trainer
from antefix.training.user_state import UserState, split_rows

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
        ExampleError, TextTooLong, InvalidArgument, PrefixMismatch, CheckpointMismatch,
        OutOfMemory.
    """
    require(base, FrozenBase, "base")
    require_users(examples, "examples")
    if not (on_finished is None or callable(on_finished)):
        raise InvalidArgument("on_finished is no function", "it is called with a name and a TrainedUser")
    spec = _spec(spec)
    plans = _plans(examples, plan)
    starts = _starts(examples, start)
    layout = layout_of(base, spec)
    saved = Checkpoint(_place(checkpoint), base.fingerprint, spec)
    states = _initial_states(base, examples, _validation(examples, validation), spec, plans, starts)
    for state in states:
        saved.restore(state)
    results: dict[str, TrainedUser] = {}

    def finish(user: UserState) -> None:
        saved.save(user)
        results[user.name] = _result(base, layout, user)
        if on_finished is not None:
            on_finished(user.name, results[user.name])

    if states:
        Trainer(base, layout, states, saved, finish).run(progress)
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
) -> TrainedUser:
    """Train one prefix on everybody's texts: the centralised reference of the federated shared prefix.

    Without a `start` it starts from neutral words: a shared prefix goes to everybody, and a start from
    examples would carry the first user's text almost verbatim. There is one prefix and no neighbour, so the
    plan's `batching` is `per-user`: no dummies.

    Raises:
        As `train`; InvalidArgument for `start="examples"`.
    """
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
        raise ExampleError("no users to train a shared prefix on", "give at least one user's texts")
    plan = TrainingPlan(batch_size=16) if plan is None else plan
    require(plan, TrainingPlan, "plan")
    plan = plan.model_copy(update={"batching": "per-user"})
    everybody = {"shared": _joined(base, examples_by_user, spec, plan)}
    return train(base, everybody, spec, plan, start=start, checkpoint=checkpoint, progress=progress)["shared"]


def _joined(
    base: FrozenBase, examples_by_user: Mapping[str, Iterable[Example]], spec: PrefixSpec, plan: TrainingPlan
) -> list[Example]:
    """Everybody's texts, checked here too: `train` could not tell in its refusal whose text it was."""
    everybody: list[Example] = []
    for user, texts in examples_by_user.items():
        own = texts_of(user, texts)
        encode_user(base, user, own, length=spec.length, max_prompt_tokens=plan.max_prompt_tokens)
        everybody += own
    return everybody


def _initial_states(
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
            held_out = encode_user(base, user, validation[user], length=spec.length, max_prompt_tokens=cut)
            split[user] = rows, held_out, True
        else:
            split[user] = split_rows(rows, plans[user])
        if spec.place == "infix":
            _require_causal(base)
            training, held_out, apart = split[user]
            split[user] = [row.with_infix for row in training], [row.with_infix for row in held_out], apart
    requests = [InitRequest(split[user][0], given.get(user), plans[user].seed) for user in examples]
    states = []
    for user, (start, reparam) in zip(examples, _starting_points(base, spec, requests), strict=True):
        if not torch.isfinite(start).all():
            raise InvalidArgument(
                f"the start of user {user!r} has NaN or infinite values in {base.dtype}",
                "load the base with dtype='fp32', or choose another start",
            )
        adam = Adam.of(reparam.initial().to(base.device))
        digest = hashlib.sha256(start.numpy().tobytes()).hexdigest()
        states.append(UserState(user, *split[user], plans[user], reparam, adam, digest))
    return states


def _require_causal(base: FrozenBase) -> None:
    if base.is_encoder_decoder:
        raise InvalidArgument(
            "place is 'infix', and this base is an encoder-decoder", "use place='prefix', or a causal base"
        )


def _starting_points(
    base: FrozenBase, spec: PrefixSpec, requests: Sequence[InitRequest]
) -> Iterator[tuple[Tensor, Reparameterization]]:
    """Each user's prefix at the start, flat on the CPU, and what trains it."""
    if spec.layers == "embedding":
        for vectors in initial_vectors(base, spec, requests):
            embedding = EmbeddingReparameterization(partial(keys_and_values, base), vectors, spec.freeze_sink)
            with torch.no_grad():
                yield embedding.prefix(vectors.flatten()).cpu(), embedding
        return
    hidden = base.head.weight.shape[1]
    for start, request in zip(initial_prefixes(base, spec, requests), requests, strict=True):
        yield (
            start,
            reparameterization_for(spec, layout_of(base, spec), start.to(base.device), hidden, request.seed),
        )


def _result(base: FrozenBase, layout: Layout, user: UserState) -> TrainedUser:
    state = user.progress
    after = state.best_loss if user.validated and state.best is not None else state.last_loss
    return TrainedUser(
        prefix=Prefix(user.final_prefix(), layout, base.fingerprint),
        loss_before=float("nan") if state.first_loss is None else state.first_loss,
        loss_after=float("nan") if after is None else after,
        validated=user.validated,
        steps=user.adam.step,
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
