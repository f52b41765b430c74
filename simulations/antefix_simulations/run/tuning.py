"""The learning rate of each method, from the same grid, on texts that judge nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from antefix_simulations.data.store import Split
from antefix_simulations.settings import RunSettings

__all__ = ["facts_of", "grid", "inner_split", "methods"]

_SHARE = 0.25


def methods(settings: RunSettings) -> dict[str, float]:
    """Methods that train, and the rate that their settings give them."""
    rates = {"private": settings.private_learning_rate}
    others = {"lora": settings.lora_learning_rate, "full": settings.full_learning_rate}
    return rates | {arm: rate for arm, rate in others.items() if arm in settings.more_arms}


def grid(settings: RunSettings, method: str) -> list[float]:
    """Rates to try."""
    return [methods(settings)[method] * factor for factor in settings.factors]


def inner_split(split: Split) -> Split:
    """A user's training texts alone: the newest quarter judges."""
    held = max(1, round(_SHARE * len(split.training)))
    return Split(split.training[:-held], split.training[-held:])


def facts_of(method: str, rates: Sequence[float], losses: Sequence[Sequence[float]]) -> dict[str, Any]:
    """What was tried, and what was taken: the lowest mean over users; the middle if nobody was measured.

    Args:
        method: one of `methods`.
        rates: that were tried.
        losses: of each user, one for each rate.
    """
    means = [sum(one) / len(one) for one in zip(*losses, strict=True)]
    chosen = rates[means.index(min(means))] if means else rates[len(rates) // 2]
    return {
        "method": method,
        "rates": list(rates),
        "nats per token": means,
        "users": len(losses),
        "rate": chosen,
    }
