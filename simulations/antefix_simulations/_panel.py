"""Who takes part in the quality study, and which of their texts are for what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from antefix import Example
from antefix._spec import Settings
from antefix_simulations._data import DataRefused, cut_prompts, open_lines, read_users


@dataclass(frozen=True)
class Split:
    """One evaluated user's texts: the newest are held out, the ones right before them train."""

    training: list[Example]
    held_out: list[Example]


@dataclass(frozen=True)
class Panel:
    """Two groups of users with nobody in both.

    Attributes:
        evaluated: those whose private prefixes are measured.
        contributors: training texts of those who train the shared prefix, and nothing else.
    """

    evaluated: dict[str, Split]
    contributors: dict[str, list[Example]]

    @property
    def digest(self) -> str:
        """Hex digest of all texts, by which a resumed run knows its data."""
        digest = hashlib.sha256()
        groups = [(user, [*split.training, *split.held_out]) for user, split in self.evaluated.items()]
        for user, texts in [*groups, *self.contributors.items()]:
            digest.update(json.dumps([user, [(each.prompt, each.completion) for each in texts]]).encode())
        return digest.hexdigest()


class PanelSize(Settings):
    """How many users, and how many texts of each; see `Quality`."""

    users: int
    shared_users: int
    train_texts: int
    held_out: int


def choose_panel(users: Mapping[str, list[Example]], size: PanelSize, source: str | Path) -> Panel:
    """The first users with enough texts are evaluated, the next ones train the shared prefix.

    Args:
        users: texts, oldest first.
        size: how many of each.
        source: named in errors.

    Raises:
        DataRefused: too few such users.
    """
    rows = size.train_texts + size.held_out
    able = [user for user, texts in users.items() if len(texts) >= rows]
    wanted = size.users + size.shared_users
    if len(able) < wanted:
        raise DataRefused(
            f"{wanted} users with {rows} texts each are wanted ({size.users} to evaluate, "
            f"{size.shared_users} to train the shared prefix), {source} has {len(able)} of {len(users)}",
            "use fewer --users, --shared-users or --train-texts, or other data",
        )
    evaluated = {}
    for user in able[: size.users]:
        newest = users[user][-rows:]
        evaluated[user] = Split(newest[: size.train_texts], newest[size.train_texts :])
    others = able[size.users : wanted]
    return Panel(evaluated, {user: users[user][-rows : -size.held_out] for user in others})


def cut_panel(panel: Panel, tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int) -> Panel:
    """The same with shorter prompts."""

    def cut(texts: list[Example]) -> list[Example]:
        return cut_prompts(texts, tokenizer, max_prompt_tokens)

    evaluated = {u: Split(cut(split.training), cut(split.held_out)) for u, split in panel.evaluated.items()}
    return Panel(evaluated, {user: cut(texts) for user, texts in panel.contributors.items()})


def read_by_date(path: str | Path) -> dict[str, list[Example]]:
    """Each user's examples, oldest first where every line of that user has a `date` (ISO, as text).

    Texts of one day stay in the order of the file, and so do those of a user without dates.

    Raises:
        DataRefused, NoExamples: as `read_users`.
    """
    users = read_users(path)
    dates: dict[str, list[Any]] = {}
    for row in _rows(Path(path)):
        dates.setdefault(row["user"], []).append(row.get("date"))
    for user, texts in users.items():
        days = dates[user]
        if all(isinstance(day, str) for day in days):
            order = sorted(range(len(texts)), key=days.__getitem__)
            users[user] = [texts[at] for at in order]
    return users


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """All lines once more; `read_users` has refused what is no object."""
    with open_lines(path) as file:
        yield from (json.loads(line) for line in file if line.strip())
