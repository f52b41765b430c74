"""The demo: a run, then one prompt under several sealed prefixes, and a removal with its receipt."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest

from antefix import Example
from antefix.common.table import align
from antefix.errors import AntefixError, InvalidArgument
from antefix.receipts import LogKey, verify_receipt
from antefix_simulations import demo
from antefix_simulations.common.terminal import printable
from antefix_simulations.data.store import Population, Split
from antefix_simulations.data.user_texts import SAMPLE, DataRefused, read_users
from antefix_simulations.demo import LOG_KEY, RECEIPT, SETTINGS, Story, run_demo
from antefix_simulations.report.summary import Summary
from antefix_simulations.run.record_vault import RecordVault
from antefix_simulations.settings import RunSettings
from tests.support import tiny_models

pytestmark = pytest.mark.slow

SMALL = {"num-server-rounds": 1, "steps": 1, "private-passes": 0.5, "users": 3, "max-texts": 12}


def tell(out: Path, said: list[str], **changed: object) -> Story:
    settings = RunSettings.read({**SETTINGS, **SMALL, **changed})
    return run_demo(out, settings, tiny_models.base("llama"), said.append)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def story(out: Path) -> Story:
    return tell(out, [])


def test_it_tells_of_everyone(story: Story) -> None:
    text = story.as_text()
    assert len(story.summary.users) == 3
    assert all(str(line["user"]) in text for line in story.summary.users)
    assert "Own beats shared for" in text
    assert json.loads(json.dumps(story.as_json()))["removed"]["left"] == 2


def test_answers_come_from_the_sealed_prefixes(story: Story, out: Path) -> None:
    assert len(story.answers.private) == 2
    assert set(story.answers.private) <= {line["user"] for line in story.summary.users}
    with Population(out / "population.db") as population:
        texts = population.splits(population.numbers()).values()
        assert story.answers.prompt in {text.prompt for split in texts for text in split.held_out}


def test_the_removed_user_is_gone_the_receipt_holds_and_the_others_are_as_they_were(
    story: Story, out: Path
) -> None:
    key = LogKey.parse((out / LOG_KEY).read_text().strip())
    receipt = verify_receipt((out / RECEIPT).read_text(), key, user=bytes.fromhex(story.removed.id))
    assert receipt.removal.user.hex() == story.removed.id
    with RecordVault(out, 3) as keeping:
        with pytest.raises(AntefixError):
            keeping.record(2)
        assert all(len(keeping.record(user)) == story.removed.opened for user in (0, 1))
    command = story.as_text().split("offline:\n")[1].splitlines()[0].split()
    done = subprocess.run(
        [sys.executable, "-c", "from antefix_client.cli import main; main()", *command[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_ended_demo_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    said: list[str] = []
    tell(tmp_path, said)
    (tmp_path / "notes.txt").write_text("mine")
    again = tell(tmp_path, said)
    assert any("is replaced" in line for line in said)
    assert again.removed.left == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_a_demo_that_cannot_begin_leaves_the_earlier_one(tmp_path: Path) -> None:
    """What was there once was deleted before anybody looked at the file."""
    out, one_user = tmp_path / "out", tmp_path / "one.jsonl"
    one_user.write_text(json.dumps({"user": "al", "text": "hello"}) + "\n")
    tell(out, [])
    before = files_of(out)
    assert RECEIPT in before
    for refused in ({"data": "/no/such/file"}, {"data": str(one_user)}, {"length": 1000}, {"users": 1}):
        with pytest.raises(AntefixError):
            tell(out, [], **refused)
        assert files_of(out) == before
    command = [sys.executable, "-m", "antefix_simulations", "demo", "--data", "/no/such/file"]
    (tmp_path / "runs").mkdir()
    out.rename(tmp_path / "runs" / "demo")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
    assert done.returncode == 1
    assert "no/such/file" in done.stderr
    assert files_of(tmp_path / "runs" / "demo") == before


def test_the_beginning_that_a_killed_demo_left_is_gone(tmp_path: Path) -> None:
    """It holds texts in the clear, and keys."""
    (tmp_path / ".next").mkdir()
    (tmp_path / ".next" / "population.db").write_text("a text")
    with pytest.raises(AntefixError):
        tell(tmp_path, [], users=1)
    assert not (tmp_path / ".next").exists()


@pytest.mark.parametrize("place", ["running", "answering", "removing"])
def test_a_demo_that_was_interrupted_has_the_settings_that_are_asked_for(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    other = tmp_path / "other.jsonl"
    rows = [{"user": user, "text": f"{user} {at}"} for user in ("al", "bo") for at in range(12)]
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = {
        "running": "antefix_simulations.run.driver.Run._personalize",
        "answering": "antefix_simulations.demo._answer",
        "removing": "antefix_simulations.demo.RecordVault.remove",
    }[place]
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(target, interrupted)
        with pytest.raises(KeyboardInterrupt):
            tell(out, [])
    if place == "removing":  # at its end: another takes its place
        users = tell(out, [], data=str(other), users=0).summary.users
        assert {line["user"] for line in users} == {"al", "bo"}
        return
    before, said = files_of(out), list[str]()
    with pytest.raises(InvalidArgument, match="other settings: data was 'sample', now"):
        tell(out, said, data=str(other))
    with pytest.raises(InvalidArgument, match="other settings: data was 'sample', now '/no/such/file'"):
        tell(out, said, data="/no/such/file")
    assert said == []
    assert files_of(out) == before
    assert len(tell(out, []).summary.users) == 3


@pytest.mark.slow
def test_the_folder_of_another_run_is_refused_and_left(tmp_path: Path) -> None:
    tell(tmp_path, [])
    (tmp_path / LOG_KEY).unlink()  # a plain run has none
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(InvalidArgument, match="is of a run with other settings"):
        tell(tmp_path, [], seed=5)
    assert (tmp_path / "config.json").read_bytes() == before


def test_too_few_and_too_many_users_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="has 1 users, the demo tells of 2 to 32"):
        tell(tmp_path, [], users=1)


def test_the_pair_that_loses_most_by_a_swap_is_shown() -> None:
    rows = [[1.0, 1.1, 1.2], [1.1, 1.0, 3.0], [1.2, 2.0, 1.0]]
    assert demo.most_unlike(Summary(users=[{"matrix": row} for row in rows])) == [1, 2]


def test_a_prompt_that_neither_was_trained_on_is_preferred() -> None:
    known, new = Example("x", "known\n"), Example("y", "new\n")

    class Texts:
        def splits(self, pair: list[int]) -> dict[int, Split]:
            return {user: Split([known], [known, new] if user == 7 else [known]) for user in pair}

    some: Population = Texts()  # type: ignore[assignment]
    assert demo.unseen_prompt(some, [7, 8]) == "new\n"
    assert demo.unseen_prompt(some, [8, 9]) == "known\n"


def test_lines_for_a_terminal_cannot_steer_it() -> None:
    assert printable("a\x1b[31m\nb") == "a [31m b"
    assert printable("abcdef", 4) == "abc…"
    assert align([["a", "1"], ["bcd", "22"]]) == ["a     1", "bcd  22"]


def test_the_sample_has_forty_texts_of_eight_writers() -> None:
    assert {len(texts) for texts in read_users(SAMPLE).values()} == {40}
    assert len(read_users(SAMPLE)) == 8


@pytest.mark.real
@pytest.mark.slow
def test_real_prefixes_suit_their_own_writers_best(tmp_path: Path) -> None:
    words = ["demo", "--users", "4", "-c", "num-server-rounds=1", "--out", str(tmp_path), "--json"]
    command = [sys.executable, "-m", "antefix_simulations", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=800)
    told = json.loads(done.stdout)
    rows = [line["matrix"] for line in told["users"]]
    own = fmean(row[at] for at, row in enumerate(rows))
    others = fmean(loss for at, row in enumerate(rows) for other, loss in enumerate(row) if other != at)
    assert own < others
    assert own < fmean(line["none"] for line in told["users"])
    assert told["removed"]["left"] == 3
    assert (tmp_path / "report.html").stat().st_size > 10_000
