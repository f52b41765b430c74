"""What a run does. Names are those of Flower's run-config, with dashes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from antefix_server._roundconfig import RoundConfig
from antefix_simulations.population.columns import Columns
from antefix_simulations.population.prepare import Choice

__all__ = ["RunSettings"]

Count = Annotated[int, Field(ge=1)]
_MEANS = ("fedavg", "fedavgm", "fedprox", "fedadagrad", "fedadam", "fedyogi")


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

    min_users: Count = 1
    data: str = "sample"
    broken_lines: Literal["refuse", "skip"] = "refuse"
    base: str = "smollm2-135m-q4"
    device: str = "cpu"
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    length: Annotated[int, Field(ge=2)] = 8
    users: Annotated[int, Field(ge=0)] = 0
    min_texts: Count = 8
    max_texts: Annotated[int, Field(ge=2)] = 128
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

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.strategy.lower() not in _MEANS:
            raise ValueError(
                f"{self.strategy} needs each user's update, and a cohort sends sums: a mean, please"
            )
        for arm in self.more_arms:
            if arm not in ("context", "retrieved", "lora", "full"):
                raise ValueError(f"there is no arm {arm!r:.40}: context, retrieved, lora, full")
        if any(size < 1 for size in self.history_sizes) or not self.factors or min(self.factors) <= 0:
            raise ValueError("histories and tune-factors are positive numbers with commas between")
        _ = self.columns
        return self

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
