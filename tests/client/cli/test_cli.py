"""The command `antefix`, as one types it."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from antefix.common.cli import strip_control_chars
from antefix_client import PersonalModel
from antefix_client.cli import app
from tests.client.people import KEY, NOTES, tiny_folder
from tests.support.full_disk import full_disk

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a base, texts and a key; the profile is made there."""
    tiny_folder(tmp_path / "base")
    (tmp_path / "notes.txt").write_text("\n\n".join(NOTES), "utf-8")
    (tmp_path / "key").write_bytes(KEY)
    monkeypatch.setenv("ANTEFIX_PROFILE", str(tmp_path / "profile"))
    monkeypatch.setenv("ANTEFIX_KEY_FILE", str(tmp_path / "key"))
    return tmp_path


def made(home: Path, name: str = "profile") -> None:
    """A profile that the key unlocks; `init` asks for a passphrase, which takes its time by design."""
    PersonalModel.create(home / name, unlock=KEY, base=str(home / "base")).close()


def run(*words: object, stdin: str | None = None, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words], input=stdin, prog_name="antefix")
    assert result.exit_code == code, result.output
    return result


def refused(*words: object, said: str, stdin: str | None = None) -> None:
    result = run(*words, stdin=stdin, code=1)
    assert result.stdout == ""
    first, *rest = result.stderr.strip().splitlines()
    assert first.startswith("antefix: error: ")
    assert said in result.stderr
    assert len(rest) <= 1
    assert "Traceback" not in result.stderr


