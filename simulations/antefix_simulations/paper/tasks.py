"""Tasks: inputs with their references, as the paper's training and scoring take them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from antefix import Example
from antefix_simulations.data.user_texts import DataRefused, characters, numbered_lines, object_of

__all__ = ["Item", "Task", "examples_of", "pairs", "prompt_of", "read_task"]

# Nothing in it can be matched in two ways: brackets in any other text would be tried in all of them.
_SLOT = re.compile(r"([A-Za-z](?:[A-Za-z ]*[A-Za-z])?)\[([^\[\]]*)\](?:\s*,\s*|$)")
_SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Item:
    """One input with all texts that are right for it.

    Attributes:
        source: what the base reads.
        references: at least one.
        seen: whether its category is trained on (WebNLG); True where there are none.
        line: of the file, the first that has it.
    """

    source: str
    references: tuple[str, ...]
    seen: bool = True
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Task:
    """A data set with its published splits.

    Attributes:
        train, dev, test: inputs, each once, in the file's order.
    """

    train: tuple[Item, ...]
    dev: tuple[Item, ...]
    test: tuple[Item, ...]

    def sample(self, inputs: int, seed: int) -> Task:
        """So many training texts, drawn without replacement; to judge by 30 % of that (section 6.3), or all.

        Args:
            inputs: pairs of an input and one reference.
            seed: of the draw.

        Raises:
            DataRefused: there are not so many.
        """
        dice = random.Random(seed)
        return Task(
            _draw(self.train, inputs, dice, "training"),
            _draw(self.dev, min(_judging(inputs), pairs(self.dev)), dice, "dev"),
            self.test,
        )


def examples_of(items: Iterable[Item]) -> list[Example]:
    """A training text for each reference: ` source <newline>`, then the reference."""
    return [
        Example(prompt=prompt_of(item), completion=f" {reference}")
        for item in items
        for reference in item.references
    ]


def prompt_of(item: Item) -> str:
    """What the base reads before it writes: a line. (The paper ends it with GPT-2's BOS.)"""
    return f"{item.source}\n"


def read_task(path: Path) -> Task:
    """A file of JSON lines, each with its `split` and one of three forms.

    `input` and `text`, a line for each reference, `input` as E2E has it (`name[…], eatType[…]`) or plain;
    `triples` and `refs` (WebNLG: `subject | predicate | object`), with `seen` in its test; `input`, `refs`.

    Raises:
        DataRefused: no such file, a line that is none of these, or a split without any.
    """
    splits: dict[str, dict[str, Item]] = {split: {} for split in _SPLITS}
    for number, line in numbered_lines(path):
        split, item = _item(f"line {number} of {path}", line)
        first = splits[split].setdefault(item.source, replace(item, references=(), line=number))
        references = tuple(dict.fromkeys(first.references + item.references))
        splits[split][item.source] = replace(first, references=references, seen=item.seen)
    for split, items in splits.items():
        if not items:
            raise DataRefused(
                f"{path} has no line whose split is {split!r}", "give all of train, dev and test"
            )
    return Task(*(tuple(splits[split].values()) for split in _SPLITS))


def _item(where: str, line: str) -> tuple[str, Item]:
    row = object_of(where, line)
    split, seen = row.get("split"), row.get("seen", True)
    if split not in _SPLITS:
        raise DataRefused(f"'split' in {where} is {split!r:.40}", f"use {', '.join(_SPLITS)}")
    if not isinstance(seen, bool):
        raise DataRefused(f"'seen' in {where} is a {type(seen).__name__}", "write true or false")
    source = _triples(where, row) if "triples" in row else _slots(_text(where, "input", row.get("input")))
    refs = _texts(where, row, "refs") if row.get("refs") else [_text(where, "text", row.get("text"))]
    return split, Item(source, tuple(refs), seen)


def _text(where: str, name: str, value: object) -> str:
    """A text with something in it, and without the spaces around it."""
    if not isinstance(value, str):
        kind = "missing" if value is None else f"a {type(value).__name__}"
        raise DataRefused(f"{name!r} in {where} is {kind}", "write it as text")
    if not value.strip():
        raise DataRefused(f"{name!r} in {where} is empty", "leave the line out")
    return characters(where, name, value.strip())


def _texts(where: str, row: Mapping[str, Any], name: str) -> list[str]:
    """A list of such: the letters of one text would be as many."""
    if not isinstance(row[name], list) or not row[name]:
        raise DataRefused(f"{name!r} in {where} is no list with something in it", "write a list of texts")
    return [_text(where, name, text) for text in row[name]]


def _triples(where: str, row: Mapping[str, Any]) -> str:
    """`subject : predicate : object | …` (section 5.1)."""
    triples = _texts(where, row, "triples")
    return " | ".join(" : ".join(part.strip() for part in triple.split(" | ")) for triple in triples)


def _slots(text: str) -> str:
    """`name : Blue Spice | eatType : coffee shop` of E2E's own form; any other text as it is."""
    slots, at = [], 0
    while slot := _SLOT.match(text, at):
        slots.append(f"{slot[1]} : {slot[2]}")
        at = slot.end()
        if at == len(text):
            return " | ".join(slots)
    return text


def _judging(inputs: int) -> int:
    return max(1, round(0.3 * inputs))


def pairs(items: Iterable[Item]) -> int:
    """Texts of some inputs: one for each reference."""
    return sum(len(item.references) for item in items)


def _draw(items: tuple[Item, ...], count: int, dice: random.Random, what: str) -> tuple[Item, ...]:
    each = [replace(item, references=(reference,)) for item in items for reference in item.references]
    if count > len(each):
        raise DataRefused(f"{count:,} {what} texts are asked for, there are {len(each):,}", "ask for fewer")
    return tuple(dice.sample(each, count))
