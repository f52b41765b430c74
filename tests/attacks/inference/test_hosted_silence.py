"""Attack: errors that nobody thought of, to have a text or the server told. Expected: their kind alone."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from antefix.http.openai import ResponseBuilder
from antefix_server.engine.core import Engine
from antefix_server.engine.interface import Hosting
from antefix_server.gateway import application
from tests.support import tiny_models
from tests.support.loopback import serving
from tests.support.server.hosted_server import Host
from tests.support.vaults import new_vault

pytestmark = pytest.mark.slow

BASE = tiny_models.base("llama")
NEEDLE = "what a user wrote"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, str, Engine]]:
    with new_vault(tmp_path / "vault") as vault:
        host = Host(vault)
        ann, _ = host.hosted("ann", BASE)
        with (
            Engine(BASE, host.grants) as engine,
            serving(application(vault, hosting=Hosting(engine, host.grants, host.epochs))) as url,
        ):
            yield url, ann.token, engine


def fails(*_: Any, **__: Any) -> Any:
    raise ValueError(NEEDLE)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("where", ["ask", "piece", "whole"])
def test_an_error_that_nobody_thought_of_tells_nothing(
    site: tuple[str, str, Engine],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stream: bool,
    where: str,
) -> None:
    url, token, engine = site
    if where == "ask":
        monkeypatch.setattr(engine, "ask", fails)
    else:
        monkeypatch.setattr(ResponseBuilder, "chunk" if stream else "response", fails)
    with caplog.at_level(logging.DEBUG):
        said = asked(url, token, {"stream": stream})
    assert said.status_code == (200 if stream and where != "ask" else 503)
    assert "EngineLost" in said.text
    assert NEEDLE not in said.text + caplog.text
    assert "Traceback" not in said.text + caplog.text
    assert "ValueError" in caplog.text
    monkeypatch.undo()
    assert asked(url, token, {}).status_code == 200


ODD = [
    {"prompt": NEEDLE + "\ud800"},
    {"prompt": [NEEDLE]},
    {"stop": ["\ud800" + NEEDLE]},
    {"stop": [NEEDLE, ""]},
    {"stop": [NEEDLE] * 17},
    {"model": NEEDLE},
    {NEEDLE: 1},
    {"max_tokens": 10**30},
    {"temperature": 1e-300},
    {"temperature": float("nan")},
    {"top_p": 0},
    {"seed": 2**63},
    {"seed": -1},
    {"logprobs": 6},
    {"n": 2},
    {"prompt": NEEDLE * 2000},
    {"best_of": NEEDLE},
    {"stream_options": {NEEDLE: True}, "max_tokens": 0},
    {"stream_options": {NEEDLE: NEEDLE}},
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_what_cannot_be_meant_is_refused_without_a_word_of_it(
    site: tuple[str, str, Engine], caplog: pytest.LogCaptureFixture, odd: dict[str, Any]
) -> None:
    url, token, _ = site
    with caplog.at_level(logging.DEBUG, "antefix"):
        said = asked(url, token, odd)
    assert 400 <= said.status_code < 500
    assert set(said.json()["error"]) == {"type", "message", "hint"}
    assert NEEDLE not in said.text
    assert NEEDLE not in "".join(one.getMessage() for one in caplog.records if one.name.startswith("antefix"))


NO_BODIES = [
    b"[" * 100_000,
    b'{"prompt":' * 9000,
    b"\xff",
    b'{"prompt":"' + NEEDLE.encode() + b'\xff"}',
    b"null",
    b'{"seed":' + b"9" * 9000,
    b'{"seed":' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("body", NO_BODIES, ids=range(len(NO_BODIES)))
def test_a_body_that_is_none_is_refused_in_the_form_of_all_refusals(
    site: tuple[str, str, Engine], body: bytes, path: str
) -> None:
    url, token, _ = site
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    said = httpx.post(url + path, content=body, headers=headers, timeout=30)
    assert said.status_code == 400
    assert set(said.json()["error"]) == {"type", "message", "hint"}
    assert NEEDLE not in said.text
    assert asked(url, token, {}).status_code == 200


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"messages": [{"role": "user", "content": "x", NEEDLE: 1}]}, "body.messages.0: extra_forbidden"),
        ({"messages": [{"role": "user", "content": 1}]}, "body.messages.0.content: string_type"),
        ({"messages": [], NEEDLE: 1}, "body.messages: too_short"),
        ({"messages": [{"role": "user", "content": "x"}], NEEDLE: 1}, "body: extra_forbidden"),
        (
            {"messages": [{"role": "user", "content": "x"}], "response_format": {NEEDLE: NEEDLE}},
            "body.response_format: literal_error",
        ),
    ],
)
def test_a_place_is_told_without_a_word_of_the_callers(
    site: tuple[str, str, Engine], body: dict[str, Any], place: str
) -> None:
    url, token, _ = site
    headers = {"Authorization": f"Bearer {token}"}
    said = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=30)
    assert said.json()["error"]["message"] == place


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("POST", f"/v1/{NEEDLE}", 404), ("GET", "/v1/completions", 405)],
)
def test_what_is_not_there_is_refused_in_openais_form(
    site: tuple[str, str, Engine], method: str, path: str, status: int
) -> None:
    said = httpx.request(method, site[0] + path, content=b"")
    assert said.status_code == status
    assert set(said.json()["error"]) == {"type", "message", "hint"}
    assert NEEDLE not in said.text
    assert status == 404 or said.headers["Allow"] == "POST"


def test_what_is_not_there_elsewhere_is_refused_in_ours(site: tuple[str, str, Engine]) -> None:
    for method, path, status in (("GET", "/nothing", 404), ("DELETE", "/v1/enrol", 405)):
        said = httpx.request(method, site[0] + path)
        assert said.status_code == status
        assert set(said.json()) == {"type", "message", "hint"}


def asked(url: str, token: str, more: dict[str, Any]) -> httpx.Response:
    body = json.dumps({"prompt": "An ornament", "max_tokens": 3, "temperature": 0, **more}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return httpx.post(f"{url}/v1/completions", content=body, headers=headers, timeout=30)
