"""Makes a population of texts as they come: duplicates out, split by time, nothing on both sides."""

from __future__ import annotations

import hashlib
import json
import os
import random
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from antefix_simulations.data.card import Card
from antefix_simulations.data.store import TABLES, Population
from antefix_simulations.data.text import Text, alike
from antefix_simulations.data.user_texts import DataRefused

__all__ = ["Choice", "prepare"]

_COMING = """
CREATE TABLE coming (at INTEGER PRIMARY KEY, user TEXT, time TEXT, digest BLOB, prompt TEXT, completion TEXT,
                     UNIQUE (user, digest));
CREATE INDEX by_user ON coming (user, time, at);
"""


class Choice(BaseModel):
    """Which users and texts are taken.

    Attributes:
        users: so many; 0 for all that have enough texts.
        min_texts: training texts of a user at least.
        max_texts: of a user at most, the newest; a user with most of the data does not outweigh the others.
        held_out: share of a user's texts, the newest, that judge and never train.
        max_held_out: of them at most.
        new_users: share of the users that take no part in rounds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    users: int = Field(default=0, ge=0)
    min_texts: int = Field(default=8, ge=1)
    max_texts: int = Field(default=128, ge=2, le=10**9)
    held_out: float = Field(default=0.25, gt=0, lt=1)
    max_held_out: int = Field(default=24, ge=1)
    new_users: float = Field(default=0.25, ge=0, lt=1)


def prepare(
    texts: Iterable[Text],
    choice: Choice,
    path: Path,
    source: str,
    broken: Sequence[int] = (),
    *,
    seed: int = 0,
) -> Population:
    """Read everything once.

    Args:
        texts: from a source, in its order.
        choice: which of them.
        path: of the file; it appears when it is whole.
        source: named on the card and in errors.
        broken: numbers of lines that the source left out; it may grow while `texts` are read.
        seed: of the users' order.

    Raises:
        DataRefused: too few users have enough texts; no room on the disk; what a source raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL, 0o600))  # texts are their writers'
        with closing(sqlite3.connect(unfinished, isolation_level=None)) as file:
            file.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {TABLES} {_COMING}")
            card = Card(source=source)
            _take_in(file, texts, card)
            card.broken, whole = list(broken), _all_texts(file)
            _split(file, choice, card)
            _choose(file, choice, card, seed)
            _finish(file, choice, card, whole, seed)
        with unfinished.open("rb") as file_of_it:
            os.fsync(file_of_it.fileno())
        unfinished.replace(path)
    except sqlite3.OperationalError as error:
        raise DataRefused(
            f"{path} cannot be written: {error}", "make room, or choose another --out"
        ) from None
    finally:
        unfinished.unlink(missing_ok=True)
    return Population(path)


def _take_in(file: sqlite3.Connection, texts: Iterable[Text], card: Card) -> None:
    file.execute("BEGIN")
    for at, text in enumerate(texts):
        card.texts += 1
        prompt, completion = text.example.prompt, text.example.completion
        if not completion.strip():
            card.empty += 1
            continue
        inserted = file.execute(
            "INSERT OR IGNORE INTO coming VALUES (?, ?, ?, ?, ?, ?)",
            (at, text.user, text.when, alike(prompt, completion), prompt, completion),
        )
        card.duplicates += 1 - inserted.rowcount
    file.execute("COMMIT")


def _split(file: sqlite3.Connection, choice: Choice, card: Card) -> None:
    """Every user's newest texts are held out; nobody trains on a text that judges, not even another user."""
    users = file.execute(
        "SELECT user, count(*), count(time) FROM coming GROUP BY user ORDER BY min(at)"
    ).fetchall()
    card.users = len(users)
    file.execute("BEGIN")
    for number, (name, texts, dated) in enumerate(users):
        newest = min(texts, choice.max_texts)
        held = min(max(1, round(newest * choice.held_out)), choice.max_held_out)
        file.execute("INSERT INTO users VALUES (?, ?, 0, 0, 0)", (number, name))
        card.no_order += 0 < dated < texts
        order = "time, at" if dated == texts else "at"
        file.execute(
            f"""INSERT INTO texts
                SELECT ?, place >= ?, place, digest, prompt, completion
                FROM (SELECT row_number() OVER (ORDER BY {order}) - 1 AS place, * FROM coming WHERE user = ?)
                WHERE place >= ?""",
            (number, texts - held, name, texts - newest),
        )
        card.left_out_old += texts - newest
    file.execute("COMMIT")
    file.executescript("DROP TABLE coming; CREATE INDEX alike ON texts (digest, side);")
    gone = file.execute(
        "DELETE FROM texts WHERE side = 1 AND digest IN (SELECT digest FROM texts WHERE side = 0)"
    )
    card.on_both_sides = gone.rowcount
    file.execute(
        """UPDATE users SET (training, held_out) = (
               SELECT count(*) - total(side), total(side) FROM texts WHERE user = number)"""
    )


