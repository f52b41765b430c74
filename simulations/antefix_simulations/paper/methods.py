"""The paper's methods behind one interface: train on texts, read texts, write texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from antefix import (
    Example,
    FrozenBase,
    GenerationRequest,
    Prefix,
    PrefixSpec,
    TrainingPlan,
    generate,
    score,
    train,
)
from antefix.data.tokenization import Row, encode
from antefix.generation.request import tokenize
from antefix_simulations.arms.context_prefix import pack_examples
from antefix_simulations.arms.weights import Schedule, Weights
from antefix_simulations.paper.cell import Cell, PaperSettings
from antefix_simulations.paper.source import Texts
from antefix_simulations.paper.weights import KINDS

__all__ = ["METHODS", "Method", "Trained"]

_ROWS = 64
_CONTEXT = 1024
_LOOKS = 4
_MLP_WIDTH = 512  # section 4.3 and appendix A.3, table-to-text


class Trained(Protocol):
    """A method after training.

    Attributes:
        numbers: that were trained, and are stored for a task.
        tokens: of training, no padding.
        judged: nats per token of the judging texts.
        examples: texts in front of each input.
    """

    @property
    def numbers(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def judged(self) -> float: ...
    @property
    def examples(self) -> int: ...

    def read(self, texts: Sequence[Example]) -> float:
        """Nats per token of completions."""

    def write(self, prompts: Sequence[str]) -> list[str]:
        """The best text of a beam search after each prompt."""


@dataclass(frozen=True)
class Method:
    """How it is named, trained, and which learning rate is the middle of its grid.

    Attributes:
        train: with base, cell, settings, texts and learning rate.
        rate: 0 where nothing is trained.
    """

    train: Callable[[FrozenBase, Cell, PaperSettings, Texts, float], Trained]
    rate: float = 0.0


@dataclass
class _UnderPrefix:
    """A base under a prefix, or under none."""

    base: FrozenBase
    settings: PaperSettings
    prefix: Prefix | None
    numbers: int = 0
    tokens: int = 0
    judged: float = math.nan
    infix: bool = False
    examples: int = 0

    def read(self, texts: Sequence[Example]) -> float:
        """As `antefix.score`."""
        cut = self.settings.max_prompt_tokens
        return score(self.base, list(texts), self.prefix, max_prompt_tokens=cut, infix=self.infix)

    def write(self, prompts: Sequence[str]) -> list[str]:
        """As `antefix.generate`."""
        requests = [_request(self.settings, prompt, self.prefix, self.infix) for prompt in prompts]
        length = 0 if self.prefix is None else self.prefix.length
        rows = max(self.settings.beams, _ROWS * 256 // (256 + length))  # long prefixes fill the memory
        return [row.text for row in generate(self.base, requests, max_rows=rows, progress=True)]


@dataclass
class _OwnWeights:
    """A model with weights of its own."""

    base: FrozenBase
    settings: PaperSettings
    weights: Weights
    tokens: int
    judged: float
    examples: int = 0

    @property
    def numbers(self) -> int:
        """All that were trained."""
        return self.weights.numbers

    def read(self, texts: Sequence[Example]) -> float:
        """In batches."""
        return self.weights.read(_rows(self.base, self.settings, texts))

    def write(self, prompts: Sequence[str]) -> list[str]:
        """In batches of prompts of like length."""
        asked = [tokenize(self.base, _request(self.settings, prompt, None, False)) for prompt in prompts]
        order = sorted(range(len(asked)), key=lambda at: len(asked[at].source or asked[at].inputs))
        each, found = max(1, _ROWS // self.settings.beams), dict[int, list[int]]()
        for at in range(0, len(order), each):
            some = order[at : at + each]
            found |= dict(zip(some, self.weights.write([asked[one] for one in some]), strict=True))
        tokenizer: Any = self.base.tokenizer
        return [str(tokenizer.decode(found[at], skip_special_tokens=True)) for at in range(len(asked))]


def _prefix(
    base: FrozenBase, cell: Cell, settings: PaperSettings, texts: Texts, rate: float, **more: Any
) -> Trained:
    spec = PrefixSpec(length=cell.length, freeze_sink=cell.length > 1, **_start(cell.start), **more)
    plan = TrainingPlan(
        max_steps=texts.steps,
        batch_size=settings.batch_size,
        learning_rate=rate,
        evaluate_every=_every(texts.steps),
        seed=cell.sample,
        max_prompt_tokens=settings.max_prompt_tokens,
        batching="per-user",  # there is no neighbour, so no dummies
    )
    judging = {"task": list(texts.judging)}
    trained = train(base, {"task": list(texts.training)}, spec, plan, validation=judging)["task"]
    hidden = base.head.weight.shape[1]
    numbers = hidden * cell.length if spec.layers == "embedding" else len(trained.prefix.values)
    return _UnderPrefix(
        base, settings, trained.prefix, numbers, trained.tokens, trained.loss_after, spec.place == "infix"
    )


def _start(name: str) -> dict[str, Any]:
    """Settings of a prefix's start."""
    return {"start": "words", "words": name.strip('"')} if name.startswith('"') else {"start": name}


