"""Which source a run's `data` names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from antefix_simulations.data.columns import Columns
from antefix_simulations.data.git import read_git
from antefix_simulations.data.hf_dataset import read_dataset
from antefix_simulations.data.jsonl import read_lines
from antefix_simulations.data.mbox import read_mbox
from antefix_simulations.data.prepare import Choice, prepare
from antefix_simulations.data.store import Population
from antefix_simulations.data.text import Text
from antefix_simulations.data.user_texts import SAMPLE, DataRefused

__all__ = ["population_of", "texts_of"]

SOURCES = ("git", "mbox", "hf")
TABLES = (".csv", ".parquet")


class DataSettings(Protocol):
    """What a run's settings say about its texts."""

    @property
    def data(self) -> str:
        """Name of the source."""

    @property
    def broken_lines(self) -> str:
        """`skip` or `refuse`."""

    @property
    def columns(self) -> Columns:
        """Which columns of a table hold what."""

    @property
    def choice(self) -> Choice:
        """Which users and texts take part."""

    @property
    def seed(self) -> int:
        """Of what is drawn at random."""


def population_of(settings: DataSettings, path: Path) -> Population:
    """The population in a file; made if it is not there.

    Raises:
        DataRefused, InvalidArgument.
    """
    if path.is_file():
        return Population(path)
    broken: list[int] = []
    skip = broken.append if settings.broken_lines == "skip" else None
    return prepare(
        texts_of(settings.data, skip, settings.columns, settings.seed),
        settings.choice,
        path,
        settings.data,
        broken,
        seed=settings.seed,
    )


def texts_of(data: str, broken: Callable[[int], None] | None, columns: Columns, seed: int) -> Iterator[Text]:
    """All texts of a source: `sample`, `git:FOLDER`, `mbox:FILE`, `hf:NAME`, or a file of JSON lines.

    Raises:
        DataRefused: it names nothing, or a table, which is for `hf:`; what a source raises.
    """
    kind, _, rest = data.partition(":")
    if not data or (kind in SOURCES and not rest):
        raise DataRefused(f"data is {data!r}", "write sample, FILE, git:FOLDER, mbox:FILE or hf:NAME")
    if kind not in SOURCES and Path(data).suffix in TABLES:
        raise DataRefused(f"{data} is no file of JSON lines", f"hf:{data} reads it")
    if kind == "git":
        return read_git(Path(rest))
    if kind == "mbox":
        return read_mbox(Path(rest))
    if kind == "hf":
        return read_dataset(rest, columns, seed, broken)
    return read_lines(SAMPLE if data == "sample" else Path(data), broken, columns)
