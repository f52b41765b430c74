"""Former form of `antefix_server.rounds.config.RoundConfig`."""

from __future__ import annotations

import warnings
from typing import Any

from antefix_server.rounds.config import RoundConfig
from antefix_server.rounds.privacy import Privacy

_NAMES = {"fraction": "fraction_train", "timeout_s": "round_timeout_s", "projection": "projection_dim"}


def RoundPlan(
    rounds: int,
    *,
    poisson: bool = False,
    by_examples: bool = False,
    privacy: Privacy | None = None,
    epsilon: float | None = None,
    **former: Any,
) -> RoundConfig:
    """A `RoundConfig` by the names that settings had. Goes with the next release."""
    warnings.warn(
        "antefix_server.strategy.RoundPlan is antefix_server.rounds.config.RoundConfig; "
        "the former name goes with the next release",
        DeprecationWarning,
        stacklevel=2,
    )
    settings = {_NAMES.get(name, name): value for name, value in {"timeout_s": 3600.0, **former}.items()}
    if privacy is not None:
        settings |= {"noise_multiplier": privacy.noise, "target_delta": privacy.delta}
        settings["target_epsilon"] = epsilon or 0.0
    return RoundConfig(
        num_server_rounds=rounds,
        sampling="poisson" if poisson else "fixed",
        weights="examples" if by_examples else "users",
        **settings,
    )
