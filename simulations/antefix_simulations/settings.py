"""What a run does. Names are those of Flower's run-config, with dashes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from antefix.errors import InvalidArgument
from antefix_server.rounds.config import RoundConfig
from antefix_server.rounds.server_optimizer import RULES
from antefix_simulations.data.columns import Columns
from antefix_simulations.data.prepare import Choice

__all__ = ["RunSettings"]

Count = Annotated[int, Field(ge=1)]
_MEANS = ("fedavg", "fedavgm", "fedprox", "fedadagrad", "fedadam", "fedyogi")
_ARMS = ("context", "retrieved", "lora", "full")
_OF_SERVERS = ("hostile", "round_timeout_s", "promote_every", "patience")
_HINT = "docs/guides/simulate.md lists the settings; NAME=VALUE, and a -c for each"


class RunSettings(RoundConfig):
    """On top of the settings of rounds, which are those of a real server.

    Attributes:
        data: `sample`, a file of JSON lines, `git:FOLDER`, `mbox:FILE`, `hf:NAME`.
        broken_lines: of a file: `refuse` it, or `skip` them.
        base, device, dtype: as for `FrozenBase.load`.
        length: positions of prefixes.
        users, min_texts, max_texts, held_out, max_held_out, new_users: see `Choice`.
        max_prompt_tokens: prompts are cut to so many.
        max_text_tokens: longer texts are left out.
        cohort_size: users of one task.
        micro_batch_tokens: of one forward and backward pass, a multiple of 64; 0 for 512 on a CPU and 8192 on
            a GPU.
        private: give each user a private prefix after the rounds.
        private_passes, private_learning_rate, private_batch_size: of private prefixes.
        others: other users' prefixes that each user's texts are read under; 0 for none.
        matrix: users of the table of everybody under everybody's prefix.
        arms: more to compare with, by commas: `context`, `retrieved`, `lora`, `full`.
        context_tokens: of a row with texts in front.
        retrieved_texts: of them, where the nearest are chosen.
        lora_rank, lora_learning_rate, full_learning_rate: of those arms; passes and batches are those of
            private prefixes.
        histories: numbers of texts, by commas: private prefixes of the users who have at least the most of
            them, from so many of their newest texts.
        generate: held-out texts with a prompt, of each user, that the base writes under no prefix, the shared
            and the private one; 0 for none.
        generate_tokens: of such a text at most.
        tune_users: whose training texts choose the learning rate of each method that trains; 0 to take the
            rates as they are.
        tune_factors: by commas: the grid, in multiples of those rates.
        newcomers: new users that every round's shared prefix is tried on; 0 for all.
        seal: store private prefixes as sealed records in a vault.
        seed: of everything.
        where, subset, split, user_column, text_column, prompt_column, time_column, partition, partitions,
            partition_by, partition_alpha, partition_labels: see `Columns`.
    """

    # One number is a list, and a name, too.
    model_config = ConfigDict(coerce_numbers_to_str=True, allow_inf_nan=False)

    min_users: Count = 1
    data: str = "sample"
    broken_lines: Literal["refuse", "skip"] = "refuse"
    base: str = "smollm2-135m-q4"
    device: str = "cpu"
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    length: Annotated[int, Field(ge=2)] = 8
    users: Annotated[int, Field(ge=0)] = 0
    min_texts: Count = 8
    max_texts: Annotated[int, Field(ge=2, le=10**9)] = 128
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.25
    max_held_out: Count = 24
    new_users: Annotated[float, Field(ge=0, lt=1)] = 0.25
    max_prompt_tokens: Count = 64
    max_text_tokens: Count = 256
    cohort_size: Count = 32
    micro_batch_tokens: Annotated[int, Field(ge=0, le=2**20, multiple_of=64)] = 0
    private: bool = True
    private_passes: Annotated[float, Field(gt=0)] = 2.5
    private_learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-3
    private_batch_size: Count = 4
    others: Annotated[int, Field(ge=0)] = 3
    matrix: Annotated[int, Field(ge=0)] = 8
    arms: str = ""
    context_tokens: Annotated[int, Field(ge=64)] = 1024
    retrieved_texts: Count = 8
    lora_rank: Count = 4
    lora_learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-3
    full_learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-5
    newcomers: Annotated[int, Field(ge=0)] = 16
    seal: bool = True
    histories: str = ""
    generate: Annotated[int, Field(ge=0)] = 0
    generate_tokens: Count = 48
    tune_users: Annotated[int, Field(ge=0)] = 0
    tune_factors: str = "0.3,1,3"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    where: str = ""
    subset: str = ""
    split: str = "train"
    user_column: str = ""
    text_column: str = ""
    prompt_column: str = ""
    time_column: str = ""
    partition: Literal["none", "iid", "dirichlet", "pathological"] = "none"
    partitions: Count = 10
    partition_by: str = ""
    partition_alpha: Annotated[float, Field(gt=0)] = 0.5
    partition_labels: Count = 2

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        """What a run-config says.

        Raises:
            InvalidArgument: a name or a value that cannot be; says which.
        """
        try:
            return cls(**said)
        except InvalidArgument as error:  # of settings that are a part of these
            raise InvalidArgument(error.message.partition(": ")[2] or error.message, _HINT) from None
        except ValidationError as error:
            raise _refused(error, list(cls().model_dump(by_alias=True))) from None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.strategy.lower() not in _MEANS:
            known = self.strategy.lower() in RULES
            why = "needs each user's update, and a cohort sends sums" if known else "is no strategy"
            raise ValueError(f"{self.strategy:.40} {why}: use one of {', '.join(_MEANS)}")
        for name in _OF_SERVERS:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name.replace('_', '-')} is for real servers: a simulation never looks at it"
                )
        try:
            _ = self.rule
        except InvalidArgument as error:  # a value that the rule does not look at
            raise ValueError(error.message) from None
        for arm in self.more_arms:
            if arm not in _ARMS:
                raise ValueError(f"there is no arm {arm!r:.40}: {', '.join(_ARMS)}")
        if not self.private and (self.more_arms or self.histories or self.generate or self.tune_users):
            raise ValueError(
                "arms, histories, generate and tune-users go beside private prefixes: private=true"
            )
        held = min(max(1, round(self.max_texts * self.held_out)), self.max_held_out)
        if self.max_texts - held < self.min_texts:
            raise ValueError(
                f"max-texts={self.max_texts} leaves a user {self.max_texts - held} training texts, "
                f"and min-texts={self.min_texts} are wanted"
            )
        self._agree_on_lists()
        self._agree_on_data()
        return self

    def _agree_on_lists(self) -> None:
        try:
            right = all(size >= 1 for size in self.history_sizes)
            right = right and bool(self.factors) and all(0 < one < math.inf for one in self.factors)
        except ValueError:
            right = False
        if not right:
            raise ValueError("histories and tune-factors are positive numbers with commas between")

    def _agree_on_data(self) -> None:
        """What a source would not look at is a mistake."""
        _ = self.columns
        kind = self.data.partition(":")[0]
        if self.where and kind in ("git", "mbox"):
            raise ValueError(f"where chooses rows by a column, and {kind}: has no columns")
        others = {name: one.default for name, one in Columns.model_fields.items() if name != "where"}
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
        return sorted({int(one) for one in self.histories.split(",") if one.strip()})

    @property
    def factors(self) -> list[float]:
        """Of the grid, rising."""
        return sorted({float(one) for one in self.tune_factors.split(",") if one.strip()})

    @property
    def columns(self) -> Columns:
        """How a source is read."""
        return Columns(**{name: getattr(self, name) for name in Columns.model_fields})

    @property
    def choice(self) -> Choice:
        """Which users and texts are taken."""
        return Choice(**{name: getattr(self, name) for name in Choice.model_fields})


def _refused(error: ValidationError, names: list[str]) -> InvalidArgument:
    """The first mistake."""
    first = error.errors()[0]
    word, said = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(word, names, n=1)
        return InvalidArgument(
            f"there is no setting {word!r:.60}", f"did you mean {near[0]}?" if near else _HINT
        )
    given = f"{word} is {first['input']!r:.60}: {said.lower()}" if word else said
    return InvalidArgument(given, _HINT)
