"""Tasks of the paper: three forms of a file, grouped by input, and what cannot be used."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from antefix_simulations.data.user_texts import DataRefused
from antefix_simulations.paper.tasks import Item, examples_of, read_task

E2E = "name[The Vaults], eatType[pub], priceRange[more than £30]"


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def whole(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the splits that every file must have."""
    return [
        *rows,
        *({"split": split, "input": f"some {split}", "text": "A text."} for split in ("dev", "test")),
    ]


def test_lines_of_one_input_are_one_item_with_its_references(tmp_path: Path) -> None:
    rows = [{"split": "train", "input": E2E, "text": text} for text in ("A pub.", "The Vaults.", "A pub.")]
    task = read_task(written(tmp_path, whole(rows)))
    source = "name : The Vaults | eatType : pub | priceRange : more than £30"
    assert task.train == (Item(source, ("A pub.", "The Vaults.")),)
    assert [one.completion for one in examples_of(task.train)] == [" A pub.", " The Vaults."]
    assert all(one.prompt == source + "\n" for one in examples_of(task.train))


def test_triples_are_linearised_and_know_whether_they_are_seen(tmp_path: Path) -> None:
    triples = ['Aarhus_Airport | cityServed | "Aarhus, Denmark"', "Aarhus | country | Denmark"]
    rows = [
        {
            "split": split,
            "triples": triples,
            "refs": ["One.", "Two."],
            "text": "One.",
            "seen": split != "test",
        }
        for split in ("train", "dev", "test")
    ]
    task = read_task(written(tmp_path, rows))
    source = 'Aarhus_Airport : cityServed : "Aarhus, Denmark" | Aarhus : country : Denmark'
    assert task.train == (Item(source, ("One.", "Two.")),)
    assert task.test == (Item(source, ("One.", "Two."), seen=False),)


def test_a_plain_input_stays_as_it_is(tmp_path: Path) -> None:
    text = "We study A [1], B[2] and more."
    task = read_task(
        written(tmp_path, whole([{"split": "train", "input": text, "refs": ["R."], "text": "R."}]))
    )
    assert task.train[0].source == text


@pytest.mark.parametrize(
    "text", ["We use BERT [1], GPT [2]", "See " + " and ".join(f"S [{n}]" for n in range(90))]
)
def test_brackets_in_a_text_are_no_slots_and_cost_no_time(tmp_path: Path, text: str) -> None:
    task = read_task(written(tmp_path, whole([{"split": "train", "input": text, "text": "R."}])))
    assert task.train[0].source == text


def test_a_sample_is_the_same_for_the_same_seed_and_judged_by_three_tenths(tmp_path: Path) -> None:
    rows = [
        {"split": split, "input": f"input {number}", "text": f"text {number}"}
        for split in ("train", "dev", "test")
        for number in range(60)
    ]
    task = read_task(written(tmp_path, rows))
    one, same, other = task.sample(50, 1), task.sample(50, 1), task.sample(50, 2)
    assert one == same
    assert one.train != other.train
    assert (len(one.train), len(one.dev), len(one.test)) == (50, 15, 60)
    with pytest.raises(DataRefused, match="61 training texts"):
        task.sample(61, 1)


BROKEN = [
    "{",
    "[]",
    '{"split": "train"}',
    '{"split": "train", "input": "a"}',
    '{"split": "x", "input": "a", "text": "b"}',
    '{"split": "train", "input": "a", "text": ""}',
    '{"split": "train", "triples": [1], "refs": ["a"]}',
    '{"split": "train", "triples": "a | b | c", "refs": ["a"]}',
    '{"split": "train", "input": "a", "refs": "Yes"}',
    '{"split": "train", "input": "a", "refs": [null]}',
    '{"split": "train", "input": "a", "text": null}',
    '{"split": "train", "input": null, "text": "b"}',
    '{"split": "train", "input": {}, "text": "b"}',
    '{"split": "train", "input": "a", "text": "b \\ud800"}',
    '{"split": "test", "input": "a", "text": "b", "seen": "false"}',
    "[" * 100_000,
]


@pytest.mark.parametrize("line", BROKEN, ids=range(len(BROKEN)))
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"split": "train", "input": "a", "text": "b"}\n' + line + "\n")
    with pytest.raises(DataRefused, match="line 2"):
        read_task(path)


def test_a_split_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="'dev'"):
        read_task(written(tmp_path, [{"split": "train", "input": "a", "text": "b"}]))


def test_the_pages_way_from_the_published_files_of_e2e(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (repository / "docs" / "guides" / "paper.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    for name in ("trainset", "devset", "testset_w_refs"):
        lines = [f'"name[Aromi], food[Chinese]","{name}, said once"', f'"name[Aromi], food[Chinese]",{name}']
        (tmp_path / f"{name}.csv").write_text("\n".join(["mr,ref", *lines, ""]), "utf-8")
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    task = read_task(tmp_path / "e2e.jsonl")
    assert task.test == (
        Item("name : Aromi | food : Chinese", ("testset_w_refs, said once", "testset_w_refs")),
    )
