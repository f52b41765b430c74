"""What a run does. Names are those of Flower's run-config, with dashes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from antefix.errors import InvalidArgument
from antefix_server.rounds.config import RoundConfig
from antefix_server.rounds.server_optimizer import RULES
from antefix_simulations.arms.interface import MethodSettings
from antefix_simulations.arms.registry import optional_arms
from antefix_simulations.data.columns import Columns
from antefix_simulations.data.prepare import Choice

__all__ = ["RunSettings"]

_MEANS = ("fedavg", "fedavgm", "fedprox", "fedadagrad", "fedadam", "fedyogi")
_ONLY_ON_SERVERS = ("hostile", "round_timeout_s", "promote_every", "patience")
_HINT = "docs/guides/simulate.md lists the settings; NAME=VALUE, and a -c for each"


class _TextsAndBase(BaseModel):
    """Whose texts, and which base.

    Attributes:
        data: `sample`, a file of JSON lines, `git:FOLDER`, `mbox:FILE`, `hf:NAME`.
        broken_lines: of a file: `refuse` it, or `skip` them.
        base, device, dtype: as for `FrozenBase.load`.
        length: positions of prefixes.
    """

    data: str = "sample"
    broken_lines: Literal["refuse", "skip"] = "refuse"
    base: str = "smollm2-135m-q4"
    device: str = "cpu"
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    length: Annotated[int, Field(ge=2)] = 8


class RunSettings(Columns, MethodSettings, Choice, _TextsAndBase, RoundConfig):
    """All settings of a run: those of rounds are a real server's, then base and texts, then each user's part.

    pydantic lists the fields of the last class first; stored files and `--help` have this order.
    """

    # One number is a list, and a name, too.
    model_config = ConfigDict(coerce_numbers_to_str=True)

    min_users: Annotated[int, Field(ge=1)] = 1

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """What a run-config says.

        Raises:
            InvalidArgument: a name or a value that cannot be; says which.
        """
        try:
            return cls(**config)
        except ValidationError as error:
            raise _explain(error, list(cls().model_dump(by_alias=True))) from None

    @model_validator(mode="after")
    def _require_sense(self) -> Self:
        if self.strategy.lower() not in _MEANS:
            known = self.strategy.lower() in RULES
            why = "needs each user's update, and a cohort sends sums" if known else "is no strategy"
            raise ValueError(f"{self.strategy:.40} {why}: use one of {', '.join(_MEANS)}")
        for name in _ONLY_ON_SERVERS:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name.replace('_', '-')} is for real servers: a simulation never looks at it"
                )
        try:
            _ = self.rule
        except InvalidArgument as error:  # a value that the rule does not look at
            raise ValueError(error.message) from None
        for arm in self.more_arms:
            if arm not in optional_arms():
                raise ValueError(f"there is no arm {arm!r:.40}: {', '.join(optional_arms())}")
        if not self.private and (self.more_arms or self.histories or self.generate or self.tune_users):
            raise ValueError(
                "arms, histories, generate and tune-users go beside private prefixes: private=true"
            )
        judging = min(max(1, round(self.max_texts * self.held_out)), self.max_held_out)
        if self.max_texts - judging < self.min_texts:
            raise ValueError(
                f"max-texts={self.max_texts} leaves a user {self.max_texts - judging} training texts, "
                f"and min-texts={self.min_texts} are wanted"
            )
        self._require_lists()
        self._require_data()
        return self

    def _require_lists(self) -> None:
        try:
            right = all(size >= 1 for size in self.history_sizes)
            right = right and bool(self.factors) and all(0 < factor < math.inf for factor in self.factors)
        except ValueError:
            right = False
        if not right:
            raise ValueError("histories and tune-factors are positive numbers with commas between")

    def _require_data(self) -> None:
        """What a source would not look at is a mistake."""
        kind = self.data.partition(":")[0]
        if self.where and kind in ("git", "mbox"):
            raise ValueError(f"where chooses rows by a column, and {kind}: has no columns")
        others = {name: field.default for name, field in Columns.model_fields.items() if name != "where"}
        ignored = [name for name, default in others.items() if getattr(self, name) != default]
        if kind != "hf" and ignored:
            raise ValueError(
                f"{ignored[0].replace('_', '-')} is for data of hf:, and data is {self.data!r:.80}; "
                "hf:FILE reads .jsonl, .csv and .parquet too"
            )

    @property
    def more_arms(self) -> list[str]:
        """Beyond those that every run has."""
        return [arm.strip() for arm in self.arms.split(",") if arm.strip()]

    @property
    def history_sizes(self) -> list[int]:
        """Numbers of texts, rising."""
        return sorted({int(size) for size in self.histories.split(",") if size.strip()})

    @property
    def factors(self) -> list[float]:
        """Of the grid, rising."""
        return sorted({float(factor) for factor in self.tune_factors.split(",") if factor.strip()})

    @property
    def columns(self) -> Columns:
        """How a source is read."""
        return self

    @property
    def choice(self) -> Choice:
        """Which users and texts are taken."""
        return self


def _explain(error: ValidationError, names: list[str]) -> InvalidArgument:
    """The first mistake."""
    first = error.errors()[0]
    word, reason = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(word, names, n=1)
        return InvalidArgument(
            f"there is no setting {word!r:.60}", f"did you mean {near[0]}?" if near else _HINT
        )
    message = f"{word} is {first['input']!r:.60}: {reason.lower()}" if word else reason
    return InvalidArgument(message, _HINT)
