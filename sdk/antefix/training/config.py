"""What to train and how: settings that are checked when they are written down."""

from __future__ import annotations

import warnings
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from antefix.common.settings import Count, Settings
from antefix.common.validation import require_text
from antefix.model.kv_layout import Kind

Start = Literal["prefix", "examples", "words", "zeros", "random"]
FORMER_BATCHING = {"shared": "stacked", "per-user": "alone"}
"""Names that `TrainingPlan.batching` had before; a checkpoint still knows a run by them."""


class PrefixSpec(Settings):
    """Shape and start of a prefix.

    Attributes:
        length: positions P, the frozen sink row included. 5…32 suit short texts.
        mlp_width: width of the reparametrisation MLP (paper section 4.3; 512 for table-to-text), or
            None to train keys and values directly. The MLP exists in training only. It costs
            `width * 2 * layers * heads * head_dim` numbers per user, so it suits few users.
        layers: `all` trains keys and values of every layer; `embedding` trains P input vectors alone, of
            which the base makes the rest (paper section 7.2, "embedding-only"): for comparison, it is worse.
            What comes of it is a prefix like any other. Causal bases only.
        kinds: of an encoder-decoder's attention, those that get a prefix, of `encoder`, `decoder` and `cross`
            (section 4.2 gives all three one, and so does None).
        place: `infix` is seen from the end of a prompt on, by the completion alone (paper section 7.3): for
            comparison, it is worse. Generate with `GenerationRequest(infix=True)`. Causal bases only.
        start: `prefix` goes on from a given prefix; `examples` takes what the base computes on the
            user's own first tokens; `words` the same on `words`; `zeros`; `random`. None is `prefix`
            where one is given, else `examples`.
        words: the text of `start="words"`.
        freeze_sink: keep row 0 (the base's BOS token, an attention sink) as the base computes it.
    """

    length: int = Field(default=16, ge=1, le=2**16)
    mlp_width: int | None = Field(default=None, ge=1, le=2**16)
    layers: Literal["all", "embedding"] = "all"
    place: Literal["prefix", "infix"] = "prefix"
    kinds: tuple[Kind, ...] | None = Field(default=None, min_length=1)
    start: Start | None = None
    words: str | None = None
    freeze_sink: bool = True

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.freeze_sink and self.length < 2:
            raise ValueError("length 1 with freeze_sink=True leaves nothing to train; use length 2 or more")
        if self.layers == "embedding" and (self.mlp_width is not None or self.start == "prefix"):
            raise ValueError(
                "layers is 'embedding', which has no MLP and goes on from no prefix: "
                "leave out mlp_width, choose another start"
            )
        if (self.start == "words") != (self.words is not None):
            given = "not given" if self.words is None else "given"
            raise ValueError(f"start is {self.start!r} and words is {given}; they go together")
        if self.words is not None:
            require_text(self.words, "PrefixSpec.words")
        if self.words is not None and not self.words.strip():
            raise ValueError("words is empty; give a few words that name the task")
        return self


class TrainingPlan(Settings):
    """How a user's prefix is trained. Sizes are part of the plan: changing them moves the last bits.

    Attributes:
        max_steps: optimizer steps at most; None leaves it to `passes`.
        passes: passes over the user's training texts at most; None leaves it to `max_steps`.
        batch_size: texts per user and step.
        learning_rate: Adam's, falling linearly to 0. About 5e-3 for direct training from real
            activations, 5e-5…8e-5 through the MLP.
        warmup_steps: steps of linear rise before it falls.
        clip_norm: largest gradient norm of one user's step.
        beta1, beta2, epsilon: Adam's.
        validation_fraction: share of the user's own texts held out to judge the prefix; 0 for none.
        evaluate_every: steps between evaluations; None for start and end only.
        evaluate: judge the prefix before and after; without it no text is held out, the last prefix is kept
            and both losses are NaN.
        patience: evaluations without improvement before a user stops; None for never.
        seed: of the order of texts, the random start and the MLP.
        max_prompt_tokens: cut prompts to their first tokens; None for no cut.
        batching: `shared` micro-batches hold rows of many users at constant shapes; `per-user` gives each
            user micro-batches of its own, at their natural size. Both keep users bit for bit apart.
        micro_batch_tokens: tokens of one forward and backward pass, a multiple of 64; None is 512 on a
            CPU and 8192 on a GPU.
        workers: micro-batches that run at once on a CPU, one thread each; None for one per core.
        users_in_flight: users that train at the same time; the rest wait.
        activation_checkpointing: recompute activations: less memory, a step half as long again.
    """

    max_steps: Count | None = None
    passes: float | None = Field(default=None, gt=0, le=1e9)
    batch_size: Count = 4
    learning_rate: float = Field(default=5e-3, gt=0)
    warmup_steps: int = Field(default=0, ge=0, le=2**31)
    clip_norm: float = Field(default=1.0, gt=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, ge=1e-30, le=1)
    validation_fraction: float = Field(default=0.1, ge=0, lt=1)
    evaluate_every: Count | None = None
    evaluate: bool = True
    patience: Count | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    max_prompt_tokens: Count | None = None
    batching: Literal["shared", "per-user"] = "shared"
    micro_batch_tokens: int | None = Field(default=None, ge=64, le=2**20, multiple_of=64)
    workers: int | None = Field(default=None, ge=1, le=1024)
    users_in_flight: Count = 64
    activation_checkpointing: bool = False

    @model_validator(mode="before")
    @classmethod
    def _former_batching(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Take the former names for one release."""
        former = values.get("batching")
        if not isinstance(former, str) or former not in FORMER_BATCHING.values():
            return values
        name = next(name for name, word in FORMER_BATCHING.items() if word == former)
        warnings.warn(
            f"batching={former!r} is called {name!r}; the former name goes with the next release",
            DeprecationWarning,
            stacklevel=4,  # this function, pydantic's and our own __init__ stand between
        )
        return {**values, "batching": name}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.evaluate and (self.patience is not None or self.evaluate_every is not None):
            raise ValueError("patience and evaluate_every need evaluate=True")
        if self.patience is not None and not (self.evaluate_every and self.validation_fraction):
            raise ValueError("patience needs evaluate_every and a validation_fraction above 0")
        return self

    def steps_for(self, texts: int) -> int:
        """Optimizer steps for a user with that many training texts (3 passes where nothing is said)."""
        passes = 3.0 if self.passes is None and self.max_steps is None else self.passes
        per_pass = -(-texts // self.batch_size)
        steps = max(1, round(passes * per_pass)) if passes is not None else self.max_steps
        return min(steps or 1, self.max_steps or steps or 1)

    def shape(self) -> tuple[object, ...]:
        """The settings that all users of one run must share."""
        return (
            self.batching,
            self.micro_batch_tokens,
            self.workers,
            self.users_in_flight,
            self.activation_checkpointing,
        )
