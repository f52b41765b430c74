"""A plan cut to what one `learn` may take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from antefix.common.settings import Count, Settings
from antefix.errors import InvalidArgument
from antefix.training.config import TrainingPlan

if TYPE_CHECKING:
    from antefix import FrozenBase

_SHARE_OF_TIME = 0.7  # the rest is for judging, and for what a first guess of the speed is off
_PROBE_TOKENS = 256
_RUNTIME_BYTES = 470 * 2**20  # Python with torch and transformers and an open profile, without weights
_HEAD_BYTES = 80 * 2**20  # logits of a few positions, and what two runs of the same plan differ by
# What a backward pass keeps of one token in one layer, in units of the hidden size; measured on SmolLM2.
_KEPT, _KEPT_WITH_RECOMPUTING = 16, 6
_MICRO_BATCHES = (512, 256, 128, 64)


class Budget(Settings):
    """What one `learn` may take; whatever is None has no limit.

    Attributes:
        seconds: of training and judging; loading the base does not count.
        tokens: real tokens computed in training steps.
        memory_mb: of the process while it trains, the base included, by an estimate.
    """

    seconds: float | None = Field(default=None, gt=0)
    tokens: Count | None = None
    memory_mb: Count | None = None


def fit_to_budget(
    budget: Budget, base: FrozenBase, plan: TrainingPlan, tokens: Sequence[int]
) -> TrainingPlan:
    """The plan cut to a budget.

    Args:
        budget: what it may take.
        base: the base.
        plan: as the rule has it.
        tokens: real tokens of each text that trains.

    Raises:
        InvalidArgument: not even one step fits.
    """
    texts = len(tokens)
    steps = plan.steps_for(texts)
    per_step = max(1, sum(tokens) * min(plan.batch_size, texts) // texts)
    if budget.tokens is not None:
        steps = min(steps, budget.tokens // per_step)
    if budget.seconds is not None:
        fitting = budget.seconds * _SHARE_OF_TIME / _seconds_per_step(base, per_step)  # may be infinite
        steps = int(min(steps, fitting))
    if steps < 1:
        raise InvalidArgument(
            f"the budget is below one step of {per_step} tokens", "allow more tokens or seconds"
        )
    return plan.model_copy(update={"max_steps": steps, **_fitting(budget, base, max(tokens))})


def _seconds_per_step(base: FrozenBase, tokens: int) -> float:
    """Measured on a throw-away text."""
    from antefix import Example, PrefixSpec, train

    probe = min(tokens, _PROBE_TOKENS)
    texts = {"probe": [Example("a b " * (probe // 2 + 1))]}
    plan = TrainingPlan(max_steps=1, evaluate=False, batching="per-user")
    times = []
    for _ in range(2):
        started = time.monotonic()
        train(base, texts, PrefixSpec(length=8), plan, progress=False)
        times.append(time.monotonic() - started)
    return min(times) * max(1.0, tokens / probe)


def _fitting(budget: Budget, base: FrozenBase, longest: int) -> dict[str, Any]:
    """Settings of a plan that keep it below the memory, the fastest first.

    A text is never cut: one that is longer than a micro-batch is a micro-batch.
    """
    if budget.memory_mb is None:
        return {}
    room = budget.memory_mb * 2**20
    for tokens in _MICRO_BATCHES:
        for recompute in (False, True):
            if estimated_bytes(base, max(tokens, longest), recompute=recompute) <= room:
                return {"micro_batch_tokens": tokens, "workers": 1, "activation_checkpointing": recompute}
    least = estimated_bytes(base, max(_MICRO_BATCHES[-1], longest), recompute=True) // 2**20 + 1
    raise InvalidArgument(
        f"the budget is {budget.memory_mb} MB of memory; this base, with a text of {longest} tokens, needs "
        f"about {least}",
        "allow more, use a smaller base, shorter texts, or dtype='bf16'",
    )


def estimated_bytes(base: FrozenBase, tokens: int, *, recompute: bool) -> int:
    """Memory of a process that trains one user with micro-batches of so many tokens, about."""
    weights = sum(parameter.numel() * parameter.element_size() for parameter in base.model.parameters())
    hidden, layers = base.head.weight.shape[1], len(base.layout.slots)
    per_unit = _KEPT_WITH_RECOMPUTING if recompute else _KEPT
    per_token = layers * hidden * per_unit * base.head.weight.element_size()
    return _RUNTIME_BYTES + weights + _HEAD_BYTES + tokens * per_token
