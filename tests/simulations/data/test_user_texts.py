import codecs
import gzip
import json
from pathlib import Path

import pytest

from antefix import Example
from antefix.errors import ExampleError
from antefix_simulations.data.jsonl import read_lines
from antefix_simulations.data.user_texts import SAMPLE, DataRefused, choose_users, cut_prompts, read_users
from tests.support import tiny_models


def written(folder: Path, *rows: object, name: str = "texts.jsonl") -> Path:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("name", ["texts.jsonl", "texts.jsonl.gz"])
def test_rows_keep_the_order_of_the_file(name: str, tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"user": "bo", "completion": "one"},
        {"user": "al", "completion": "two", "prompt": "Say it."},
        {"user": "bo", "completion": "three"},
        name=name,
    )
    users = read_users(path)
    assert list(users) == ["bo", "al"]
    assert users["bo"] == [Example("one"), Example("three")]
    assert users["al"] == [Example("two", "Say it.\n")]


def test_the_other_names_of_the_fields_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, {"user": "al", "text": "Fix it", "input": "It broke.\n", "date": "2005"})
    assert read_users(path) == {"al": [Example("Fix it", "It broke.\n")]}


@pytest.mark.parametrize(
    ("body", "prompt"), [("It broke.", "a.c b.c\nIt broke.\n"), ("", "a.c b.c\n"), (None, "a.c b.c\n")]
)
def test_files_go_in_front_of_the_prompt(body: str | None, prompt: str, tmp_path: Path) -> None:
    path = written(tmp_path, {"user": "al", "text": "Fix it", "input": body, "files": ["a.c", "b.c"]})
    assert read_users(path) == {"al": [Example("Fix it", prompt)]}


def test_blank_lines_are_skipped_but_counted(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('\n{"user": "al", "text": "a"}\n\nsecret\n')
    with pytest.raises(DataRefused, match=r"line 4 of .* is not JSON") as refused:
        read_users(path)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("row", "match"),
    [
        (["secret"], "line 1 of .* is not a JSON object"),
        ({"text": "secret"}, "line 1 of .* has no 'user'"),
        ({"user": "al", "prompt": "secret"}, "line 1 of .* has no 'completion' or 'text'"),
        ({"user": "al", "text": ""}, "line 1 of .* has no 'completion' or 'text'"),
        ({"user": "al", "text": ["secret"]}, "'text' in line 1 of .* is a list"),
        ({"user": 7, "text": "secret"}, "'user' in line 1 of .* is a int"),
        ({"user": "al", "text": "a", "prompt": {"secret": 1}}, "'prompt' in line 1 of .* is a dict"),
        ({"user": "al", "text": "a", "files": "secret"}, "'files' in line 1 of .* is not a list of names"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_without_its_text(
    row: object, match: str, tmp_path: Path
) -> None:
    with pytest.raises(DataRefused, match=match) as refused:
        read_users(written(tmp_path, row))
    assert "secret" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match=r"nowhere\.jsonl cannot be read: No such file"):
        read_users(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", b"\xff\xfe{}"), ("a.jsonl.gz", b"{}")])
def test_a_file_that_is_no_text_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataRefused, match=r"not UTF-8|cannot be read"):
        read_users(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_byte_order_mark_at_the_start_is_no_part_of_the_text(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, {"user": "al", "text": "a", "date": "2024-01-01"}, name=name)
    unpack, pack = (gzip.decompress, gzip.compress) if name.endswith("gz") else (bytes, bytes)
    path.write_bytes(pack(codecs.BOM_UTF8 + unpack(path.read_bytes())))
    assert read_users(path) == {"al": [Example("a")]}
    assert [text.user for text in read_lines(path, None)] == ["al"]


@pytest.mark.parametrize("field", ["user", "text", "prompt", "files"])
def test_half_a_character_is_named_with_its_line(field: str, tmp_path: Path) -> None:
    odd = "secret \ud800"
    row: dict[str, object] = {"user": "al", "text": "a", field: [odd] if field == "files" else odd}
    with pytest.raises(DataRefused, match=f"'{field}' in line 1 of .* half of a surrogate pair") as refused:
        read_users(written(tmp_path, row))
    assert "secret" not in str(refused.value)


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {"user": "al", "text": "a" * 999}, name="texts.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataRefused, match="cannot be read"):
        read_users(path)


def test_a_file_without_users_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExampleError, match="has no users"):
        read_users(written(tmp_path))


def test_errors_belong_to_the_tree_of_the_sdk() -> None:
    assert issubclass(DataRefused, ExampleError)


@pytest.mark.parametrize("limit", [1, 2, 5, 64])
def test_long_prompts_are_cut_to_whole_tokens_and_end_their_line(limit: int) -> None:
    tokenizer = tiny_models.tokenizer()
    prompts = [
        "short\n",
        "a long one, and then some more of it " * 9 + "\n",
        "Über naïve Dächer, " * 9 + "\n",
        "",
    ]
    cut = cut_prompts([Example("c", prompt) for prompt in prompts], tokenizer, limit)
    for before, after in zip(prompts, cut, strict=True):
        assert len(tokenizer(after.prompt)["input_ids"]) <= limit
        assert after.prompt in ("", "\n") or before.startswith(after.prompt[:-1])
        assert after.prompt.endswith("\n") or before == ""
        assert after.completion == "c"


def test_the_sample_has_eight_writers_with_forty_texts() -> None:
    assert {user: len(texts) for user, texts in read_users(SAMPLE).items()} == dict.fromkeys(
        ["otto", "edith", "mira", "magnus", "petra", "rosie", "conrad", "gus"], 40
    )


def test_users_are_chosen_by_their_number_of_texts() -> None:
    users = {"al": [Example("a")], "bo": [Example("b"), Example("c"), Example("d")]}
    assert choose_users(users, None, 2, "x") == {"bo": [Example("b"), Example("c")]}
    assert list(choose_users(users, 1, 1, "x")) == ["al"]
    with pytest.raises(
        ExampleError, match="2 users with 2 texts each are wanted, x has 1 of 2; use --users 1"
    ):
        choose_users(users, 2, 2, "x")
    with pytest.raises(ExampleError, match="1 users with 9 texts each are wanted, x has 0 of 2"):
        choose_users(users, None, 9, "x")
