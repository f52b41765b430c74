"""The settings of rounds: what `antefix-server federate` and Flower's run-config say.

To add a setting, add one field. Its name, type, default, bounds and docstring are all there is: the defaults
in both `pyproject.toml`, the help of the command and the table in the documentation are made of them
(`antefix_server.rounds.config_docs`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from antefix.errors import InvalidArgument

if TYPE_CHECKING:
    from antefix_server.rounds.privacy import Privacy
    from antefix_server.rounds.server_optimizer import ServerOptimizer


def kebab(name: str) -> str:
    """A field's name as run-configs write it."""
    return name.replace("_", "-")


class RoundConfig(BaseModel):
    """Settings of a run of rounds; each field says what it is. In a run-config names have dashes."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=kebab,
        populate_by_name=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    num_server_rounds: Annotated[int, Field(ge=1, le=100_000)] = 3
    """Rounds to run."""
    strategy: str = "fedavg"
    """Rule of Flower, in small letters."""
    server_learning_rate: Annotated[float, Field(ge=0)] = 0.0
    """`eta` of adaptive rules, the rate of fedavgm; 0 for Flower's own."""
    hostile: Annotated[int, Field(ge=0)] = 1
    """Users that krum, multikrum and bulyan must bear."""
    min_users: Annotated[int, Field(ge=1)] = 5
    """Below it nothing is released."""
    fraction_train: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the users that are there, asked in a round."""
    sampling: Literal["fixed", "poisson"] = "fixed"
    """A fixed share of the users, or a coin flip for each."""
    round_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds for the answers of a round."""
    weights: Literal["users", "examples"] = "users"
    """Users count alike, or by their texts, at most 4,096; not with privacy."""
    clip: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Largest norm of an update."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 8
    """Training steps on the device."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-3
    """Of the training on the device."""
    projection_dim: Annotated[int, Field(ge=0)] = 0
    """Numbers of an update; 0 for all."""
    noise_multiplier: Annotated[float, Field(ge=0)] = 0.0
    """Noise for privacy, in clips; 0 for none, or for what target-epsilon asks."""
    target_epsilon: Annotated[float, Field(ge=0)] = 0.0
    """The run ends before it; 0 for no privacy unless there is noise."""
    target_delta: Annotated[float, Field(gt=0, le=0.1)] = 1e-5
    """Below one over the number of users."""
    promote_every: Annotated[int, Field(ge=0)] = 0
    """Rounds after which devices get the new release; 0 for after the last."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Rounds without a lower loss after which the run ends; 0 for never. Not with privacy."""

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
    def rule(self) -> ServerOptimizer:
        """The rule that makes the next shared prefix.

        Raises:
            InvalidArgument: there is none of that name, or it does not look at a value that was given.
        """
        from antefix_server.rounds import server_optimizer

        rule = server_optimizer.optimizer(self.strategy, self.server_learning_rate, self.hostile)
        used_by = {
            "server_learning_rate": server_optimizer.WITH_RATE,
            "hostile": server_optimizer.BEARS_HOSTILE,
        }
        for name, rules in used_by.items():
            value = getattr(self, name)
            # Flower hands on every name, so what has its default was not given.
            if self.strategy.lower() not in rules and value != type(self).model_fields[name].default:
                raise InvalidArgument(
                    f"strategy {self.strategy!r} does not look at {kebab(name)}={value:g}",
                    f"leave it out, or use one of {', '.join(rules)}",
                )
        return rule

    @property
    def is_poisson(self) -> bool:
        """Whether each user is asked or not by an own coin flip."""
        return self.sampling == "poisson"

    @property
    def by_examples(self) -> bool:
        """Whether users count by their texts."""
        return self.weights == "examples"

    @cached_property
    def privacy(self) -> Privacy | None:
        """How users are protected; None for no noise.

        Raises:
            InvalidArgument: no noise makes the rounds as private as is asked.
        """
        from antefix_server.rounds.privacy import Privacy, noise_for

        noise, fraction = self.noise_multiplier, self.fraction_train
        if not noise and not self.target_epsilon:
            return None
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
