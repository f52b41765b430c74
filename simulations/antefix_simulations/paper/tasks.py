"""Tasks: inputs with their references, as the paper's training and scoring take them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antefix import Example
from antefix_simulations._data import DataRefused, numbered_lines, require_utf8

__all__ = ["Item", "Task", "examples_of", "pairs", "prompt_of", "read_task"]

_SLOT = re.compile(r"\s*([^\[\],]+)\[([^\]]*)\]\s*,?")
_SLOTS = re.compile(f"(?:{_SLOT.pattern})+\\s*")
_SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Item:
    """One input with all texts that are right for it.

    Attributes:
        source: what the base reads.
        references: at least one.
        seen: whether its category is trained on (WebNLG); True where there are none.
    """

    source: str
    references: tuple[str, ...]
    seen: bool = True


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
            _drawn(self.train, inputs, dice, "training"),
            _drawn(self.dev, min(_judging(inputs), pairs(self.dev)), dice, "dev"),
            self.test,
        )


def examples_of(items: Iterable[Item]) -> list[Example]:
    """A training text for each reference: ` source <newline>`, then the reference."""
    return [
        Example(prompt=prompt_of(item), completion=f" {one}") for item in items for one in item.references
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
    found: dict[str, dict[str, Item]] = {split: {} for split in _SPLITS}
    for number, line in numbered_lines(path):
        split, item = _item(f"line {number} of {path}", line)
        before = found[split].get(item.source)
        references = (() if before is None else before.references) + item.references
        found[split][item.source] = Item(item.source, tuple(dict.fromkeys(references)), item.seen)
    for split, items in found.items():
        if not items:
            raise DataRefused(
                f"{path} has no line whose split is {split!r}", "give all of train, dev and test"
            )
    return Task(*(tuple(found[split].values()) for split in _SPLITS))


def _item(where: str, line: str) -> tuple[str, Item]:
    require_utf8(where, line)
    try:
        row = json.loads(line)
        split = row["split"]
        form = next(form for name, form in _FORMS.items() if name in row)
        source = form(row)
        references = tuple(str(one).strip() for one in row.get("refs") or [row["text"]])
    except (ValueError, LookupError, TypeError, StopIteration, AttributeError) as error:
        raise DataRefused(
            f"{where} cannot be used ({type(error).__name__})",
            "a line has split, and input with text or refs, or triples with refs",
        ) from None
    if split not in _SPLITS or not source or not all(references):
        raise DataRefused(
            f"{where} has an unknown split, or an empty text", f"splits are {', '.join(_SPLITS)}"
        )
    return split, Item(source, references, bool(row.get("seen", True)))


def _triples(row: Mapping[str, Any]) -> str:
    """`subject : predicate : object | …` (section 5.1)."""
    return " | ".join(" : ".join(part.strip() for part in one.split(" | ")) for one in row["triples"])


def _slots(row: Mapping[str, Any]) -> str:
    """`name : Blue Spice | eatType : coffee shop` of E2E's own form; any other text as it is."""
    text = str(row["input"]).strip()
    if not _SLOTS.fullmatch(text):
        return text
    return " | ".join(f"{name.strip()} : {value}" for name, value in _SLOT.findall(text))


_FORMS: dict[str, Callable[[Mapping[str, Any]], str]] = {"triples": _triples, "input": _slots}


def _judging(inputs: int) -> int:
    return max(1, round(0.3 * inputs))


def pairs(items: Iterable[Item]) -> int:
    """Texts of some inputs: one for each reference."""
    return sum(len(item.references) for item in items)


def _drawn(items: tuple[Item, ...], count: int, dice: random.Random, what: str) -> tuple[Item, ...]:
    each = [Item(item.source, (one,), item.seen) for item in items for one in item.references]
    if count > len(each):
        raise DataRefused(f"{count:,} {what} texts are asked for, there are {len(each):,}", "ask for fewer")
    return tuple(dice.sample(each, count))