def _weights(
    kind: str, base: FrozenBase, cell: Cell, settings: PaperSettings, texts: Texts, rate: float
) -> Trained:
    weights = KINDS[kind](base, cell.sample)
    judging = _rows(base, settings, texts.judging)
    best, best_values = weights.read(judging), weights.keep()

    def look(step: int) -> None:
        nonlocal best, best_values
        if step % _every(texts.steps) == 0 or step == texts.steps:
            loss = weights.read(judging)
            if loss < best:
                best, best_values = loss, weights.keep()

    schedule = Schedule(texts.steps, settings.batch_size, rate, cell.sample)
    tokens = weights.train(_rows(base, settings, texts.training), schedule, look)
    weights.restore(best_values)
    return _OwnWeights(base, settings, weights, tokens, best)


def _in_context(base: FrozenBase, cell: Cell, settings: PaperSettings, texts: Texts, rate: float) -> Trained:
    """Training texts in front, as many as fit: what the base reads of them is a prefix nobody trained."""
    whole = _CONTEXT if base.context is None else min(base.context, _CONTEXT)
    front = pack_examples(base, texts.training, whole - texts.longest)
    method = _UnderPrefix(base, settings, front.prefix(base), examples=front.texts)
    method.judged = method.read(texts.judging)
    return method


def _nothing(base: FrozenBase, cell: Cell, settings: PaperSettings, texts: Texts, rate: float) -> Trained:
    method = _UnderPrefix(base, settings, None)
    method.judged = method.read(texts.judging)
    return method


def _rows(base: FrozenBase, settings: PaperSettings, texts: Sequence[Example]) -> list[Row]:
    return [encode(base, text, settings.max_prompt_tokens) for text in texts]


def _every(steps: int) -> int:
    return max(1, steps // _LOOKS)


def _request(settings: PaperSettings, prompt: str, prefix: Prefix | None, infix: bool) -> GenerationRequest:
    return GenerationRequest(
        prompt=prompt,
        prefix=prefix,
        infix=infix,
        num_beams=settings.beams,
        max_new_tokens=settings.new_tokens,
        max_prompt_tokens=settings.max_prompt_tokens,
    )


METHODS: dict[str, Method] = {
    "nothing": Method(_nothing),
    "in context": Method(_in_context),
    "fine-tuning": Method(partial(_weights, "fine-tuning"), 6e-5),
    "top 2 layers": Method(partial(_weights, "top 2 layers"), 3e-4),
    "adapters 3 %": Method(partial(_weights, "adapters 3 %"), 1e-3),
    "adapters 0.1 %": Method(partial(_weights, "adapters 0.1 %"), 3e-3),
    "LoRA": Method(partial(_weights, "LoRA"), 2e-3),
    "prefix": Method(_prefix, 1e-2),
    "prefix, MLP": Method(partial(_prefix, mlp_width=_MLP_WIDTH), 1e-3),
    "embedding-only": Method(partial(_prefix, layers="embedding"), 1e-2),
    "infix": Method(partial(_prefix, place="infix"), 1e-2),
    **{
        f"prefix, {kind} alone": Method(partial(_prefix, kinds=(kind,)), 1e-2)
        for kind in ("encoder", "decoder", "cross")
    },
}
"""As tables name them. The middle rates were chosen before anything here was measured."""