def test_a_whole_life(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTEFIX_KEY_FILE", str(home / "new-key"))
    assert str(home / "profile") in run("init", "--base", home / "base").stdout
    assert (home / "new-key").stat().st_size == 32
    assert run("remember", home / "notes.txt").stdout == "24 new texts, 24 in all\n"
    assert run("remember", "-", stdin="one more\n").stdout == "1 new texts, 25 in all\n"
    assert json.loads(run("status", "--json").stdout)["texts"] == 25
    assert "Version 1, learned from" in run("learn").stdout
    written = run("complete", "Note 3:", "--max-tokens", 5)
    assert "nothing was learned" not in written.stderr
    text = written.stdout
    whole = json.loads(run("complete", "Note 3:", "--max-tokens", 5, "--json").stdout)["text"]
    assert strip_control_chars(whole) == text[:-1]
    assert float(run("score", home / "notes.txt").stdout) > 0
    assert len(json.loads(run("versions", "--json").stdout)) == 1
    run("remember", "-", "--split", "lines", stdin="a\nb\n")
    report = json.loads(run("learn", "--json").stdout)
    assert report["finished"]
    if report["kept"]:
        assert "version 3 is version 1 again" in run("roll-back").stdout
    run("export", home / "mine.safetensors")
    assert (home / "mine.safetensors").is_file()
    run("forget", "--yes")
    assert not (home / "profile").exists()


def test_what_unlocks_can_be_changed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTEFIX_KEY_FILE")
    monkeypatch.setenv("ANTEFIX_PASSPHRASE", "several words of one's own")
    run("init", "--base", home / "base")
    monkeypatch.setenv("ANTEFIX_NEW_PASSPHRASE", "other words")
    run("unlock")
    refused("status", said="does not open with this passphrase or key")
    monkeypatch.setenv("ANTEFIX_PASSPHRASE", "other words")
    run("status")
    run("unlock", "--new-key-file", home / "new-key")
    refused("status", said="does not open with this passphrase or key")
    run("status", "--key-file", home / "new-key")
    refused(
        "unlock", "--new-key-file", home / "new-key", "--key-file", home / "new-key", said="is there already"
    )


def test_a_key_file_in_the_environment_opens_and_is_not_the_new_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(home)
    monkeypatch.setenv("ANTEFIX_NEW_PASSPHRASE", "other words")
    run("unlock")
    assert (home / "key").read_bytes() == KEY
    refused("status", said="does not open with this passphrase or key")


def test_without_a_terminal_a_passphrase_is_not_asked_for(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTEFIX_PASSPHRASE", raising=False)
    refused("init", "--base", home / "base", said="key is there already")
    monkeypatch.delenv("ANTEFIX_KEY_FILE")
    refused("init", said="set ANTEFIX_PASSPHRASE")
    refused("init", said="set ANTEFIX_PASSPHRASE")  # nothing was left that would be in the way


@pytest.mark.parametrize(
    ("content", "split", "said"),
    [
        (b"fine\nnot \xff fine\n", "lines", "line 2 of .* is not UTF-8 at byte 4"),
        (b"x" * 500_000, "lines", "line 1 of .* has more than 400,000 bytes"),
        (b"{]\n", "json", "line 1 of .* is no JSON"),
        (b'{"prompt": "a"}\n', "json", "line 1 of .* has no text"),
        (b'{"completion": 7}\n', "json", "line 1 of .* has no text"),
        (b"[" * 100_000, "json", "line 1 of .* is no JSON"),
        (b'{"text": "a"}\n\n{"text": " "}\n', "json", "the text at line 3 of .* is empty"),
        (b"a\n\nb\n" + b"x" * 100_001, "paragraphs", "the text at line 3 of .* has 100,003 characters"),
        (b"\n", "whole", "the text at line 1 of .* is empty"),
        (b"PNG\0\0\n", "paragraphs", "line 1 of .* has a zero byte"),
        (b"\n \n", "paragraphs", "there is no text in"),
        (b"a line\n" * 70_000, "whole", "more than 400,000 characters"),
        (b"a line\n" * 5_000, "lines", "more than 4,096 texts.*--newest"),
    ],
)
def test_odd_files_are_refused_and_nothing_is_kept(content: bytes, split: str, said: str, home: Path) -> None:
    import re

    made(home)
    (home / "odd").write_bytes(content)
    result = run("remember", home / "odd", "--split", split, code=1)
    assert re.search(said, " ".join(result.stderr.split()))
    assert json.loads(run("status", "--json").stdout)["texts"] == 0


def test_a_text_that_cannot_be_scored_is_named_by_its_line(home: Path) -> None:
    made(home)
    (home / "long").write_text("short\n\n" + "word " * 3000, "utf-8")
    refused("score", home / "long", said=f"line 3 of {home / 'long'}: example 1 has ")
    hint = run("score", home / "long", code=1).stderr
    assert "user" not in hint
    assert "max_prompt_tokens" not in hint  # no option of the command


def test_a_profile_is_made_in_a_folder_that_is_there(home: Path) -> None:
    folder = home / "mistyped" / "profile"
    refused(
        "init", "--profile", folder, "--key-file", home / "new", said=f"there is no folder {folder.parent}"
    )
    assert not folder.parent.exists()
    assert not (home / "new").exists()


def test_a_file_of_80_mb_is_not_read_whole(home: Path) -> None:
    made(home)
    with (home / "large").open("wb") as file:
        file.truncate(80_000_000)
    refused("remember", home / "large", said="split it into several")
    lines = "".join(f"line {number} of a long diary\n" for number in range(100_000))
    (home / "diary").write_text(lines, "utf-8")
    assert "4,096 new texts" in run("remember", home / "diary", "--split", "lines", "--newest").stdout


def test_what_is_not_there_is_said(home: Path) -> None:
    refused("status", said="there is no profile in")
    refused("remember", home / "nothing.txt", said="cannot be read")
    made(home)
    refused("init", "--base", home / "base", said="has something in it")
    refused("learn", said="0 texts are remembered, 4 are needed")
    assert "nothing was learned yet" in run("complete", "Note 3:", "--max-tokens", 1).stderr
    assert "version      none yet" in run("status").stdout
    refused("roll-back", said="nothing was learned yet")
    refused("status", "--key-file", home / "no-key", said="cannot be read")
    refused("status", "--key-file", home / "notes.txt", said="the key has")


def test_chat_answers_and_keeps_nothing(home: Path) -> None:
    made(home)
    result = run("chat", stdin="hello\n\n", code=1)  # the tiny base has no chat template
    assert "has no chat template" in result.stderr


def test_a_base_that_cannot_be_is_refused_before_anything_is_made(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("smollm2-135m-q5", "./nowhere", " ", str(home / "key")):
        refused("init", "--base", name, "--key-file", home / "new-key", said="base")
    assert not (home / "profile").exists()
    assert not (home / "new-key").exists()
    said = run("init", "--base", "somebody/some-base", "--key-file", home / "new-key").stderr
    assert "from the Hugging Face hub" in said
    monkeypatch.setenv("ANTEFIX_KEY_FILE", str(home / "new-key"))
    refused("change-base", "smollm2-135m-q5", said="did you mean 'smollm2-135m-q4'?")
    run("change-base", home / "base")
    run("remember", home / "notes.txt")
    run("learn")


def test_a_key_is_made_only_for_a_profile_that_is(home: Path) -> None:
    (home / "profile").mkdir()
    (home / "profile" / "other").write_text("here first")
    refused("init", "--base", home / "base", "--key-file", home / "new-key", said="has something in it")
    assert not (home / "new-key").exists()


def test_forgetting_asks_first(home: Path) -> None:
    made(home)
    run("forget", stdin="n\n", code=1)
    assert (home / "profile").exists()
    assert "hint: say --yes" in run("forget", stdin="", code=1).stderr
    assert (home / "profile").exists()
    run("forget", stdin="y\n")
    assert not (home / "profile").exists()


def test_a_terminal_is_not_made_to_obey() -> None:
    assert strip_control_chars("fine\n\tGrüße") == "fine\n\tGrüße"
    assert "\x1b" not in strip_control_chars("\x1b[2J\x1b]0;title\x07")
    assert "\x9b" not in strip_control_chars("\x9b31m\r\x08")


def test_a_profile_of_a_newer_version_is_not_called_damaged(home: Path) -> None:
    made(home)
    card = json.loads((home / "profile" / "profile.json").read_text())
    (home / "profile" / "profile.json").write_text(json.dumps({**card, "format": 2, "slots": {}}))
    refused("status", said="is of format 2, this version writes 1")


def test_texts_are_saved_from_a_profile_without_keys(home: Path) -> None:
    made(home)
    run("remember", home / "notes.txt")
    (home / "profile" / "keys").unlink()
    refused("status", said="antefix rescue FILE")
    assert run("rescue", home / "saved.jsonl").stdout.startswith("24 texts")
    rows = [json.loads(line) for line in (home / "saved.jsonl").read_text("utf-8").splitlines()]
    assert [row["completion"] for row in rows] == NOTES
    refused("rescue", home / "saved.jsonl", said="is there already")
    with full_disk(1000):  # half of them would look like all of them
        refused("rescue", home / "saved-2.jsonl", said="no space left")
    assert not (home / "saved-2.jsonl").exists()


def test_a_key_is_not_kept_in_the_profile(home: Path) -> None:
    """Whoever copies the folder would have it; and its files replace each other."""
    (home / "link").symlink_to(home / "profile")
    for inside in (home / "profile" / ".key", home / "link" / "keys", home / "x" / ".." / "profile" / "lock"):
        refused("init", "--base", home / "base", "--key-file", inside, said="is in the profile's folder")
    assert not (home / "profile").exists()
    made(home)
    refused("unlock", "--new-key-file", home / "profile" / ".key", said="is in the profile's folder")
    assert not (home / "profile" / ".key").exists()


def test_what_a_terminal_would_obey_is_not_printed(home: Path) -> None:
    made(home)
    path = home / "profile" / "profile.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "base": "\x1b[2Jfake"}))
    assert "\x1b" not in run("status").stdout
    said = run("remember", home / "\x1b]0;title\x07", code=1).stderr
    assert "\x1b" not in said
    assert "cannot be read" in said
