"""The command `antefix-server`, as an operator types it."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from antefix.keys import DeviceKeys
from antefix.receipts import LogKey, verify_receipt
from antefix.wire import Invitation
from antefix_server.cli import app
from antefix_server.registry import Registry
from antefix_server.vault import Vault
from tests.sdk.saved_models import save_base
from tests.support.records import some_bytes
from tests.support.vaults import Person

PHONE = DeviceKeys(some_bytes("phone", 64))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server's data, where the commands look for it."""
    monkeypatch.setenv("ANTEFIX_DATA", str(tmp_path / "data"))
    run("init", tmp_path / "data", "--mirror", tmp_path / "mirror.db")
    return tmp_path / "data"


def run(*words: object, stdin: str | None = None, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words], input=stdin, prog_name="antefix-server")
    assert result.exit_code == code, result.output
    return result


def refused(*words: object, said: str) -> None:
    result = run(*words, code=1)
    assert result.stdout == ""
    first, *rest = result.stderr.strip().splitlines()
    assert first.startswith("antefix-server: error: ")
    assert said in result.stderr
    assert len(rest) <= 1


@pytest.mark.slow
def test_a_user_from_the_first_day_to_the_last(data: Path, tmp_path: Path) -> None:
    said = json.loads(run("users", "add", "Ann", "--json").stdout)
    with Vault.open(data) as vault:
        invitation = Invitation.parse(said["invitation"])
        enrolled = Registry(vault).enrol(invitation, PHONE.public, invitation.proof(PHONE), "phone")
        Person.with_id(vault.tenant, enrolled.user, "ann").put(vault, b"a prefix")
    assert said["id"] == enrolled.user.hex()
    assert json.loads(run("users", "list", "--json").stdout)[0]["name"] == "Ann"
    assert PHONE.id.hex() in run("users", "show", "ann").stdout
    assert run("devices", "list", "ann").stdout.splitlines()[1].startswith(f"{PHONE.id.hex()}  phone")
    run("users", "suspend", "ann")
    assert "suspended" in run("users", "list").stdout
    run("users", "resume", "ann")
    run("devices", "revoke", "ann", PHONE.id.hex())
    assert "revoked" in run("devices", "list", "ann").stdout
    facts = json.loads(run("status", "--json").stdout)
    assert (facts["users"], facts["records"], facts["removals"]) == (1, 1, 0)
    run("users", "remove", "ann", "--receipt", tmp_path / "receipt")
    receipt = (tmp_path / "receipt").read_text()
    verify_receipt(receipt, LogKey.parse(facts["log key"]), user=enrolled.user)
    facts = json.loads(run("status", "--json").stdout)
    assert (facts["users"], facts["records"], facts["removals"]) == (0, 0, 1)
    assert run("users", "list").stdout == "name  id  added\n"


def test_where_no_vault_is_it_says_how_to_make_one_and_never_over_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "vault.json").unlink()
    refused("status", said="put vault.json back from a backup")
    monkeypatch.setenv("ANTEFIX_DATA", str(tmp_path / "nowhere"))
    for command in ("status", "up"):
        refused(command, said=f"make one: antefix-server init {tmp_path / 'nowhere'}")
    assert not (tmp_path / "nowhere").exists()


def test_an_invitation_is_shown_once_and_can_be_given_again(data: Path) -> None:
    first = run("users", "add", "ann")
    assert "shown once" in first.stderr
    code = first.stdout.split("invitation")[1].strip()
    again = run("users", "invite", "ann", "--expires", 0.5).stdout.split("invitation")[1].strip()
    assert Invitation.parse(code).server == Invitation.parse(again).server
    assert code != again
    assert code not in run("users", "show", "ann").stdout


def test_what_is_not_there_is_said(data: Path, tmp_path: Path) -> None:
    run("users", "add", "ann")
    refused("users", "add", "ANN", said="there is a user 'ANN'")
    refused("users", "remove", "bob", said="there is no user 'bob'")
    refused("devices", "revoke", "ann", "ab", said="32 hex digits")
    refused("devices", "revoke", "ann", "ab" * 16, said="no device")
    refused("backup", said="nothing to back up was named")
    (tmp_path / "receipt").write_text("of somebody else")
    refused("users", "remove", "ann", "--receipt", tmp_path / "receipt", said="is there already")
    assert run("users", "list").stdout.count("ann") == 1
    refused("--data", tmp_path / "nowhere", "status", said="nowhere")


def test_while_somebody_else_writes_the_commands_say_so(data: Path) -> None:
    with Vault.open(data):
        refused("users", "add", "ann", said="another process writes")


def test_backups_go_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    monkeypatch.setenv("ANTEFIX_DATA", str(data))
    said = run("init", data, "--mirror", tmp_path / "mirror.db").stdout
    code = said.splitlines()[0].split()[-1]
    run("users", "add", "ann")
    run("backup", "--records", tmp_path / "records", "--keys", tmp_path / "keys")
    data.rename(tmp_path / "lost")
    words = [
        "--records",
        tmp_path / "records",
        "--keys",
        tmp_path / "keys",
        "--mirror",
        tmp_path / "mirror.db",
    ]
    run("restore", data, *words, stdin=f"{code}\n")
    assert "ann" in run("users", "list").stdout


@pytest.mark.slow
def test_a_base_is_published_promoted_and_withdrawn(data: Path, tmp_path: Path) -> None:
    base = save_base(tmp_path / "tiny")
    first = json.loads(run("base", "publish", base, "--note", "first", "--json").stdout)
    assert (first["version"], first["state"], first["note"]) == (1, "", "first")
    said = run("base", "publish", base, "--source", "https://a.example/", "--source", "http://b.example/x/")
    assert "antefix-server base promote 2" in said.stderr
    assert first["fingerprint"] in said.stdout
    assert run("base", "promote", 2).stdout == "announcement 1: devices are to use version 2\n"
    lines = run("base", "list").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["1", lines[1].split()[1]], ["2", "current"]]
    gone = json.loads(run("base", "withdraw", 2, "--json").stdout)
    assert gone == {"announcement": 2, "current": 1, "withdrawn": [2]}
    assert run("base", "withdraw", 1).stdout == "announcement 3: devices are to use nothing\n"
    states = [one["state"] for one in json.loads(run("base", "list", "--json").stdout)]
    assert states == ["withdrawn", "withdrawn"]
    assert json.loads(run("status", "--json").stdout)["removals"] == 0
    assert run("base", "prune", "--keep", 1).stdout == "1 releases deleted\n"
    refused("base", "promote", 2, said="version 2 was withdrawn")
    refused("base", "promote", 9, said="there is no release 9")
    refused("base", "publish", tmp_path / "nothing", said="does not exist")
    refused("base", "publish", base, "--source", "ftp://a.example/", said="sources")
    refused("base", "publish", base, "--shared", tmp_path / "nothing", said="No such file")


def test_what_a_device_calls_itself_says_nothing_to_the_terminal(data: Path) -> None:
    code = json.loads(run("users", "add", "Ann", "--json").stdout)["invitation"]
    with Vault.open(data) as vault:
        invitation = Invitation.parse(code)
        name = "\x1b]0;owned\x07\x1b[2J\n00 a line"
        Registry(vault).enrol(invitation, PHONE.public, invitation.proof(PHONE), name)
    said = run("devices", "list", "ann").stdout
    assert len(said.splitlines()) == 2
    assert "\x1b" not in said
