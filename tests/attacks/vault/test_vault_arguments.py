"""Names with tricks, where the vault takes ids: refused at the edge, never a path or a statement."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from antefix.errors import AntefixError, InvalidArgument, RecordMismatch
from antefix_server.cli import app
from antefix_server.errors import UnknownUser, VaultUnavailable
from antefix_server.vault import Vault
from tests.support.records import some_bytes
from tests.support.vaults import Person, new_vault

NAMES = {
    "path": "../../../etc/passwd",
    "absolute": "/etc/passwd",
    "encoded path": "%2e%2e%2f",
    "device": "CON",
    "nul": "ann\0",
    "statement": "'; DROP TABLE records; --",
    "or": "' OR '1'='1",
    "empty": "",
    "full-width digits": "\N{FULLWIDTH DIGIT ZERO}" * 32,
    "look-alike": "\N{CYRILLIC SMALL LETTER A}" * 32,
    "upper case": "A" * 32,
    "right to left": "\N{RIGHT-TO-LEFT OVERRIDE}" + "0" * 31,
    "too long": "0" * 33,
    "newline": "0" * 31 + "\n",
    "ten megabytes": "0" * 10_000_000,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arguments") / "vault"
    with new_vault(path) as vault:
        Person.enrolled(vault, "ann").put(vault, b"one")
    return path


@pytest.mark.parametrize("attack", NAMES)
def test_a_name_is_no_id(attack: str, folder: Path) -> None:
    name = NAMES[attack]
    before = sorted(path.name for path in folder.iterdir())
    with Vault.open(folder) as vault:
        for value in (name, name.encode(), None, 7, bytearray(16), [b"x" * 16]):
            for call in (vault.get, vault.head):
                with pytest.raises(InvalidArgument, match=r"user id is .*, expected 16 bytes") as caught:
                    call(value, bytes(16))  # type: ignore[arg-type]
                assert len(str(caught.value)) < 200
            with pytest.raises(InvalidArgument, match="user id is"):
                vault.remove(value)  # type: ignore[arg-type]
        user = vault.enrol()
        with pytest.raises(InvalidArgument, match="prefix id is"):
            vault.get(user, name)  # type: ignore[arg-type]
        assert vault.shelf.count() == 1
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("attack", [attack for attack in NAMES if attack not in ("empty", "nul")])
def test_the_command_takes_no_name_either(attack: str, folder: Path) -> None:
    done = CliRunner().invoke(app, ["--data", str(folder), "users", "remove", "--", NAMES[attack]])
    assert (done.exit_code, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert "there is no user" in lines[0] or "name" in lines[0]
    assert len(lines) == 2
    assert len(done.stderr) < 300


@pytest.mark.parametrize("count", [-1, 2**60, 1.5, "many", None])
def test_a_number_of_users_that_cannot_be_meant_is_refused(count: int, folder: Path) -> None:
    with Vault.open(folder) as vault, pytest.raises(InvalidArgument, match="users at once"):
        vault.enrol_many(count)


@pytest.mark.slow
def test_sixteen_bytes_of_anything_are_nobody(folder: Path) -> None:
    with Vault.open(folder) as vault:
        for user in (
            bytes(16),
            b"' OR 1=1 OR 'a'=",
            b"../../etc/passwd",
            *(some_bytes(f"{n}", 16) for n in range(3000)),
        ):
            with pytest.raises(UnknownUser):
                vault.get(user, bytes(16))
            with pytest.raises(UnknownUser):
                vault.remove(user)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\3\4" + bytes(500), bytes(400), b"\x80\x04" + bytes(500)])
def test_what_is_no_record_is_not_stored(content: bytes, folder: Path) -> None:
    with Vault.open(folder) as vault:
        for put in (vault.put, lambda record: vault.put_stream(iter([record]))):
            with pytest.raises(RecordMismatch):
                put(content)
        assert vault.shelf.count() == 1


def test_a_stream_without_end_is_cut_where_its_header_says(folder: Path) -> None:
    with Vault.open(folder) as vault:
        bob = Person.enrolled(vault, "bob")
        record = bob.next(b"one")
        sent = 0

        def endless() -> object:
            nonlocal sent
            yield record
            while True:
                sent += 1
                yield bytes(1000)

        with pytest.raises(RecordMismatch, match="or more, expected"):
            vault.put_stream(endless())  # type: ignore[arg-type]
        assert sent == 1


@pytest.mark.parametrize(
    "url",
    ["mysql://u:geheim@h/d", "sqlite:///x.db", "nonsense geheim", "postgresql://u:geheim@127.0.0.1:1/none"],
)
def test_another_database_is_refused_without_its_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(AntefixError) as caught:
        new_vault(tmp_path / "vault", url)
    assert "geheim" not in str(caught.value)
    assert isinstance(caught.value, InvalidArgument | VaultUnavailable)
