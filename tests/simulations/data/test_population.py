"""Populations: nothing on both sides, the newest held out, and a card that counts everything."""

import json
import mailbox
import subprocess
import sys
import tempfile
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antefix import Example
from antefix.errors import InvalidArgument
from antefix_simulations.data.card import Card
from antefix_simulations.data.columns import Columns
from antefix_simulations.data.git import read_git
from antefix_simulations.data.hf_dataset import _partitioner
from antefix_simulations.data.jsonl import read_lines, time_of
from antefix_simulations.data.mbox import read_mbox
from antefix_simulations.data.prepare import Choice, prepare
from antefix_simulations.data.sources import texts_of
from antefix_simulations.data.store import Population
from antefix_simulations.data.text import Text
from antefix_simulations.data.user_texts import DataRefused

words = st.text(alphabet="ab ", min_size=0, max_size=4)
texts = st.lists(
    st.builds(
        Text,
        user=st.sampled_from(["u", "v", "w"]),
        when=st.one_of(st.none(), st.sampled_from(["2020", "2021", "2022"])),
        example=st.builds(Example, completion=words, prompt=words),
    ),
    max_size=40,
)
FEW = Choice(min_texts=1, new_users=0)


def plain(text: Example) -> tuple[str, str]:
    return " ".join(text.prompt.lower().split()), " ".join(text.completion.lower().split())


