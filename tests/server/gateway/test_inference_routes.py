"""Hosted inference over HTTP, with the official `openai` client: grants, answers, refusals."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import select, update

from antefix import GenerationRequest, Prefix, generate
from antefix.errors import InvalidArgument
from antefix.grants import Epoch
from antefix.keys import DeviceKeys
from antefix.wire import Invitation, Signed
from antefix_server.admin import operations
from antefix_server.engine.core import Engine
from antefix_server.engine.interface import Hosting
from antefix_server.engine.limits import Limits
from antefix_server.engine.metrics import EngineMetrics
from antefix_server.errors import VaultUnavailable
from antefix_server.gateway import application
from antefix_server.storage.database import Database
from antefix_server.storage.schema import pieces
from antefix_server.vault import Vault
from tests.client.people import tiny_folder
from tests.support import tiny_models
from tests.support.loopback import serving
from tests.support.records import some_bytes
from tests.support.server.gateway import enrolled
from tests.support.server.hosted_server import Host, Member, slow_steps
from tests.support.server.processes import command, free_port, up

pytestmark = pytest.mark.slow

BASE = tiny_models.base("llama")
ANN = DeviceKeys(some_bytes("ann's phone", 64))
ASKED: dict[str, Any] = {"prompt": "An ornament", "max_tokens": 12, "temperature": 0}


@dataclass
class Site:
    """A gateway with an engine behind it."""

    url: str
    host: Host
    engine: Engine

    def client(self, token: str) -> Any:
        """The official one; a test gives it what its types would not let through."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=token, max_retries=0)

    def call(self, member: Member, method: str, path: str, body: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {member.token}", "Content-Type": "application/json"}
        return httpx.request(method, self.url + path, content=body, headers=headers)


@pytest.fixture
def site(vault: Vault) -> Iterator[Site]:
    host = Host(vault)
    limits = Limits(rows=2, waiting=3, waiting_each=2, new_tokens=200, drain_s=0.2)
    with Engine(BASE, host.grants, limits) as engine:
        made = application(vault, hosting=Hosting(engine, host.grants, host.epochs))
        with serving(made) as url:
            yield Site(url, host, engine)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_steps(monkeypatch)


def alone(prefix: Prefix | None, tokens: int = 12) -> str:
    request = GenerationRequest(prompt=ASKED["prompt"], prefix=prefix, max_new_tokens=tokens)
    return generate(BASE, [request])[0].text


def test_the_token_chooses_the_prefix(site: Site) -> None:
    ann, anns = site.host.hosted("ann", BASE)
    bob, bobs = site.host.hosted("bob", BASE)
    for member, prefix in ((ann, anns), (bob, bobs)):
        found = site.client(member.token).completions.create(model="personal", **ASKED)
        assert found.choices[0].text == alone(prefix)
        assert found.usage is not None
        assert found.usage.completion_tokens > 0
    plain = site.client(ann.token).completions.create(model="base", **ASKED)
    assert plain.choices[0].text == alone(None)
    assert [one.id for one in site.client(ann.token).models.list()] == ["personal", "base"]


def test_a_stream_has_the_same_text(site: Site) -> None:
    ann, prefix = site.host.hosted("ann", BASE)
    events = site.client(ann.token).completions.create(
        model="personal", stream=True, stream_options={"include_usage": True}, **ASKED
    )
    pieces = list(events)
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == alone(prefix)
    assert pieces[-1].usage is not None
    assert [piece.choices[0].finish_reason for piece in pieces if piece.choices][-1] in ("length", "stop")


def test_logprobs_whole_and_in_a_stream(site: Site) -> None:
    ann, prefix = site.host.hosted("ann", BASE)
    create = site.client(ann.token).completions.create
    whole = create(model="personal", logprobs=2, **ASKED).choices[0]
    request = GenerationRequest(prompt=ASKED["prompt"], prefix=prefix, max_new_tokens=12, logprobs=2)
    wanted = [one.logprob for one in generate(BASE, [request])[0].logprobs]
    assert whole.logprobs.token_logprobs == pytest.approx(wanted, abs=1e-4)
    parts = [one.choices[0].logprobs for one in create(model="personal", logprobs=2, stream=True, **ASKED)]
    assert [word for part in parts for word in part.tokens] == whole.logprobs.tokens
    assert [at for part in parts for at in part.text_offset] == whole.logprobs.text_offset


def test_a_grant_comes_and_goes_over_http(site: Site) -> None:
    ann = site.host.add("ann")
    prefix = site.host.hosted("model for the numbers", BASE)[1]
    site.host.store(ann, prefix)
    with pytest.raises(openai.PermissionDeniedError, match="grants the server no prefix"):
        site.client(ann.token).completions.create(model="personal", **ASKED)
    signed = Signed.model_validate(site.call(ann, "GET", "/v1/epoch").json())
    key = site.host.vault.identity.releasing.public_key().public_bytes_raw()
    assert Epoch.verified(signed, key).tenant == site.host.vault.tenant.hex()
    first = site.host.signed(ann).model_dump_json()
    put = site.call(ann, "PUT", "/v1/grants", first)
    assert put.status_code == 200, put.text
    assert site.client(ann.token).completions.create(model="personal", **ASKED).choices[0].text == alone(
        prefix
    )
    (shown,) = site.call(ann, "GET", "/v1/grants").json()
    assert shown == put.json()
    bob = site.host.add("bob")
    assert site.call(bob, "DELETE", f"/v1/grants/{shown['id']}").status_code == 404
    assert site.call(ann, "DELETE", f"/v1/grants/{shown['id']}").json() == {"revoked": True}
    with pytest.raises(openai.PermissionDeniedError):
        site.client(ann.token).completions.create(model="personal", **ASKED)
    assert site.call(ann, "PUT", "/v1/grants", first).status_code == 403


@pytest.mark.usefixtures("slow")
def test_a_revocation_ends_a_stream_within_a_second(site: Site) -> None:
    ann, _ = site.host.hosted("ann", BASE)
    body = {**ASKED, "max_tokens": 200}
    events = iter(site.client(ann.token).completions.create(model="personal", stream=True, **body))
    next(events)
    (shown,) = site.call(ann, "GET", "/v1/grants").json()
    began = time.monotonic()
    site.call(ann, "DELETE", f"/v1/grants/{shown['id']}")
    with pytest.raises(openai.APIError, match="does not hold any more"):
        list(events)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"model": "bob"}, openai.NotFoundError),
        ({"model": "personal", "max_tokens": 100_000}, openai.BadRequestError),
        ({"model": "personal", "temperature": 9}, openai.BadRequestError),
        ({"model": "personal", "prompt": "x" * 2000}, openai.BadRequestError),
        ({"model": "personal", "extra_body": {"prefix": "bob"}}, openai.BadRequestError),
        ({"model": "personal", "prompt": "x" * 2**19}, openai.APIStatusError),
    ],
)
def test_what_cannot_be_answered_is_refused(
    site: Site, body: dict[str, object], error: type[Exception]
) -> None:
    ann, prefix = site.host.hosted("ann", BASE)
    client = site.client(ann.token)
    with pytest.raises(error) as refused:
        client.completions.create(**{**ASKED, **body})
    assert "xxxx" not in str(refused.value)
    assert client.completions.create(model="personal", **ASKED).choices[0].text == alone(prefix)


