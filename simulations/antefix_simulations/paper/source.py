"""The data of a task, as its cells get it: which texts to train on, to judge by, to be tested on."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from antefix import Example, FrozenBase
from antefix.data.tokenization import check_rows_fit, encode, prompt_tokens
from antefix_simulations.data.user_texts import DataRefused, cut_prompts
from antefix_simulations.paper.cell import Cell, PaperSettings
from antefix_simulations.paper.tasks import Item, Task, examples_of, pairs, prompt_of, read_task

__all__ = ["Source", "Texts", "firsts"]

_COUNTED = 200


@dataclass(frozen=True)
class Texts:
    """What a method gets.

    Attributes:
        training: to learn from.
        judging: by which it keeps the best of four looks, evenly spaced, the last at the end.
        steps: of training.
        longest: tokens of the longest input with its text, of those that it is judged by and tested on.
    """

    training: Sequence[Example]
    judging: Sequence[Example]
    steps: int
    longest: int = 0


class Source:
    """One file of a task, for one base and one set of settings.

    Attributes:
        task: with inputs cut to `max_prompt_tokens`, line end included.
        digest: of what the file says, however it is written or packed.
        tests: the same for every cell; half of them unseen, where there are such.
    """

    def __init__(self, path: Path, base: FrozenBase, settings: PaperSettings) -> None:
        """Read the file.

        Raises:
            DataRefused: it cannot be used.
        """
        self._path, self._base, self._settings = path, base, settings
        task = read_task(path)
        self.task = _cut(task, base, settings.max_prompt_tokens)
        self.digest = _digest(task)
        self.tests = _tests(self.task, settings.tests)
        self._longest: dict[tuple[int, int], tuple[int, Item]] = {}

    def texts(self, cell: Cell, budget: int) -> Texts:
        """A sample of the training texts, and as many steps as the budget lasts for.

        Raises:
            DataRefused: there are not so many texts.
        """
        training, judging, steps = self._chosen(cell, budget)
        read = max(map(self._tokens, (*judging, *self.tests)))
        max_prompt = max(map(self._prompt_tokens, self.tests))
        return Texts(examples_of(training), examples_of(judging), steps, max(read, max_prompt))

    def check(self, cell: Cell, *, unseen: bool = False) -> None:
        """Refuse now what the cell would meet after hours.

        Args:
            cell: that is to be done.
            unseen: whether its table needs unseen tests.

        Raises:
            DataRefused: too few texts, no unseen tests, or a text that the base cannot see as a whole.
        """
        if unseen and (all(item.seen for item in self.tests) or not any(item.seen for item in self.tests)):
            raise DataRefused(
                f"the test of {self._path} needs seen and unseen inputs, and {len(self.tests)} are drawn",
                'give a file with "seen": false in some test lines, and --tests 2 or more',
            )
        if cell.inputs > (there := pairs(self.task.train)):
            raise DataRefused(
                f"{cell.name}: so many training texts are needed, and {self._path} has {there}",
                "give a larger file",
            )
        key = cell.inputs, cell.sample
        if key not in self._longest:
            training, judging, _ = self._chosen(cell, self._settings.budget)
            whole = [(self._tokens(item), item) for item in (*training, *judging, *self.tests)]
            lengths = [(self._prompt_tokens(item), item) for item in self.tests]
            self._longest[key] = max(whole + lengths, key=lambda pair: pair[0])
        tokens, item = self._longest[key]
        what = f"the input of line {item.line} of {self._path}, with its text,"
        check_rows_fit(self._base, tokens, cell.length, what)

    def _chosen(self, cell: Cell, budget: int) -> tuple[Sequence[Item], Sequence[Item], int]:
        settings, available = self._settings, pairs(self.task.train)
        counted = examples_of(self.task.sample(min(available, _COUNTED), 0).train)
        each = sum(encode(self._base, example, settings.max_prompt_tokens).tokens for example in counted)
        lasting = max(1, round(budget * len(counted) / each))
        inputs = cell.inputs or min(available, lasting)
        chosen = self.task.sample(inputs, cell.sample)
        passes = min(lasting / inputs, settings.max_passes)
        steps = max(1, round(passes * inputs / settings.batch_size))
        return chosen.train, chosen.dev[: settings.judging], steps

    def _tokens(self, item: Item) -> int:
        """Of the longer side, with the first reference."""
        row = encode(self._base, firsts([item])[0], self._settings.max_prompt_tokens)
        return max(len(row.inputs), len(row.source))

    def _prompt_tokens(self, item: Item) -> int:
        """Of the input, and what may be written after it."""
        prompt = len(prompt_tokens(self._base, prompt_of(item), self._settings.max_prompt_tokens))
        new = self._settings.new_tokens
        return max(prompt, new) if self._base.is_encoder_decoder else prompt + new


def firsts(items: Iterable[Item]) -> list[Example]:
    """One text for each input."""
    return examples_of(replace(item, references=item.references[:1]) for item in items)


def _cut(task: Task, base: FrozenBase, max_tokens: int) -> Task:
    """No method sees more of an input, and each sees where it ends."""

    def cut(items: Sequence[Item]) -> tuple[Item, ...]:
        whole = [Example(prompt=prompt_of(item), completion="") for item in items]
        prompts = [
            example.prompt.removesuffix("\n") for example in cut_prompts(whole, base.tokenizer, max_tokens)
        ]
        return tuple(replace(item, source=prompt) for item, prompt in zip(items, prompts, strict=True))

    return Task(cut(task.train), cut(task.dev), cut(task.test))


def _digest(task: Task) -> str:
    whole = [[(item.source, item.references, item.seen) for item in items] for items in vars(task).values()]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:16]


def _tests(task: Task, count: int) -> list[Item]:
    dice = random.Random(0)
    unseen = [item for item in task.test if not item.seen]
    seen = [item for item in task.test if item.seen]
    half = min(len(unseen), count // 2)
    return dice.sample(seen, min(len(seen), count - half)) + dice.sample(unseen, half)