@pytest.mark.slow
@given(texts)
@settings(max_examples=60, deadline=None)
def test_nothing_is_on_both_sides_and_everything_is_counted(given: list[Text]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = prepare(given, FEW, Path(folder) / "p.db", "test")
        except DataRefused:
            return
        with made as population:
            splits = population.splits(population.numbers())
            card = Card(**population.facts["card"])
    training = [text for split in splits.values() for text in split.training]
    held_out = [text for split in splits.values() for text in split.held_out]
    assert not {plain(text) for text in training} & {plain(text) for text in held_out}
    assert all(split.training and split.held_out for split in splits.values())
    for split in splits.values():
        own = [plain(text) for text in (*split.training, *split.held_out)]
        assert len(own) == len(set(own))
    assert card.texts == len(given)
    kept = card.texts - card.empty - card.duplicates - card.left_out_old - card.on_both_sides
    assert kept >= len(training) + len(held_out)
    assert kept == len(training) + len(held_out) or card.too_few


def made(folder: Path, given: list[Text], choice: Choice = FEW, seed: int = 0) -> Population:
    return prepare(given, choice, folder / "p.db", "test", seed=seed)


def numbered(user: str, count: int, dated: bool = False) -> list[Text]:
    return [
        Text(user, f"20{99 - at}" if dated else None, Example(f"text {at} of {user}")) for at in range(count)
    ]


def test_the_newest_are_held_out(tmp_path: Path) -> None:
    split = made(tmp_path, numbered("u", 8)).splits([0])[0]
    assert [text.completion for text in split.held_out] == ["text 6 of u", "text 7 of u"]
    split = made(tmp_path, numbered("u", 8, dated=True)).splits([0])[0]
    assert [text.completion for text in split.held_out] == ["text 1 of u", "text 0 of u"]


def test_one_user_does_not_outweigh_the_others(tmp_path: Path) -> None:
    given = numbered("big", 900) + [text for number in range(10) for text in numbered(f"u{number}", 10)]
    population = made(tmp_path, given, Choice(max_texts=20, new_users=0))
    assert max(population.histories().values()) == 15
    assert population.facts["card"]["left_out_old"] == 880
    assert population.facts["card"]["too_few"] == 10 or population.count == 11


def test_users_with_too_few_texts_are_left_out(tmp_path: Path) -> None:
    population = made(tmp_path, numbered("u", 20) + numbered("v", 3), Choice(min_texts=8, new_users=0))
    assert list(population.names(population.numbers()).values()) == ["u"]
    with pytest.raises(DataRefused, match="2 users with 8 training texts are wanted, test has 1 of 2") as few:
        made(tmp_path, numbered("u", 20) + numbered("v", 3), Choice(users=2))
    assert str(few.value.hint).startswith("ask for fewer users")
    with pytest.raises(DataRefused, match="the most that a user has is 2") as none:
        made(tmp_path, numbered("v", 3), Choice())
    assert "users" not in str(none.value.hint)


def test_where_there_is_no_text_at_all_it_is_said_why(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="test has no text: 2 lines are broken, 3 texts empty"):
        prepare([Text("u", None, Example(" "))] * 3, FEW, tmp_path / "p.db", "test", [1, 2])


def test_the_seed_chooses_and_new_users_take_no_part(tmp_path: Path) -> None:
    given = [text for number in range(12) for text in numbered(f"u{number}", 12)]

    def names(seed: int) -> list[str]:
        population = made(tmp_path, given, Choice(users=8, new_users=0.25), seed)
        assert population.numbers(role=1) == [6, 7]
        return list(population.names(population.numbers()).values())

    assert names(1) == names(1) != names(2)


def test_a_cut_off_preparation_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> object:
        yield from numbered("u", 10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(broken(), FEW, tmp_path / "p.db", "test")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = [
        {"user": "u", "text": "grüße 🎉", "date": "2024-01-02"},
        {"user": "u"},
        {"user": "u", "text": "b"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "no json\n", "utf-8")
    with pytest.raises(DataRefused, match="line 2 of") as refused:
        list(read_lines(path, None))
    assert "-c broken-lines=skip" in str(refused.value.hint)
    broken: list[int] = []
    found = list(read_lines(path, broken.append))
    assert [text.example.completion for text in found] == ["grüße 🎉", "b"]
    assert found[0].when == "2024-01-02T00:00:00.000000+00:00"
    assert broken == [2, 4]


@pytest.mark.parametrize("data", ["", "git:", "mbox:", "hf:"])
def test_data_without_a_name_is_refused(data: str) -> None:
    """`git:` alone was the history of wherever one stood."""
    with pytest.raises(DataRefused, match="data is ") as refused:
        texts_of(data, None, Columns(), 0)
    assert "git:FOLDER" in str(refused.value.hint)


def test_a_table_is_refused_with_the_way_to_read_it(tmp_path: Path) -> None:
    with pytest.raises(DataRefused) as refused:
        texts_of(str(tmp_path / "a.csv"), None, Columns(), 0)
    assert refused.value.hint == f"hf:{tmp_path / 'a.csv'} reads it"


def test_times_of_any_zone_sort_as_text() -> None:
    assert time_of("2024-01-02T01:00:00+02:00") == time_of("2024-01-01T23:00:00Z")
    assert time_of(0) == "1970-01-01T00:00:00.000000+00:00"
    assert time_of("last week") is None


def test_a_history_of_git(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    git("init")
    for number in range(3):
        (tmp_path / f"file {number}").write_text(str(number))
        git("add", "-A")
        git("commit", "-m", f"Add number {number}\n\nIt was missing.")
    found = list(read_git(tmp_path))
    assert [text.user for text in found] == ["Ann <ann@example.org>"] * 3
    assert found[1].example == Example("Add number 1\n\nIt was missing.", "file 1\n")
    assert sorted(str(text.when) for text in found) == [text.when for text in found]
    with pytest.raises(DataRefused, match="has no history"):
        list(read_git(tmp_path / "nothing"))


def test_a_history_may_hold_any_letter(tmp_path: Path) -> None:
    """Messages with the letters that once stood between fields, and names that git would quote."""

    def git(*words: str, said: str = "") -> None:
        who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *who, *words]
        subprocess.run(command, check=True, capture_output=True, input=said.encode())

    git("init")
    (tmp_path / 'fü\t".txt').write_text("x")
    git("add", "-A")
    git("commit", "--cleanup=verbatim", "-F", "-", said="One\n\n\x01two\x02three\n\n//\n")
    git("commit", "--allow-empty", "-m", "Two")
    git("commit", "--allow-empty", "--allow-empty-message", "-m", "")
    assert [text.example for text in read_git(tmp_path)] == [
        Example("One\n\n\x01two\x02three\n\n//", 'fü\t".txt\n'),
        Example("Two"),
        Example(""),
    ]


def test_a_mailbox(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "box")
    mail = EmailMessage()
    mail["From"], mail["Subject"] = "Ann <ANN@example.org>", "=?utf-8?q?Gr=C3=BC=C3=9Fe?="
    mail["Date"] = "Mon, 1 Jan 2024 10:00:00 +0100"
    mail.set_content("Hello,\n> you wrote this\nI do too.\n-- \nAnn, roofer\n")
    box.add(mail)
    box.close()
    (found,) = read_mbox(tmp_path / "box")
    assert found == Text(
        "ann@example.org",
        "2024-01-01T09:00:00.000000+00:00",
        Example("Hello,\nI do too.", "Subject: Grüße\n"),
    )


@pytest.mark.parametrize(
    ("charset", "written", "read"),
    [
        ("rot13", b"hello", "hello"),
        ("idna", b"hello. \xff", "hello. \N{REPLACEMENT CHARACTER}"),
        ("punycode", b"hello-\xff", "hello-\N{REPLACEMENT CHARACTER}"),
        ("unicode_escape", b"half \\ud83d", "half ?"),
        ("utf-7", b"half +2D0-", "half ?"),
        ("nul\0", b"hello", "hello"),
    ],
)
def test_a_mail_in_a_strange_character_set_is_read(
    charset: str, written: bytes, read: str, tmp_path: Path
) -> None:
    head = b"From ann Mon Jan  1 00:00:00 2024\nFrom: ann@example.org\nSubject: =?utf-7?q?+2D0-?=\n"
    kind = f"Content-Type: text/plain; charset={charset}\n\n".encode()
    (tmp_path / "box").write_bytes(head + kind + written + b"\n")
    (found,) = read_mbox(tmp_path / "box")
    assert found.example == Example(read, "Subject: ?\n")


def test_without_partitioners_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr_datasets", None)
    with pytest.raises(InvalidArgument, match="partition=iid needs the library flwr-datasets") as refused:
        _partitioner(Columns(partition="iid"), None, 0)
    assert refused.value.hint == "pip install 'antefix[datasets]'"


def mailbox_of(folder: Path, *heads: bytes) -> Path:
    path = folder / "box"
    mails = (
        b"From a Mon Jan  1 00:00:00 2024\nFrom: a@example.org\n%s\n\nhello\n\n" % head for head in heads
    )
    path.write_bytes(b"".join(mails))
    return path


def test_one_bad_mail_stops_no_import(tmp_path: Path) -> None:
    heads = (
        b"Subject: =?utf-8?B?a?=",
        b"Date: Mon, 1 Jan 2024 00:00:00 +99999999999999999999",
        b"Date: Mon, 1 Jan 20240000000000000000 00:00:00 +0000",
        b"Subject: last\nDate: Mon, 1 Jan 2024 00:00:00 +0000",
    )
    found = list(read_mbox(mailbox_of(tmp_path, *heads)))
    assert [one.when is None for one in found] == [True, True, True, False]
    assert [one.example.prompt for one in found] == ["", "", "", "Subject: last\n"]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("x" * 999, id="a name that no file can have"),
        pytest.param(
            "/proc/self/mem",
            id="fails while it is read",
            marks=pytest.mark.skipif(not Path("/proc/self/mem").is_file(), reason="of Linux alone"),
        ),
    ],
)
def test_a_mailbox_that_cannot_be_read_is_the_fault_of_the_source(path: str) -> None:
    """Elsewhere it was told as a folder that cannot be written, or as a traceback."""
    with pytest.raises(DataRefused, match=f"^{path} cannot be read: "):
        list(read_mbox(Path(path)))


def test_a_line_that_is_no_utf8_is_one_broken_line(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    good = json.dumps({"user": "a", "text": "b"}).encode() + b"\n"
    file.write_bytes(good + good.replace(b"b", b"\xff") + good)
    broken: list[int] = []
    assert len(list(read_lines(file, broken.append))) == 2
    assert broken == [2]
    with pytest.raises(DataRefused, match=r"line 2 of .*x.jsonl is not UTF-8 text"):
        list(read_lines(file, None))


def test_users_whose_times_cannot_all_be_read_are_counted(tmp_path: Path) -> None:
    texts = [
        Text("ann", None if at == 3 else f"2024-01-{at:02}", Example(f"text {at}")) for at in range(1, 13)
    ]
    card = Card(**prepare(texts, Choice(new_users=0), tmp_path / "p", "x").facts["card"])
    assert card.no_order == 1
    assert "not every time can be read, so as in the source: 1 users" in card.as_text()