def test_another_token_opens_nothing(site: Site) -> None:
    ann, _ = site.host.hosted("ann", BASE)
    with pytest.raises(openai.AuthenticationError):
        site.client(ann.token[:-8] + "AAAAAAA=").completions.create(model="personal", **ASKED)
    site.host.registry.remove("ann")
    with pytest.raises(openai.AuthenticationError):
        site.client(ann.token).completions.create(model="personal", **ASKED)


@pytest.mark.usefixtures("slow")
def test_too_many_are_told_when_to_come_again_and_all_others_are_answered(site: Site) -> None:
    members = [site.host.hosted(f"user {n}", BASE) for n in range(9)]
    found: list[str] = []
    refused: list[str | None] = []

    def ask(member: Member, wanted: str) -> None:
        try:
            got = site.client(member.token).completions.create(model="personal", **ASKED)
            assert got.choices[0].text == wanted
            found.append(member.token)
        except openai.RateLimitError as error:
            refused.append(error.response.headers["Retry-After"])

    threads = [threading.Thread(target=ask, args=(one, alone(prefix))) for one, prefix in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) + len(refused) == 9
    assert refused
    assert set(refused) == {"2"}


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_frees_the_row(site: Site, stream: bool) -> None:
    ann, _ = site.host.hosted("ann", BASE)
    body = {**ASKED, "max_tokens": 200, "model": "personal", "stream": stream}
    headers = {"Authorization": f"Bearer {ann.token}"}
    url = f"{site.url}/v1/completions"
    with (
        suppress(httpx.ReadTimeout),
        httpx.stream("POST", url, json=body, headers=headers, timeout=0.3) as got,
    ):
        next(got.iter_bytes())
    until = time.monotonic() + 2
    while site.engine.measured()["rows"] and time.monotonic() < until:
        time.sleep(0.02)
    assert site.engine.measured()["cancelled"] == 1


