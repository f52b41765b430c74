"""Texts from a set of the Hugging Face hub, a folder of one, or a file that `datasets` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from antefix import Example
from antefix.errors import InvalidArgument
from antefix_simulations.data.columns import Columns
from antefix_simulations.data.jsonl import TIMES, time_of
from antefix_simulations.data.text import Text
from antefix_simulations.data.user_texts import DataRefused

__all__ = ["read_dataset"]

_USERS = ("user", "user_id", "author", "username", "speaker", "client_id", "writer")
_TEXTS = ("completion", "text", "response", "summary", "answer", "target")
_PROMPTS = ("prompt", "input", "instruction", "question", "document")
_FILES = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


def read_dataset(
    name: str, columns: Columns, seed: int, broken: Callable[[int], None] | None
) -> Iterator[Text]:
    """Every usable row, by its user or by the user that a partitioner puts it with.

    Args:
        name: of the hub, a folder, or a file .json, .jsonl, .csv or .parquet.
        columns: what is what.
        seed: of the partitioner.
        broken: called with the number of a row that cannot be used; None to refuse the set for it.

    Raises:
        InvalidArgument: the extra is missing; no such column.
        DataRefused: the set cannot be read; a row without a user or a text; no user and no partition.
    """
    table = _load(name, columns)
    for number, (user, row) in enumerate(_by_user(table, name, columns, seed), start=1):
        if not columns.takes(row):
            continue
        text = _text(user, row, columns, table.column_names)
        if text is not None:
            yield text
        elif broken is None:
            raise DataRefused(
                f"row {number} of {name} has no user or no text", "leave it out, or -c broken-lines=skip"
            )
        else:
            broken(number)


def _load(name: str, columns: Columns) -> Any:
    try:
        import datasets
    except ImportError:
        raise InvalidArgument(
            f"hf:{name} needs the library datasets", "pip install 'antefix[datasets]'"
        ) from None
    datasets.utils.logging.set_verbosity_error()
    path = Path(name)
    try:
        if path.is_file():
            kind = _FILES.get(path.suffix)
            if kind is None:
                raise InvalidArgument(f"{name} is no file of {', '.join(_FILES)}", "convert it")
            return datasets.load_dataset(kind, data_files=str(path), split="train")
        return datasets.load_dataset(name, columns.subset or None, split=columns.split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        # Its messages are whole pages; the last line of the cause says it. It can quote a row: names alone.
        raise DataRefused(
            f"the set {name} (subset {columns.subset or 'default'}, split {columns.split}) cannot be read: "
            f"{type(error).__name__}",
            "check the name, -c subset and -c split, and the network",
        ) from None


def _by_user(table: Any, name: str, columns: Columns, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    if columns.partition == "none":
        user = _column(columns.user_column, _USERS, table.column_names)
        if user is None:
            raise DataRefused(
                f"{name} has no column of users; its columns: {', '.join(table.column_names)}"[:300],
                "name it with -c user-column=…, or make users with -c partition=iid",
            )
        for row in table:
            yield str(row[user] if row[user] is not None else ""), row
        return
    maker = _partitioner(columns, table, seed)
    for number in range(columns.partitions):
        for row in _rows(maker, number, name):
            yield f"{columns.partition}-{number:04}", row


def _rows(maker: Any, number: int, name: str) -> Iterable[dict[str, Any]]:
    try:
        rows: Iterable[dict[str, Any]] = maker.load_partition(number)
    except (ValueError, IndexError) as error:
        raise DataRefused(f"{name} cannot be parted so: {error}"[:300], "use fewer partitions") from None
    return rows


def _partitioner(columns: Columns, table: Any, seed: int) -> Any:
    try:
        from flwr_datasets import partitioner
    except ImportError:
        raise InvalidArgument(
            f"partition={columns.partition} needs the library flwr-datasets",
            "pip install 'antefix[datasets]'",
        ) from None
    by, count = columns.partition_by, columns.partitions
    if by and by not in table.column_names:
        raise InvalidArgument(
            f"there is no column {by!r:.60} to part by", f"there are {', '.join(table.column_names)}"[:300]
        )
    if columns.partition == "iid":
        maker: Any = partitioner.IidPartitioner(count)
        table = table.shuffle(seed=seed)  # that one takes rows in their order
    elif columns.partition == "dirichlet":
        maker = partitioner.DirichletPartitioner(
            count, by, columns.partition_alpha, min_partition_size=1, seed=seed
        )
    else:
        maker = partitioner.PathologicalPartitioner(count, by, columns.partition_labels, seed=seed)
    maker.dataset = table
    return maker


def _text(user: str, row: dict[str, Any], columns: Columns, names: Sequence[str]) -> Text | None:
    """Of a row; None where it has no user or no text."""
    text = _column(columns.text_column, _TEXTS, names)
    if text is None:
        raise InvalidArgument(
            f"there is no column of texts among {', '.join(names)}"[:300], "name it with -c text-column=…"
        )
    prompt = _column(columns.prompt_column, _PROMPTS, [name for name in names if name != text])
    time = _column(columns.time_column, TIMES, names)
    before = row[prompt] if prompt else ""
    if not user or not isinstance(row[text], str) or not isinstance(before or "", str):
        return None
    when = time_of(row[time]) if time and row[time] is not None else None
    line_end = "\n" if before and not before.endswith("\n") else ""
    return Text(user, when, Example(row[text], f"{before or ''}{line_end}"))


def _column(wanted_name: str, usual: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that was asked for, or the first of the usual ones; None where there is none of these."""
    if wanted_name and wanted_name not in names:
        raise InvalidArgument(
            f"there is no column {wanted_name!r:.60}", f"there are {', '.join(names)}"[:300]
        )
    return wanted_name or next((name for name in usual if name in names), None)
