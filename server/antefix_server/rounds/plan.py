"""What a run of rounds does."""

from __future__ import annotations

from dataclasses import dataclass

from antefix_server.rounds.privacy import Privacy


@dataclass(frozen=True)
class RoundPlan:
    """What a run does.

    Attributes:
        rounds: so many.
        min_users: below this many updates nothing is added up and nothing is released.
        fraction: of the users that are there, asked in a round.
        poisson: each user is asked or not by a coin flip of its own, else a fixed share of them.
        timeout_s: for the answers of a round.
        by_examples: users count by their texts, at most 4,096; else all alike. Not with privacy.
        clip: largest norm of an update.
        steps, learning_rate: on the device.
        projection: numbers of an update; 0 for all.
        privacy: noise, or None for none.
        epsilon: the run ends before the round that would go over it; None for no end.
        promote_every: rounds after which devices get the new release; 0 for after the last one.
        patience: rounds without a lower loss after which the run ends; 0 for never. Not with privacy.
    """

    rounds: int
    min_users: int = 5
    fraction: float = 1.0
    poisson: bool = False
    timeout_s: float = 3600.0
    by_examples: bool = False
    clip: float = 1.0
    steps: int = 8
    learning_rate: float = 5e-3
    projection: int = 0
    privacy: Privacy | None = None
    epsilon: float | None = None
    promote_every: int = 0
    patience: int = 0
