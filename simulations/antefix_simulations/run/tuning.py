"""The learning rate of each method, from the same grid, on texts that judge nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from antefix_simulations.arms.registry import arm_class, optional_arms
from antefix_simulations.data.store import Split
from antefix_simulations.settings import RunSettings

__all__ = ["TUNE", "facts_of", "grid", "inner_split", "inner_splits", "methods"]

TUNE = "tune_"
"""With the name of a method: a task that tries its learning rates."""
_SHARE = 0.25


def methods(settings: RunSettings) -> dict[str, float]:
    """Methods that train, and the rate that their settings give them."""
    rates = {"private": settings.private_learning_rate}
    for name in optional_arms():
        rate = arm_class(name).learning_rate(settings) if name in settings.more_arms else None
        rates |= {} if rate is None else {name: rate}
    return rates


def grid(settings: RunSettings, method: str) -> list[float]:
    """Rates to try."""
    return [methods(settings)[method] * factor for factor in settings.factors]


def inner_splits(users: Mapping[int, Split]) -> dict[int, Split]:
    """Those of all users with more than one training text."""
    return {user: inner_split(split) for user, split in users.items() if len(split.training) > 1}


def inner_split(split: Split) -> Split:
    """A user's training texts alone: the newest quarter judges."""
    judging = max(1, round(_SHARE * len(split.training)))
    return Split(split.training[:-judging], split.training[-judging:])


def facts_of(method: str, rates: Sequence[float], losses: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Rates that were tried, and the one to take: of the lowest mean; the middle if nobody was measured.

    Args:
        method: one of `methods`.
        rates: that were tried.
        losses: of each user, one for each rate.
    """
    means = [sum(column) / len(column) for column in zip(*losses, strict=True)]
    chosen = rates[means.index(min(means))] if means else rates[len(rates) // 2]
    return {
        "method": method,
        "rates": list(rates),
        "nats per token": means,
        "users": len(losses),
        "rate": chosen,
    }
