"""A device lets its server generate under its prefix: over TLS, with the official `openai` client."""

import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from antefix import GenerationRequest, generate
from antefix.errors import GrantRefused, InvalidArgument
from antefix.wire import Signed
from antefix_client import PersonalModel
from antefix_client.errors import NotJoined, ServerRefused
from antefix_client.granting import Granting
from antefix_client.membership import Membership
from tests.client.cli.test_server_cli import run
from tests.client.people import KEY
from tests.client.two_devices import device, learned, link
from tests.support import tiny_models
from tests.support.server.gateway import Server, server

pytestmark = pytest.mark.slow

BASE = tiny_models.base("llama")
ASKED: dict[str, Any] = {"model": "personal", "prompt": "An ornament", "max_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("server") / "data", base=BASE) as made:
        yield made


def joined(model: PersonalModel, there: Server, name: str) -> Membership:
    found = Membership(model)
    found.join(there.invited(name), there.url)
    return found


def written(membership: Membership, there: Server) -> str:
    token = membership.server.state().token
    with httpx.Client(verify=False) as http:
        client: Any = openai.OpenAI(
            base_url=f"{there.url}/v1", api_key=token, http_client=http, max_retries=0
        )
        text: str = client.completions.create(**ASKED).choices[0].text
        return text


def alone(model: PersonalModel) -> str:
    request = GenerationRequest(prompt=ASKED["prompt"], prefix=model.runtime.prefix, max_new_tokens=8)
    return generate(BASE, [request])[0].text


def test_what_is_granted_is_written_with_until_it_is_taken_back(model: PersonalModel, there: Server) -> None:
    membership, granting = joined(model, there, "ann"), Granting(model)
    with pytest.raises(InvalidArgument, match="nothing was learned yet"):
        granting.grant()
    learned(model, 0.3)
    given = granting.grant(hours=1)
    assert given.version == 1
    assert abs(given.until - time.time() - 3600) < 60
    assert granting.listed() == [given]
    assert written(membership, there) == alone(model)
    assert granting.revoke() == 1
    assert granting.listed() == []
    with pytest.raises(openai.PermissionDeniedError):
        written(membership, there)
    with pytest.raises(InvalidArgument, match="there is no grant"):
        granting.revoke(given.id)


def test_a_newer_version_ends_a_grant_and_is_granted_anew(model: PersonalModel, there: Server) -> None:
    membership, granting = joined(model, there, "bea"), Granting(model)
    learned(model, 0.3)
    granting.grant()
    learned(model, -0.4)
    membership.sync()
    with pytest.raises(openai.PermissionDeniedError):
        written(membership, there)
    assert granting.grant().version == 2
    assert written(membership, there) == alone(model)


def test_another_device_of_the_user_can_take_it_back(tmp_path: Path, there: Server) -> None:
    with device(tmp_path / "phone") as phone, device(tmp_path / "laptop") as laptop:
        phone.load_base()
        laptop.load_base()
        joined(phone, there, "cleo"), joined(laptop, there, "cleo")
        link(phone, laptop)
        learned(phone, 0.2)
        given = Granting(phone).grant()
        assert Granting(laptop).listed() == [given]
        assert Granting(laptop).revoke(given.id) == 1
        assert Granting(phone).listed() == []


def test_nobody_grants_to_a_key_that_the_server_did_not_sign(
    model: PersonalModel, there: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined(model, there, "dora")
    learned(model, 0.3)
    real = Signed.parse

    def forged(content: bytes) -> Signed:
        statement = real(content)
        last = "00" if statement.signature[-2:] != "00" else "01"
        return statement.model_copy(update={"signature": statement.signature[:-2] + last})

    monkeypatch.setattr(Signed, "parse", forged)
    with pytest.raises(GrantRefused, match="the server's key is not its own"):
        Granting(model).grant()
    assert Granting(model).listed() == []


def test_a_server_without_an_engine_says_so(model: PersonalModel, tmp_path: Path) -> None:
    with pytest.raises(NotJoined):
        Granting(model).grant()
    with server(tmp_path / "plain") as plain:
        joined(model, plain, "eve")
        learned(model, 0.3)
        with pytest.raises(ServerRefused, match="generates for nobody"):
            Granting(model).grant()
        with pytest.raises(ServerRefused, match="generates for nobody"):
            Granting(model).revoke()
    with pytest.raises(InvalidArgument, match="hours"):
        Granting(model).grant(hours=-1)


def test_the_commands(tmp_path: Path, there: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_bytes(KEY)
    monkeypatch.setenv("ANTEFIX_PROFILE", str(tmp_path / "profile"))
    monkeypatch.setenv("ANTEFIX_KEY_FILE", str(tmp_path / "key"))
    with PersonalModel.create(tmp_path / "profile", unlock=KEY, base=BASE) as model:
        learned(model, 0.3)
    run("join", there.invited("fay"), "--server", there.url, "--no-serve", "--no-rounds")
    assert "version 2  until 20" in run("grant", "--hours", 2).stdout  # joining sealed it for this server
    (one,) = json.loads(run("grants", "--json").stdout)
    assert one["id"] in run("grants").stdout
    assert run("revoke", one["id"]).stdout == "1 taken back\n"
    assert run("revoke").stdout == "0 taken back\n"
    assert json.loads(run("grants", "--json").stdout) == []
    assert json.loads(run("grant", "--json").stdout)["version"] == 2
    assert "shorter than asked" in run("grant", "--hours", 1000).stderr
    assert "shorter" not in run("grant", "--hours", 2).stderr


def test_another_program_asks_with_what_token_prints(
    tmp_path: Path, there: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_bytes(KEY)
    monkeypatch.setenv("ANTEFIX_PROFILE", str(tmp_path / "profile"))
    monkeypatch.setenv("ANTEFIX_KEY_FILE", str(tmp_path / "key"))
    with PersonalModel.create(tmp_path / "profile", unlock=KEY, base=BASE) as model:
        learned(model, 0.3)
    assert "on no server" in run("token", code=1).stderr
    run("join", there.invited("gil"), "--server", there.url, "--no-serve", "--no-rounds")
    run("grant")
    done = run("token", "--authority", tmp_path / "server.crt")
    assert done.stderr == f"OPENAI_BASE_URL={there.url}/v1\n"
    trusted = ssl.create_default_context(cafile=str(tmp_path / "server.crt"))
    with httpx.Client(verify=trusted) as http:
        client: Any = openai.OpenAI(
            base_url=done.stderr.strip().partition("=")[2],
            api_key=done.stdout.strip(),
            http_client=http,
            max_retries=0,
        )
        assert client.completions.create(**ASKED).choices[0].finish_reason == "length"
    with PersonalModel.open(tmp_path / "profile", unlock=KEY, base=BASE) as model:
        access = Granting(model).access
    assert access.token == done.stdout.strip()
    assert access.token not in repr(access)
    again = run("token", "--authority", tmp_path / "server.crt", code=1)
    assert (again.stdout, "is there already" in again.stderr) == (
        "",
        True,
    )  # it may be the file of another server
    no_folder = tmp_path / "key" / "file"
    assert "cannot be read or written" in run("token", "--authority", no_folder, code=1).stderr
