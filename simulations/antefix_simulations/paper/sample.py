"""A made-up task in the form of E2E, so that every table can be seen at work without any download."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

from antefix.common.files import atomic_write

__all__ = ["write_sample"]

_NAMES = ("Cedar", "Gull", "Harbour", "Juniper", "Lantern", "Mill", "Orchard", "Otter", "Quarry", "Saffron")
_KINDS = ("bakery", "bookshop", "hotel", "tea room")
_NEW = ("museum", "theatre")  # in no training text
_PRICES = {"low": "cheap", "fair": "fairly priced", "high": "expensive"}
_AREAS = ("by the river", "in the old town", "near the station", "on the hill", "at the market")
_WAYS = (
    "The {name} is a {price} {kind} {area}.",
    "{area}, you find the {name}, a {price} {kind}.",
    "A {price} {kind} {area} is the {name}.",
)
_TRAINING, _DEV, _TESTS = 520, 40, 20


def write_sample(path: Path) -> Path:
    """Write the task: 520 training texts, 40 to judge by, 20 tests of seen kinds and 20 of unseen ones."""
    seen, unseen = _inputs(_KINDS), _inputs(_NEW)
    parts = {
        "train": seen[:_TRAINING],
        "dev": seen[_TRAINING : _TRAINING + _DEV],
        "test": seen[_TRAINING + _DEV :][:_TESTS] + unseen[:_TESTS],
    }
    lines = [
        json.dumps({"split": split, **_line(meaning, split), "seen": meaning[1] in _KINDS})
        for split, meanings in parts.items()
        for meaning in meanings
    ]
    atomic_write(path, "".join(f"{line}\n" for line in lines).encode())
    return path


def _inputs(kinds: tuple[str, ...]) -> list[tuple[str, ...]]:
    every: list[tuple[str, ...]] = list(itertools.product(_NAMES, kinds, _PRICES, _AREAS))
    random.Random(0).shuffle(every)
    return every


def _line(meaning: tuple[str, ...], split: str) -> dict[str, object]:
    """One text; a test has all ways to say it."""
    name, kind, price, area = meaning
    texts = [way.format(name=name, kind=kind, price=_PRICES[price], area=area) for way in _WAYS]
    texts = [text[0].upper() + text[1:] for text in texts]
    chosen = texts if split == "test" else [texts[sum(map(len, meaning)) % len(texts)]]
    return {"input": f"name[{name}], kind[{kind}], price[{price}], area[{area}]", "refs": chosen}
