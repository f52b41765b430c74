"""What `antefix-server federate` and Flower's run-config say about a run of rounds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from flwr.serverapp.strategy import Strategy
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from antefix.errors import InvalidArgument
from antefix_server.rounds.plan import RoundPlan
from antefix_server.rounds.privacy import Privacy, noise_for
from antefix_server.rounds.server_optimizer import RULES

_USED_BY = {
    "server_learning_rate": ("fedavgm", "fedadagrad", "fedadam", "fedyogi"),
    "hostile": ("krum", "multikrum", "bulyan"),
}


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class RoundConfig(BaseModel):
    """Names as in a run-config, with dashes.

    Attributes:
        num_server_rounds: so many.
        strategy: rule of Flower, in small letters.
        server_learning_rate: `eta` of adaptive rules, the rate of fedavgm; 0 for Flower's own.
        hostile: users that `krum`, `multikrum` and `bulyan` must bear.
        min_users: below it nothing is released.
        fraction_train: of the users that are there.
        sampling: `fixed` share of the users, or `poisson` coin flips.
        round_timeout_s: for the answers of a round.
        weights: `users` count alike, or by `examples`.
        clip: largest norm of an update.
        steps, learning_rate: on the device.
        projection_dim: numbers of an update; 0 for all.
        noise_multiplier: noise for privacy, in clips; 0 for none, or for what `target_epsilon` asks.
        target_epsilon: the run ends before it; 0 for no privacy unless there is noise.
        target_delta: below one over the number of users.
        promote_every: rounds after which devices get the new release; 0 for after the last.
        patience: rounds without a lower loss after which the run ends; 0 for never.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=_kebab, populate_by_name=True, allow_inf_nan=False
    )

    num_server_rounds: Annotated[int, Field(ge=1, le=100_000)] = 3
    strategy: str = "fedavg"
    server_learning_rate: Annotated[float, Field(ge=0)] = 0.0
    hostile: Annotated[int, Field(ge=0)] = 1
    min_users: Annotated[int, Field(ge=1)] = 5
    fraction_train: Annotated[float, Field(gt=0, le=1)] = 1.0
    sampling: Literal["fixed", "poisson"] = "fixed"
    round_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    weights: Literal["users", "examples"] = "users"
    clip: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    steps: Annotated[int, Field(ge=1, le=1000)] = 8
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-3
    projection_dim: Annotated[int, Field(ge=0)] = 0
    noise_multiplier: Annotated[float, Field(ge=0)] = 0.0
    target_epsilon: Annotated[float, Field(ge=0)] = 0.0
    target_delta: Annotated[float, Field(gt=0, le=0.1)] = 1e-5
    promote_every: Annotated[int, Field(ge=0)] = 0
    patience: Annotated[int, Field(ge=0)] = 0

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        """What a run-config says.

        Raises:
            InvalidArgument: a name or a value that cannot be; says which.
        """
        try:
            return cls(**said)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise InvalidArgument(
                f"run-config {where!r}: {first['msg'].lower()}", "antefix-server federate --help"
            ) from None

    @property
    def rule(self) -> Strategy:
        """The rule of Flower.

        Raises:
            InvalidArgument: there is none of that name, or it does not look at a value that was given.
        """
        kind = RULES.get(self.strategy.lower())
        if kind is None:
            raise InvalidArgument(f"there is no strategy {self.strategy!r:.40}", f"one of {', '.join(RULES)}")
        self._require_used()
        if self.strategy.lower() in _USED_BY["hostile"]:
            return kind(num_malicious_nodes=self.hostile)  # type: ignore[call-arg]
        rate = self.server_learning_rate
        if kind.__name__ == "FedAvgM":
            return kind(server_learning_rate=rate or 1.0, server_momentum=0.9)  # type: ignore[call-arg]
        if rate:
            return kind(eta=rate)  # type: ignore[call-arg]
        if kind.__name__ == "FedProx":
            return kind(proximal_mu=0.0)  # type: ignore[call-arg]
        return kind()

    def _require_used(self) -> None:
        """Flower hands on every name, so what has its default was not given."""
        for name, rules in _USED_BY.items():
            value = getattr(self, name)
            if self.strategy.lower() not in rules and value != type(self).model_fields[name].default:
                raise InvalidArgument(
                    f"strategy {self.strategy!r} does not look at {_kebab(name)}={value:g}",
                    f"leave it out, or use one of {', '.join(rules)}",
                )

    @property
    def plan(self) -> RoundPlan:
        """What the run does."""
        return RoundPlan(
            rounds=self.num_server_rounds,
            min_users=self.min_users,
            fraction=self.fraction_train,
            poisson=self.sampling == "poisson",
            timeout_s=self.round_timeout_s,
            by_examples=self.weights == "examples",
            clip=self.clip,
            steps=self.steps,
            learning_rate=self.learning_rate,
            projection=self.projection_dim,
            privacy=self._privacy,
            epsilon=self.target_epsilon or None,
            promote_every=self.promote_every,
            patience=self.patience,
        )

    @property
    def _privacy(self) -> Privacy | None:
        noise = self.noise_multiplier
        if not noise and not self.target_epsilon:
            return None
        fraction = self.fraction_train
        if not noise:
            noise = noise_for(
                self.target_epsilon, self.target_delta, self.num_server_rounds, self.sampling, fraction
            )
        return Privacy(noise, self.target_delta, self.sampling, fraction)


def choice(text: str) -> tuple[str, Any]:
    """NAME=VALUE.

    Raises:
        InvalidArgument: it is none.
    """
    name, sign, value = text.partition("=")
    if not sign:
        raise InvalidArgument(f"--run-config {text!r:.80}", "write NAME=VALUE")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value.strip()
