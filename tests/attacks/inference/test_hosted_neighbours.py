"""Attack: what is wrong with one user's rows, prefix or request. Expected: others go on."""

import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from sqlalchemy import LargeBinary, String, Table, select, type_coerce, update

from antefix import GenerationRequest, Prefix, generate
from antefix.grants import Grant
from antefix.http.openai import ChatCompletionRequest
from antefix_server.engine.core import Engine
from antefix_server.engine.interface import Hosting
from antefix_server.engine.limits import Limits
from antefix_server.engine.output_stream import OutputStream
from antefix_server.errors import EngineLost, VaultDamaged
from antefix_server.gateway import application
from antefix_server.storage.schema import facts, records
from antefix_server.vault import Vault
from tests.support import tiny_models
from tests.support.loopback import serving
from tests.support.server.hosted_server import Host, Member, slow_steps
from tests.support.server.processes import wait_for
from tests.support.vaults import new_vault

pytestmark = pytest.mark.slow

BASE = tiny_models.base("llama")
ASKED: dict[str, Any] = {"prompt": "An ornament", "max_new_tokens": 12, "ignore_eos": True}
LONG: dict[str, Any] = {**ASKED, "max_new_tokens": 60}
BODY: dict[str, Any] = {"prompt": "An ornament", "max_tokens": 12, "temperature": 0, "ignore_eos": True}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    vault: Vault = new_vault(tmp_path / "vault")
    yield Host(vault)
    vault.close()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_steps(monkeypatch)


def alone(settings: dict[str, Any], prefix: Prefix | None) -> str:
    return generate(BASE, [GenerationRequest(**settings, prefix=prefix)])[0].text


def text(stream: OutputStream) -> str:
    return "".join(stream)


def begun(engine: Engine, member: Member) -> tuple[Iterator[str], str]:
    """A stream that runs, and its first piece."""
    pieces = iter(engine.ask(member.user, LONG))
    return pieces, next(pieces)


def damage(host: Host, table: Table, rows: list[int], how: str) -> None:
    """Another last byte of what is sealed in them, or a text in its place, which one bit of a page makes."""
    column = table.c.sealed if table is facts else table.c.head
    with host.vault.shelf.database.writing() as connection:
        for row in rows:
            sealed = bytes(connection.execute(select(column).where(table.c.id == row)).scalar_one())
            sealed = sealed[:-1] + bytes([sealed[-1] ^ 1])
            new = type_coerce(sealed, LargeBinary) if how == "byte" else type_coerce("a text", String)
            connection.execute(update(table).where(table.c.id == row).values({column.name: new}))


def rows_of(host: Host, table: Table) -> list[int]:
    with host.vault.shelf.database.reading() as connection:
        return list(connection.execute(select(table.c.id)).scalars())


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize(
    ("table", "how", "ann_is"),
    [
        (facts, "byte", "idle"),
        (facts, "byte", "at it"),
        (facts, "type", "idle"),
        (records, "byte", "idle"),
        (records, "type", "at it"),
    ],
    ids=lambda given: str(given),
)
def test_a_damaged_row_ends_its_user_alone(host: Host, table: Table, how: str, ann_is: str) -> None:
    """Else one user's would leave everybody's grants in doubt, and end all of them."""
    ann, _ = host.hosted("ann", BASE)
    anns = rows_of(host, table)
    bob, prefix = host.hosted("bob", BASE)
    with Engine(BASE, host.grants, Limits(rows=2, look_s=0.1, doubt_s=0.3)) as engine:
        assert text(engine.ask(ann.user, ASKED))  # its prefix is open from here on
        bobs, first = begun(engine, bob)
        running = begun(engine, ann)[0] if ann_is == "at it" else iter(())
        damage(host, table, anns, how)
        if ann_is == "at it":
            said = ann.user.hex() if how == "byte" else "a row of the database"
            with pytest.raises(VaultDamaged, match=said):
                list(running)
        wait_for(lambda: engine.measured()["bank_wiped"] == 1, 5)
        assert first + "".join(bobs) == alone(LONG, prefix)
        assert {one.user for one in engine._cache.keys()} == {bob.user}  # noqa: SIM118
        with pytest.raises(VaultDamaged):
            engine.ask(ann.user, ASKED)
        assert text(engine.ask(bob.user, ASKED)) == alone(ASKED, prefix)


