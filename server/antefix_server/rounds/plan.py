"""Former form of `antefix_server.rounds.config.RoundConfig`."""

from __future__ import annotations

import warnings
from typing import Any

from antefix_server.rounds.config import RoundConfig
from antefix_server.rounds.privacy import Privacy


def RoundPlan(
    rounds: int,
    min_users: int = 5,
    fraction: float = 1.0,
    poisson: bool = False,
    timeout_s: float = 3600.0,
    by_examples: bool = False,
    clip: float = 1.0,
    steps: int = 8,
    learning_rate: float = 5e-3,
    projection: int = 0,
    privacy: Privacy | None = None,
    epsilon: float | None = None,
    promote_every: int = 0,
    patience: int = 0,
) -> RoundConfig:
    """A `RoundConfig` by the names that settings had. Goes with the next release."""
    warnings.warn(
        "antefix_server.strategy.RoundPlan is antefix_server.rounds.config.RoundConfig; "
        "the former name goes with the next release",
        DeprecationWarning,
        stacklevel=2,
    )
    noise: dict[str, Any] = (
        {} if privacy is None else {"noise_multiplier": privacy.noise, "target_delta": privacy.delta}
    )
    return RoundConfig(
        num_server_rounds=rounds,
        min_users=min_users,
        fraction_train=fraction,
        sampling="poisson" if poisson else "fixed",
        round_timeout_s=timeout_s,
        weights="examples" if by_examples else "users",
        clip=clip,
        steps=steps,
        learning_rate=learning_rate,
        projection_dim=projection,
        target_epsilon=epsilon or 0.0 if privacy else 0.0,
        promote_every=promote_every,
        patience=patience,
        **noise,
    )
