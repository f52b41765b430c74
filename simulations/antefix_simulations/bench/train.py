"""Training, side by side: ours, PEFT one user after another, and ours one user after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from antefix import Example, FrozenBase, PrefixSpec, TrainingPlan, train
from antefix.common.malloc import retain_large_blocks
from antefix.data.tokenization import Row, encode
from antefix_simulations.arms.peft import PeftTraining
from antefix_simulations.bench.harness import (
    Arm,
    BenchReport,
    BenchSettings,
    Measured,
    compare,
    require_texts,
)
from antefix_simulations.common.machine import describe, matrix_rate, step_operations


class TrainBench(BenchSettings):
    """What is measured; defaults are those of `antefix-sim bench train`.

    Attributes:
        batch_size: texts per user and step, in every arm.
        passes: passes over each user's texts.
    """

    batch_size: int = Field(default=4, ge=1)
    passes: int = Field(default=1, ge=1)


def bench_train(
    base: FrozenBase,
    users: Mapping[str, Sequence[Example]],
    settings: TrainBench | None = None,
    *,
    progress: bool = True,
) -> BenchReport:
    """Train every user's prefix in three ways and compare real tokens per second.

    Each arm computes the same texts the same number of times, in steps of the same size. Nobody judges its
    prefixes, and all start anew in every repetition. Arms:

    * `ours`: users share micro-batches.
    * `peft`: PEFT's prefix tuning on one reused base, each batch padded to its longest text.
    * `one_user`: our own code with one user at a time: same attention, allocator and loss-only head.

    Args:
        base: the frozen base.
        users: each user's texts.
        settings: what is measured.
        progress: show a bar on stderr.

    Raises:
        InvalidArgument: an encoder-decoder, for which PEFT has no such prefixes.
    """
    settings = settings or TrainBench()
    require_texts(users)
    machine, rate_before = describe(base), matrix_rate(base)
    rows = {user: [encode(base, text, None) for text in texts] for user, texts in users.items()}
    arms = {"peft": _peft(base, rows, settings), **_ours(base, users, settings)}
    order = ["ours", "peft", "one_user"]
    measured = compare(
        base, {name: arms[name] for name in order}, list(users), settings.repetitions, progress
    )
    targets = settings.passes * sum(len(row.targets) for texts in rows.values() for row in texts)
    rate = max(rate_before, matrix_rate(base))  # whoever else uses the machine slows it down for a while only
    limit = _limit(base, rate, measured["ours"], targets)
    conclusion = (
        f"Matrix products of this base's shapes run at {limit['matrix_gflops']:,.0f} GFLOP/s here.\n"
        f"Training that did nothing else would reach {limit['limit_tokens_per_s']:,.0f} tokens/s; "
        f"Antefix reaches {limit['ours_of_limit']:.0%} of that."
    )
    return BenchReport(
        "train", machine, _settings_as_json(base, users, settings), measured, limit, conclusion
    )


def _peft(base: FrozenBase, rows: Mapping[str, Sequence[Row]], settings: TrainBench) -> Arm:
    peer = PeftTraining(base, settings.length)

    def peft(names: Sequence[str]) -> int:
        for user in names:
            peer.train(rows[user], passes=settings.passes, batch_size=settings.batch_size)
        return settings.passes * sum(row.tokens for user in names for row in rows[user])

    return peft


def _ours(base: FrozenBase, users: Mapping[str, Sequence[Example]], settings: TrainBench) -> dict[str, Arm]:
    spec = PrefixSpec(length=settings.length)

    def run(names: Sequence[str], plan: TrainingPlan) -> int:
        trained = train(base, {user: users[user] for user in names}, spec, plan, progress=False)
        return sum(result.tokens for result in trained.values())

    def ours(names: Sequence[str]) -> int:
        return run(names, _plan(settings))

    def one_user(names: Sequence[str]) -> int:
        plan = _plan(settings, batching="per-user", users_in_flight=1)
        with retain_large_blocks():  # no user pays for the memory that the one before gave back
            return sum(run([user], plan) for user in names)

    return {"ours": ours, "one_user": one_user}


def _plan(settings: TrainBench, **alone: Any) -> TrainingPlan:
    return TrainingPlan(
        passes=settings.passes,
        batch_size=settings.batch_size,
        validation_fraction=0,
        evaluate=False,
        **alone,
    )


def _settings_as_json(
    base: FrozenBase, users: Mapping[str, Sequence[Example]], settings: TrainBench
) -> dict[str, Any]:
    return {
        "base": base.name,
        "users": len(users),
        "rows": max(len(texts) for texts in users.values()),
        **settings.model_dump(),
    }


def _limit(base: FrozenBase, rate: float, ours: Measured, targets: int) -> dict[str, float]:
    """How fast the machine could train if it did nothing but the matrix products of the base."""
    limit = ours.tokens * rate / step_operations(base, ours.tokens, targets)
    return {
        "matrix_gflops": rate / 1e9,
        "limit_tokens_per_s": limit,
        "ours_of_limit": ours.rate / limit,
    }