@pytest.mark.usefixtures("slow")
def test_a_vault_that_is_damaged_for_everybody_ends_all_that_a_grant_allows(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says of one user may be that user's; where it says so of all, nobody's prefix stays open."""
    members = [host.hosted(f"user {number}", BASE)[0] for number in range(6)]
    away, asked = threading.Event(), set[bytes]()
    of = host.grants.of

    def asked_of(user: bytes) -> list[Grant]:
        if away.is_set():
            asked.add(user)
            time.sleep(0.2)
            raise VaultDamaged("records.db is damaged")
        return of(user)

    monkeypatch.setattr(host.grants, "of", asked_of)
    limits = Limits(rows=2, look_s=0.01, doubt_s=0.3)
    with Engine(BASE, host.grants, limits) as engine:
        for member in members:
            assert text(engine.ask(member.user, ASKED))
        running, _ = begun(engine, members[0])
        plain = engine.ask(members[1].user, ASKED, personal=False)
        away.set()
        with pytest.raises(VaultDamaged):
            list(running)
        assert text(plain) == alone(ASKED, None)
        wait_for(lambda: engine._cache.bytes == 0, 5)
        assert len(asked) < len(members)  # not one after another, which takes as long as there are users


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("where", ["_require_still", "join"])
def test_who_cannot_be_let_in_is_told_whatever_the_reason(
    host: Host, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """It waits no more and does not run yet: nobody else would ever end it."""
    ann, anns = host.hosted("ann", BASE)
    bob, bobs = host.hosted("bob", BASE)
    with Engine(BASE, host.grants, Limits(rows=2)) as engine:
        running, first = begun(engine, bob)
        owner = engine if where == "_require_still" else engine._batch
        real = getattr(owner, where)

        def fails(given: Any) -> Any:
            raise MemoryError

        monkeypatch.setattr(owner, where, fails)
        broken: list[BaseException] = []
        reading = threading.Thread(target=_read, args=(engine.ask(ann.user, ASKED), broken), daemon=True)
        reading.start()
        reading.join(5)
        monkeypatch.setattr(owner, where, real)
        assert [type(one) for one in broken] == [EngineLost]
        assert first + "".join(running) == alone(LONG, bobs)
        assert text(engine.ask(ann.user, ASKED)) == alone(ASKED, anns)
        engine._post(partial(_emptied, engine))
        wait_for(lambda: engine._cache.bytes == 0, 5)  # none is held by a request that is over


def _emptied(engine: Engine) -> None:
    engine._cache.drop(lambda _: True)


def _read(stream: OutputStream, broken: list[BaseException]) -> None:
    try:
        list(stream)
    except BaseException as error:
        broken.append(error)


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_a_prefix_whose_numbers_overflow_is_its_users_own(
    host: Host, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Large numbers are finite, so they are let in; what the model makes of them is not."""
    bob, prefix = host.hosted("bob", BASE)
    eve = host.add("eve")
    large = torch.full((BASE.layout.size(5),), 3e38)
    host.store(eve, Prefix(large, BASE.layout, BASE.fingerprint))
    host.grant(eve)
    chat = path.startswith("chat")
    more: dict[str, Any] = {"logprobs": True, "top_logprobs": 2} if chat else {"logprobs": 2}
    if chat:  # the base has no template for one
        monkeypatch.setattr(ChatCompletionRequest, "settings", property(_as_a_prompt))
        more["messages"] = [{"role": "user", "content": BODY["prompt"]}]
    body = {name: value for name, value in BODY.items() if name != "prompt" or not chat} | more
    with Engine(BASE, host.grants, Limits(rows=2)) as engine:
        made = application(host.vault, hosting=Hosting(engine, host.grants, host.epochs))
        with serving(made) as url:
            whole = post(f"{url}/v1/{path}", eve, body)
            assert whole.status_code == 400
            assert "NaN or infinite" in whole.json()["error"]["message"]
            streamed = post(f"{url}/v1/{path}", eve, {**body, "stream": True})
            events = [line[6:] for line in streamed.text.splitlines() if line.startswith("data: {")]
            said = [json.loads(event, parse_constant=_not_json) for event in events]
            assert "NaN or infinite" in said[-1]["error"]["message"]
            silent = {name: asked for name, asked in body.items() if "logprobs" not in name}
            assert post(f"{url}/v1/{path}", eve, silent).json() == whole.json()
            fine = post(f"{url}/v1/completions", bob, {**BODY, "logprobs": 2})
            assert fine.json()["choices"][0]["text"] == alone(ASKED, prefix)


def _as_a_prompt(asked: Any) -> dict[str, Any]:
    return {"max_new_tokens": asked.max_tokens, "ignore_eos": True, "logprobs": asked.top_logprobs}


def _not_json(constant: str) -> None:
    raise ValueError(constant)


def post(url: str, member: Member, body: dict[str, Any]) -> httpx.Response:
    headers = {"Authorization": f"Bearer {member.token}", "Content-Type": "application/json"}
    return httpx.post(url, content=json.dumps(body), headers=headers, timeout=30)
