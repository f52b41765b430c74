"""A cohort's work: its users in one batch, each of them exactly its own, and a sum for the server.

What is here runs in this process, or in any worker of Flower's engine, with the same result bit for bit.
"""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from antefix import Example, FrozenBase, Prefix, PrefixSpec, TrainingPlan, score, train
from antefix.data.tokenization import encode
from antefix.errors import AntefixError, OutOfMemory
from antefix.rounds.transforms import update_pipeline
from antefix.training.bucketing import Buckets
from antefix_simulations.arms import in_context as in_context_module
from antefix_simulations.data.store import Population, Split
from antefix_simulations.data.text import alike
from antefix_simulations.data.user_texts import cut_prompts
from antefix_simulations.run.record_vault import Sealer
from antefix_simulations.run.task import Result, Task
from antefix_simulations.run.tuning import grid, inner_split
from antefix_simulations.settings import RunSettings

if TYPE_CHECKING:
    from antefix_simulations.arms.finetuning import Finetuning

__all__ = ["Cohort"]

_LEAST_MICRO = 64
_ALONE = "nobody else of its cohort has a private prefix"
_NOTHING_NEW = "with its prompts cut, no held-out text is new: raise max-prompt-tokens"


class Cohort:
    """Does tasks of one run; the base is loaded once."""

    def __init__(self, base: FrozenBase, population: Population, settings: RunSettings, out: Path) -> None:
        """Nothing is computed yet."""
        self._base, self._population, self._settings, self._out = base, population, settings, out
        self._spec = PrefixSpec(length=settings.length)
        self._sealer: Sealer | None = None
        self._tuned: tuple[str, Finetuning] | None = None
        self._micro = settings.micro_batch_tokens or Buckets.of(base, None).tokens

    def do(self, task: Task) -> Result:
        """One task. What fails for one user is told in its line, and the others go on.

        Where memory does not last, micro-batches are halved, for later tasks too, and the result says so.

        Raises:
            OutOfMemory: the smallest are too large.
        """
        asked = self._micro
        while True:
            try:
                result = self._done(task)
            except OutOfMemory:
                if self._micro < 2 * _LEAST_MICRO:
                    raise
                self._micro = self._micro // 2 // _LEAST_MICRO * _LEAST_MICRO
            else:
                result.micro_batch_tokens = self._micro if self._micro < asked else 0
                return result

    def _done(self, task: Task) -> Result:
        started, result = time.monotonic(), Result()
        shared = Prefix.from_bytes(task.shared)
        work: Callable[[dict[int, Split], Prefix, Task, Result], None] = getattr(self, f"_{task.kind}")
        self._each(self._read(task, result), lambda some: work(some, shared, task, result), result)
        result.facts.sort(key=lambda line: int(line["user"]))
        result.seconds, result.peak_mb = time.monotonic() - started, _peak_mb()
        return result

    def _read(self, task: Task, result: Result) -> dict[int, Split]:
        """Texts as they are computed: prompts cut, none too long, none that the cut made a training text."""
        found = {}
        trained: dict[bytes, set[bytes]] = {}
        for user, split in self._population.splits(task.users).items():
            training, held_out = (self._cut(side) for side in (split.training, split.held_out))
            unseen = [one for one in held_out if not self._trained_on(one, trained)]
            if training and unseen:
                found[user] = Split(training, unseen)
            else:
                why = "all texts of a side are too long" if not (training and held_out) else _NOTHING_NEW
                result.facts.append({"user": user, "failed": why})
        return found

    def _trained_on(self, text: Example, known: dict[bytes, set[bytes]]) -> bool:
        """Whether anybody trains on the like, prompts cut; `known` has what was asked before."""
        name = alike(text.completion)
        if name not in known:
            before = [
                Example(text.completion, one) for one in self._population.prompts_before(text.completion)
            ]
            known[name] = {alike(one.prompt) for one in self._cut(before)}
        return alike(text.prompt) in known[name]

    def _cut(self, texts: list[Example]) -> list[Example]:
        cut = cut_prompts(texts, self._base.tokenizer, self._settings.max_prompt_tokens)
        return [one for one in cut if self._fits(one)]

    def _fits(self, text: Example) -> bool:
        most = self._settings.max_text_tokens
        if (
            len(text.prompt.encode()) + len(text.completion.encode()) < most
        ):  # no token is shorter than a byte
            return True
        return encode(self._base, text, None).tokens <= most

    def _each(
        self, users: dict[int, Split], work: Callable[[dict[int, Split]], None], result: Result
    ) -> None:
        """All together; where that fails, in halves, until it is known who it is."""
        before = len(result.facts)
        try:
            if users:
                work(users)
        except OutOfMemory:
            raise
        except AntefixError as error:
            del result.facts[before:]
            if len(users) == 1:
                result.facts.append({"user": next(iter(users)), "failed": type(error).__name__})
                return
            names = list(users)
            for half in (names[: len(names) // 2], names[len(names) // 2 :]):
                self._each({user: users[user] for user in half}, work, result)

    def _round(self, users: dict[int, Split], shared: Prefix, task: Task, result: Result) -> None:
        """Every user from the same shared prefix; the sum of what it changes."""
        asked, before = self._settings, shared.values.numpy()
        plan = TrainingPlan(
            max_steps=asked.steps,
            learning_rate=asked.learning_rate,
            evaluate=False,
            seed=task.round,
            micro_batch_tokens=self._micro,
        )
        trained = self._train(users, plan, shared)
        pipeline = update_pipeline(
            size=len(before),
            clip=asked.clip,
            projection=asked.projection_dim,
            seed=hashlib.sha256(before.tobytes()).digest(),
            by_examples=asked.weights == "examples",
        )
        if result.sum is None:
            result.sum = np.zeros(asked.projection_dim or len(before))
        for user, one in trained.items():
            change = one.prefix.values.numpy() - before
            part = pipeline.on_update(change, len(users[user].training))
            result.sum += part.weight * part.vector.astype(np.float64)
            result.weight += part.weight
            result.tokens += one.tokens
            result.facts.append({"user": user, "norm": part.norm})

    def _newcomers(self, users: dict[int, Split], shared: Prefix, task: Task, result: Result) -> None:
        """What the shared prefix of a round is worth to users who took no part."""
        losses = self._score(users, dict.fromkeys(users, shared))
        result.facts += [{"user": user, "loss": loss} for user, loss in losses.items()]

    def _personal(self, users: dict[int, Split], shared: Prefix, task: Task, result: Result) -> None:
        """Private prefixes, what they are worth against the shared one, none, and other users' own."""
        asked = self._settings
        trained = self._train(users, self._private_plan(task.rate), shared)
        own = {user: one.prefix for user, one in trained.items()}
        result.tokens += sum(one.tokens for one in trained.values())
        arms = {
            "none": self._score(users, None),
            "shared": self._score(users, dict.fromkeys(users, shared)),
            "private": self._score(users, own),
        }
        for at in range(1, min(asked.others, len(users) - 1) + 1):
            names = list(users)
            other = {user: own[names[(number + at) % len(names)]] for number, user in enumerate(names)}
            arms[f"others/{at}"] = self._score(users, other)
        matrix, texts = self._matrix(users, own, task), self._written(users, own, shared)
        for user, split in users.items():
            line: dict[str, Any] = {"user": user, "texts": len(split.training)}
            others = [losses[user] for name, losses in arms.items() if name.startswith("others/")]
            line |= {name: arms[name][user] for name in ("none", "shared", "private")}
            mean = {"others": sum(others) / len(others)} if others else {"others failed": _ALONE}
            line |= mean if asked.others else {}
            line |= {"diverged": True} if trained[user].diverged else {}
            line |= {"matrix": matrix[user]} if user in matrix else {}
            line |= {"written": texts[user]} if user in texts else {}
            result.facts.append(line)
        if asked.seal:
            result.records |= {user: self._sealing().sealed(user, prefix) for user, prefix in own.items()}

    def _private_plan(self, rate: float) -> TrainingPlan:
        asked = self._settings
        return TrainingPlan(
            passes=asked.private_passes,
            batch_size=asked.private_batch_size,
            learning_rate=rate or asked.private_learning_rate,
            validation_fraction=0,
            evaluate=False,
            seed=asked.seed,
            micro_batch_tokens=self._micro,
        )

    def _written(
        self, users: dict[int, Split], own: Mapping[int, Prefix], shared: Prefix
    ) -> dict[int, dict[str, dict[str, float]]]:
        """Of each user the measures of each arm."""
        asked, found = self._settings, dict[int, dict[str, dict[str, float]]]()
        if not asked.generate:
            return found
        from antefix_simulations.arms.generation import written

        under = {"none": None, "shared": dict.fromkeys(users, shared), "private": own}
        for arm, prefixes in under.items():
            texts = written(self._base, users, prefixes, asked.generate, asked.generate_tokens)
            for user, measures in texts.items():
                found.setdefault(user, {})[arm] = measures
        return found

    def _history(self, users: dict[int, Split], shared: Prefix, task: Task, result: Result) -> None:
        """Private prefixes from the newest of their texts alone; all sizes in one batch."""
        sizes = self._settings.history_sizes
        able = {user: split for user, split in users.items() if len(split.training) >= sizes[-1]}
        plan = self._private_plan(task.rate)
        tried = {
            (user, size): (Split(split.training[-size:], split.held_out), plan)
            for user, split in able.items()
            for size in sizes
        }
        losses = self._tried(tried, shared, result)
        lines = {user: {str(size): losses[user, size] for size in sizes} for user in able}
        result.facts += [{"user": user, "history": line} for user, line in lines.items()]

    def _tune_private(self, users: dict[int, Split], shared: Prefix, task: Task, result: Result) -> None:
        """What each learning rate is worth, on training texts alone; all rates in one batch."""
        rates = grid(self._settings, "private")
        tried = {
            (user, place): (split, self._private_plan(rate))
            for user, split in _inner(users).items()
            for place, rate in enumerate(rates)
        }
        losses = self._tried(tried, shared, result)
        lines = {user: [losses[user, place] for place in range(len(rates))] for user, _ in losses}
        result.facts += [{"user": user, "losses": line} for user, line in lines.items()]

    def _tried(
        self, tried: Mapping[tuple[int, int], tuple[Split, TrainingPlan]], shared: Prefix, result: Result
    ) -> dict[tuple[int, int], float]:
        """Losses of prefixes that are trained together; a user can be there more than once."""
        if not tried:
            return {}
        names = dict(enumerate(tried))
        splits = {number: tried[key][0] for number, key in names.items()}
        plans = {str(number): tried[key][1] for number, key in names.items()}
        trained = self._train(splits, plans, shared)
        losses = self._score(splits, {number: one.prefix for number, one in trained.items()})
        result.tokens += sum(one.tokens for one in trained.values())
        return {names[number]: loss for number, loss in losses.items()}

    def _tune_lora(self, users: dict[int, Split], shared: Prefix, task: Task, result: Result) -> None:
        """The same for adapters."""
        self._tune_weights("lora", users, result)

    def _tune_full(self, users: dict[int, Split], shared: Prefix, task: Task, result: Result) -> None:
        """The same for all weights."""
        self._tune_weights("full", users, result)

    def _tune_weights(self, kind: Literal["lora", "full"], users: dict[int, Split], result: Result) -> None:
        inner = _inner(users)
        rates = [self._finetuning(kind).losses(inner, rate) for rate in grid(self._settings, kind)]
        result.facts += [{"user": user, "losses": [losses[user] for losses in rates]} for user in inner]

    @property
    def _context_tokens(self) -> int:
        asked, sees = self._settings.context_tokens, self._base.context
        return asked if sees is None else min(asked, sees)

    def _context(self, users: dict[int, Split], shared: Prefix, task: Task, result: Result) -> None:
        """All of the user's own texts that fit, in front."""
        losses = in_context_module.in_context(self._base, users, self._context_tokens)
        result.facts += [{"user": user, "context": loss} for user, loss in losses.items()]

    def _retrieved(self, users: dict[int, Split], shared: Prefix, task: Task, result: Result) -> None:
        """The nearest of them, in front."""
        asked = self._settings
        losses = in_context_module.retrieved(self._base, users, self._context_tokens, asked.retrieved_texts)
        result.facts += [{"user": user, "retrieved": loss} for user, loss in losses.items()]

    def _lora(self, users: dict[int, Split], shared: Prefix, task: Task, result: Result) -> None:
        """An adapter for each, by PEFT."""
        self._finetune("lora", users, task, result)

    def _full(self, users: dict[int, Split], shared: Prefix, task: Task, result: Result) -> None:
        """All weights for each."""
        self._finetune("full", users, task, result)

    def _finetune(
        self, kind: Literal["lora", "full"], users: dict[int, Split], task: Task, result: Result
    ) -> None:
        losses = self._finetuning(kind).losses(users, task.rate)
        result.facts += [{"user": user, kind: loss} for user, loss in losses.items()]

    def _finetuning(self, kind: Literal["lora", "full"]) -> Finetuning:
        from antefix_simulations.arms.finetuning import Finetuning

        if self._tuned is None or self._tuned[0] != kind:
            self._tuned = kind, Finetuning(kind, self._base, self._settings)
        return self._tuned[1]

    def _matrix(
        self, users: dict[int, Split], own: Mapping[int, Prefix], task: Task
    ) -> dict[int, list[float]]:
        """Some users of the first cohort under the prefixes of each of them."""
        some = list(users)[: self._settings.matrix] if task.number == 0 else []
        read = {user: users[user] for user in some}
        columns = [self._score(read, dict.fromkeys(read, own[other])) for other in some]
        return {user: [column[user] for column in columns] for user in some}

    def _train(
        self, users: Mapping[int, Split], plan: TrainingPlan | Mapping[str, TrainingPlan], start: Prefix
    ) -> dict[int, Any]:
        texts = {str(user): split.training for user, split in users.items()}
        found = train(self._base, texts, self._spec, plan, start=start, progress=False)
        return {int(user): one for user, one in found.items()}

    def _score(self, users: Mapping[int, Split], prefixes: Mapping[int, Prefix] | None) -> dict[int, float]:
        texts = {str(user): split.held_out for user, split in users.items()}
        under = None if prefixes is None else {str(user): prefixes[user] for user in users}
        halved = self._micro < Buckets.of(self._base, None).tokens
        at_once = self._micro if halved else None  # less memory than training needs, so as usual else
        return {
            int(user): loss
            for user, loss in score(self._base, texts, under, micro_batch_tokens=at_once).items()
        }

    def _sealing(self) -> Sealer:
        if self._sealer is None:
            self._sealer = Sealer(self._out, self._base)
        return self._sealer


def _inner(users: Mapping[int, Split]) -> dict[int, Split]:
    return {user: inner_split(split) for user, split in users.items() if len(split.training) > 1}


def _peak_mb() -> float:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, kB elsewhere
