"""`antefix join` and the like, as a user types them, against a real gateway over TLS."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from antefix_client import PersonalModel
from antefix_client.cli import app, serve
from antefix_client.membership import Membership
from tests.client.people import KEY
from tests.client.two_devices import link
from tests.support import tiny_models
from tests.support.server.gateway import Server, server


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("server") / "data") as made:
        yield made


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "key").write_bytes(KEY)
    monkeypatch.setenv("ANTEFIX_PROFILE", str(tmp_path / "profile"))
    monkeypatch.setenv("ANTEFIX_KEY_FILE", str(tmp_path / "key"))
    return tmp_path


def run(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words], prog_name="antefix")
    assert result.exit_code == code, result.output
    return result


def join(there: Server, name: str, *options: str) -> Result:
    return run("join", there.invited(name), "--server", there.url, "--no-serve", *options)


def test_joining_makes_a_profile_where_there_is_none(home: Path, there: Server) -> None:
    said = join(there, "ann")
    assert f"made {home / 'profile'}" in said.stdout
    assert f"joined {there.url} as user {there.registry.find('ann').id.hex()}" in said.stdout
    assert "could read a single" in said.stderr  # rounds are explained, and off where nobody answers
    assert run("rounds").stdout == "no\n"
    assert run("rounds", "--yes").stdout == "yes\n"
    assert run("rounds", "--json").stdout == '{"rounds": true}\n'
    assert "nothing new" in run("sync").stdout


def test_leaving_keeps_the_profile(home: Path, there: Server) -> None:
    with PersonalModel.create(home / "profile", unlock=KEY, base=tiny_models.base("llama")) as model:
        model.remember(["a text"])
    join(there, "bea", "--no-rounds")
    run("leave", code=1)  # nobody answers
    run("leave", "--yes")
    assert "on no server" in run("sync", code=1).stderr
    with PersonalModel.open(home / "profile", unlock=KEY, base=tiny_models.base("llama")) as model:
        assert len(model.texts()) == 1


def test_serving_takes_the_servers_base_before_another_is_loaded(
    home: Path, there: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`join` was cut off before the release came; the base that `serve` loads first stays pinned."""
    done: list[str] = []
    monkeypatch.setattr(Membership, "follow", lambda _: done.append("follow"))
    monkeypatch.setattr(serve, "serve_model", lambda *_: done.append("serve"))
    PersonalModel.create(home / "profile", unlock=KEY, base=tiny_models.base("llama")).close()
    run("serve")
    assert done == ["serve"]  # on no server
    join(there, "eli")
    done.clear()
    run("serve")
    assert done == ["follow", "serve"]


def test_a_removed_device_is_let_in_no_more(home: Path, there: Server) -> None:
    names = ("phone", "laptop")
    models = [PersonalModel.create(home / one, unlock=KEY, base=tiny_models.base("llama")) for one in names]
    for name in names:
        models.pop(0).close()
        join(there, "dan", "--profile", str(home / name))
    with (
        PersonalModel.open(home / "phone", unlock=KEY) as phone,
        PersonalModel.open(home / "laptop", unlock=KEY) as laptop,
    ):
        link(phone, laptop)
        gone = laptop.device
    assert run("device", "remove", gone, "--yes", "--profile", home / "phone").stdout == "removed\n"
    assert "does not let this device in" in run("sync", "--profile", home / "laptop", code=1).stderr
    assert "nothing new" in run("sync", "--profile", home / "phone").stdout


def test_mistakes_are_two_lines(home: Path, there: Server) -> None:
    join(there, "cleo")
    code = there.invited("cleo")
    for words, said in (
        ((code, "--server", "https://127.0.0.1:9"), "is on"),
        (("ABCD-EFGH", "--server", there.url), "invitation"),
        ((code, "--server", "ftp://x"), "is on"),
    ):
        result = run("join", *words, "--no-serve", code=1)
        assert said in result.stderr
        assert len(result.stderr.strip().splitlines()) <= 2
    run("leave", "--yes")
    assert (
        "does not answer" in run("join", code, "--server", "https://127.0.0.1:9", "--no-serve", code=1).stderr
    )
    assert "begins with https" in run("join", code, "--server", "example.com", "--no-serve", code=1).stderr