def test_a_damaged_record_is_told_to_its_user_alone(site: Site) -> None:
    """Where it lies on the disk; what the server says of it is no device's business."""
    ann, _ = site.host.hosted("ann", BASE)
    with site.host.vault.shelf.database.writing() as connection:
        (found,) = connection.execute(select(pieces.c.content)).scalars()
        damaged = bytes(found)[:-1] + bytes([found[-1] ^ 1])
        connection.execute(update(pieces).values(content=damaged))
    bob, bobs = site.host.hosted("bob", BASE)
    create = site.client(ann.token).completions.create
    with pytest.raises(openai.InternalServerError, match="the server has a problem"):
        create(model="personal", **ASKED)
    with pytest.raises(openai.APIError, match="the server has a problem"):
        list(create(model="personal", stream=True, **ASKED))
    assert site.client(bob.token).completions.create(model="personal", **ASKED).choices[0].text == alone(bobs)
    assert create(model="base", **ASKED).choices[0].text == alone(None)


def test_a_vault_that_is_away_is_told_and_comes_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, anns = site.host.hosted("ann", BASE)
    create = site.client(ann.token).completions.create
    with monkeypatch.context() as away:
        away.setattr(Database, "reading", _unavailable)
        with pytest.raises(openai.InternalServerError, match="the server has a problem") as told:
            create(model="personal", **ASKED)
        assert "/srv" not in str(told.value)
    assert create(model="personal", **ASKED).choices[0].text == alone(anns)


def _unavailable(_: Database) -> None:
    raise VaultUnavailable("/srv/antefix/records.db cannot be used")


def test_a_gateway_without_an_engine_has_no_such_routes(vault: Vault) -> None:
    with serving(application(vault)) as url:
        assert httpx.get(f"{url}/v1/epoch").status_code == 404
        assert httpx.post(f"{url}/v1/completions", json={}).status_code == 404


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("suspend", {"suspended": True}),
        ("remove", {}),
        ("revoke", {"device": ""}),
        ("revoke_grant", {"grant": ""}),
    ],
)
def test_what_an_operator_does_ends_what_runs(site: Site, operation: str, more: dict[str, Any]) -> None:
    """Through the operations that its commands call."""
    ann, _ = site.host.hosted("ann", BASE)
    operated = operations.Site(site.host.vault, Hosting(site.engine, site.host.grants, site.host.epochs))
    (shown,) = operations.list_grants(operated, "ann")
    more = {name: value or shown[name if name == "device" else "id"] for name, value in more.items()}
    body = {**ASKED, "max_tokens": 200}
    events = iter(site.client(ann.token).completions.create(model="personal", stream=True, **body))
    next(events)
    began = time.monotonic()
    getattr(operations, operation)(operated, "ann", **more)
    with pytest.raises(openai.APIError, match="does not hold any more"):
        list(events)
    assert time.monotonic() - began < 1


def test_an_operator_ends_all_grants_and_is_told_of_none_such(site: Site) -> None:
    ann, _ = site.host.hosted("ann", BASE)
    operated = operations.Site(site.host.vault, Hosting(site.engine, site.host.grants, site.host.epochs))
    with pytest.raises(InvalidArgument, match="has no such grant"):
        operations.revoke_grant(operated, "ann", "0" * 32)
    assert operations.end_grants(operated) == {"keys destroyed": 1}
    assert operations.list_grants(operated, "ann") == []
    with pytest.raises(openai.PermissionDeniedError):
        site.client(ann.token).completions.create(model="personal", **ASKED)


def test_figures_name_nobody(site: Site) -> None:
    ann, _ = site.host.hosted("ann", BASE)
    site.client(ann.token).completions.create(model="personal", **ASKED)
    registry = CollectorRegistry()
    registry.register(EngineMetrics(site.engine.measured))
    told = generate_latest(registry).decode()
    assert "antefix_engine_finished_total 1.0" in told
    assert "antefix_engine_opened_total 1.0" in told
    assert "{" not in told
    assert ann.user.hex() not in told


@pytest.mark.slow
def test_a_server_with_an_engine_as_processes(tmp_path: Path) -> None:
    base = str(tiny_folder(tmp_path / "base"))
    data = tmp_path / "data"
    command(data, "init", data)
    port = free_port()
    (data / "server.toml").write_text(f'inference = "{base}"\nmetrics_port = {port}\n')
    code = json.loads(command(data, "users", "add", "ann", "--json"))["invitation"]
    with up(data, "--no-rounds") as (url, _):
        token = enrolled(url, Invitation.parse(code), ANN).token
        http = httpx.Client(verify=False)
        client: Any = openai.OpenAI(base_url=f"{url}/v1", api_key=token, http_client=http, max_retries=0)
        assert client.completions.create(model="base", **ASKED).usage.completion_tokens > 0
        with pytest.raises(openai.PermissionDeniedError):
            client.completions.create(model="personal", **ASKED)
        assert "antefix_engine_finished_total 1.0" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert json.loads(command(data, "grants", "list", "ann", "--json")) == []
        http.close()
    assert json.loads(command(data, "grants", "end", "--json")) == {"keys destroyed": 0}
    assert "has no such grant" in command(data, "grants", "revoke", "ann", "0" * 32, code=1)