def _choose(file: sqlite3.Connection, choice: Choice, card: Card, seed: int) -> None:
    """Users with enough texts, in an order that the seed gives, under new numbers."""
    rows = file.execute(
        "SELECT number FROM users WHERE training >= ? AND held_out > 0 ORDER BY number", (choice.min_texts,)
    )
    able = [row[0] for row in rows]
    card.too_few = card.users - len(able)
    wanted = choice.users or len(able)
    if not card.users:
        raise DataRefused(
            f"{card.source} has no text: {len(card.broken):,} lines are broken, {card.empty:,} texts empty",
            "give other data, or another -c where",
        )
    if len(able) < max(wanted, 1):
        max_training = file.execute("SELECT max(training) FROM users").fetchone()[0]
        raise DataRefused(
            f"{max(wanted, 1)} users with {choice.min_texts} training texts are wanted, "
            f"{card.source} has {len(able)} of {card.users}; the most that a user has is {max_training:g}",
            f"{'ask for fewer users, ' if able else ''}a lower min-texts, or other data",
        )
    random.Random(seed).shuffle(able)
    chosen = able[:wanted]
    new = min(round(choice.new_users * len(chosen)), len(chosen) - 1)
    file.execute("CREATE TABLE chosen (old INTEGER PRIMARY KEY, number INTEGER, role INTEGER)")
    numbered = ((old, number, int(number >= len(chosen) - new)) for number, old in enumerate(chosen))
    file.executemany("INSERT INTO chosen VALUES (?, ?, ?)", numbered)


def _finish(file: sqlite3.Connection, choice: Choice, card: Card, whole: str, seed: int) -> None:
    """Only the chosen, and the card."""
    file.create_function("alike", 1, alike, deterministic=True)
    file.executescript(
        """
        ALTER TABLE users RENAME TO old_users; ALTER TABLE texts RENAME TO old_texts;
        DROP INDEX alike;
        """
        + TABLES.replace("CREATE TABLE facts (what TEXT);", "")
        + """
        INSERT INTO users SELECT c.number, o.name, c.role, o.training, o.held_out
            FROM chosen c JOIN old_users o ON o.number = c.old ORDER BY c.number;
        INSERT INTO texts SELECT c.number, t.side, t.at, alike(t.completion), t.prompt, t.completion
            FROM chosen c JOIN old_texts t ON t.user = c.old ORDER BY c.number, t.side, t.at;
        DROP TABLE old_users; DROP TABLE old_texts; DROP TABLE chosen;
        CREATE INDEX trained ON texts (digest) WHERE side = 0;
        """
    )
    card.measure(file)
    chosen = {name: getattr(choice, name) for name in Choice.model_fields}
    facts: dict[str, Any] = {"card": card.as_json(), "choice": chosen | {"seed": seed}}
    facts |= {"digest": _fingerprint(file), "texts": whole}
    file.execute("INSERT INTO facts VALUES (?)", (json.dumps(facts),))
    file.executescript("VACUUM")


def _all_texts(file: sqlite3.Connection) -> str:
    """Of all that the source told, whichever users and order the seed chooses of it."""
    digest = hashlib.sha256()
    for row in file.execute("SELECT user, time, hex(digest) FROM coming ORDER BY at"):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def _fingerprint(file: sqlite3.Connection) -> str:
    """Of all that is in it, by which a resumed run knows its data."""
    digest = hashlib.sha256()
    for row in file.execute("SELECT * FROM users ORDER BY number"):
        digest.update(json.dumps(row).encode())
    for row in file.execute("SELECT user, side, at, prompt, completion FROM texts ORDER BY user, side, at"):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()
