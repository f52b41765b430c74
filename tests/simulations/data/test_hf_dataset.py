"""Sets that the library `datasets` reads: files and folders; names of the hub need a network."""

import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from antefix.errors import InvalidArgument
from antefix_simulations.data.columns import Columns
from antefix_simulations.data.hf_dataset import read_dataset
from antefix_simulations.data.jsonl import read_lines
from antefix_simulations.data.sources import population_of
from antefix_simulations.data.text import Text
from antefix_simulations.data.user_texts import DataRefused
from antefix_simulations.settings import RunSettings

# Looked for, not loaded: that takes seconds, and every collection of tests would.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (find_spec("datasets") and find_spec("flwr_datasets")), reason="the extra 'datasets' is not there"
    ),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def rows_file(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(name: str, **columns: Any) -> list[Text]:
    return list(read_dataset(name, Columns(**columns), 0, None))


def labelled(path: Path) -> str:
    """120 texts without users, of four labels."""
    return rows_file(path, [{"text": f"text {at}", "topic": f"t{at % 4}"} for at in range(120)])


@pytest.mark.slow
def test_users_texts_prompts_and_times_are_found(tmp_path: Path) -> None:
    row = {"author": "ann", "question": "how?", "answer": "so", "created_at": "2020-01-02", "n": 1}
    (text,) = read(rows_file(tmp_path / "a.jsonl", [row]))
    assert (text.user, text.example.prompt, text.example.completion) == ("ann", "how?\n", "so")
    assert text.when is not None
    assert text.when.startswith("2020-01-02")


def test_columns_are_named(tmp_path: Path) -> None:
    row = {"user": "ann", "who": 7, "said": "so", "heard": "how?", "text": "no", "at": 3}
    name = rows_file(tmp_path / "a.jsonl", [row])
    (text,) = read(name, user_column="who", text_column="said", prompt_column="heard", time_column="at")
    assert (text.user, text.example.prompt, text.example.completion) == ("7", "how?\n", "so")
    with pytest.raises(InvalidArgument, match="there is no column 'wo'"):
        read(name, user_column="wo")
    with pytest.raises(InvalidArgument, match="no column of texts"):
        read(rows_file(tmp_path / "b.jsonl", [{"user": "ann", "n": 1}]))


@pytest.mark.slow
def test_a_folder_is_a_set_with_splits(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    rows_file(folder / "train.jsonl", [{"user": "ann", "text": "one"}])
    rows_file(folder / "test.jsonl", [{"user": "bob", "text": "two"}])
    assert [text.user for text in read(str(folder))] == ["ann"]
    assert [text.user for text in read(str(folder), split="test")] == ["bob"]
    with pytest.raises(DataRefused, match="split dev"):
        read(str(folder), split="dev")


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="cannot be read"):
        read(str(tmp_path / "nothing"))
    with pytest.raises(InvalidArgument, match=r"\.csv"):
        read(rows_file(tmp_path / "a.txt", []))


def test_a_set_without_users_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="no column of users") as refused:
        read(labelled(tmp_path / "a.jsonl"))
    assert "partition=iid" in (refused.value.hint or "")


def test_broken_rows_are_refused_or_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"user": "ann", "text": "one"},
        {"user": None, "text": "two"},
        {"user": "ann", "text": None},
    ]
    name = rows_file(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataRefused, match="row 2"):
        read(name)
    broken: list[int] = []
    assert len(list(read_dataset(name, Columns(), 0, broken.append))) == 1
    assert broken == [2, 3]


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "pathological"])
def test_users_are_made_and_every_text_has_one(kind: Any, tmp_path: Path) -> None:
    name = labelled(tmp_path / "a.jsonl")
    texts = read(name, partition=kind, partitions=6, partition_by="topic", partition_labels=2)
    assert Counter(text.example.completion for text in texts) == Counter(f"text {at}" for at in range(120))
    assert len({text.user for text in texts}) == 6
    assert texts == read(name, partition=kind, partitions=6, partition_by="topic", partition_labels=2)
    labels = [
        len({int(text.example.completion.split()[1]) % 4 for text in texts if text.user == user})
        for user in {text.user for text in texts}
    ]
    assert max(labels) <= 2 if kind == "pathological" else max(labels) == 4


def test_a_partition_that_cannot_be_is_refused(tmp_path: Path) -> None:
    name = labelled(tmp_path / "a.jsonl")
    with pytest.raises(InvalidArgument, match="no column 'wrong' to part by"):
        read(name, partition="dirichlet", partition_by="wrong")
    with pytest.raises(DataRefused, match="cannot be parted"):
        read(name, partition="pathological", partition_by="topic", partition_labels=9)
    with pytest.raises(InvalidArgument, match="partition-by"):
        RunSettings.read({"partition": "dirichlet"})


def test_rows_are_chosen(tmp_path: Path) -> None:
    rows = [{"user": "ann", "text": f"text {at}", "box": "sent" if at % 2 else "inbox"} for at in range(4)]
    name = rows_file(tmp_path / "a.jsonl", rows)
    by_lines = list(read_lines(Path(name), None, Columns(where="box=sent")))
    assert [text.example.completion for text in by_lines] == ["text 1", "text 3"]
    assert read(name, where="box=sent") == by_lines
    with pytest.raises(InvalidArgument, match="COLUMN=VALUE"):
        RunSettings.read({"where": "sent"})


def test_a_run_reads_it(tmp_path: Path) -> None:
    name = labelled(tmp_path / "a.jsonl")
    settings = RunSettings.read({"data": f"hf:{name}", "partition": "iid", "partitions": 5})
    with population_of(settings, tmp_path / "population.db") as population:
        assert population.count == 5
