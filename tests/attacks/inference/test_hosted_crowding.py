"""Attack: a caller of hosted inference, or many, who take the engine's time or memory from everybody else."""

import gc
import json
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from antefix import GenerationRequest, generate
from antefix.errors import GrantRefused, InvalidArgument
from antefix.generation.interface import StepOutput
from antefix.generation.torch_engine import ContinuousBatch
from antefix.grants import Grant, open_granted
from antefix.http import openai, timeouts
from antefix_server.engine.core import Engine
from antefix_server.engine.interface import Hosting
from antefix_server.engine.limits import Limits
from antefix_server.engine.output_stream import OutputStream
from antefix_server.errors import EngineBusy
from antefix_server.gateway import application
from antefix_server.grants import grants as grants_module
from antefix_server.vault import Vault
from tests.support import tiny_models
from tests.support.loopback import serving
from tests.support.records import some_bytes
from tests.support.server.hosted_server import Host, prefix_of
from tests.support.server.processes import wait_for
from tests.support.vaults import new_vault

pytestmark = pytest.mark.slow

BASE = tiny_models.base("llama")
ASKED: dict[str, Any] = {"prompt": "An ornament", "max_new_tokens": 12, "ignore_eos": True}
LONG: dict[str, Any] = {**ASKED, "max_new_tokens": 200}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    vault: Vault = new_vault(tmp_path / "vault")
    yield Host(vault)
    vault.close()


def alone(settings: dict[str, Any], prefix: Any) -> str:
    return generate(BASE, [GenerationRequest(**settings, prefix=prefix)])[0].text


def slowly(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    step = ContinuousBatch.step

    def slow(batch: ContinuousBatch) -> list[StepOutput]:
        time.sleep(seconds)
        return step(batch)

    monkeypatch.setattr(ContinuousBatch, "step", slow)


def counted_of(
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    found: Callable[[bytes], list[Grant]],
    seconds: float = 0.005,
) -> list[float]:
    """When the vault was asked what holds, by an engine's thread alone; it takes so long."""
    times: list[float] = []

    def asked(user: bytes) -> list[Grant]:
        if threading.current_thread().name == "antefix-engine":
            times.append(time.monotonic())
            time.sleep(seconds)
        return found(user)

    monkeypatch.setattr(host.grants, "of", asked)
    return times


def test_who_waits_in_numbers_does_not_hold_up_who_runs(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether grants hold is looked at four times a second; of a thousand users that would take seconds."""
    ann, _ = host.hosted("ann", BASE)
    (grant,) = host.grants.of(ann.user)
    others = [some_bytes(f"user {number}", 16) for number in range(400)]
    copies = {user: [grant.model_copy(update={"user": user.hex()})] for user in others}
    times = counted_of(host, monkeypatch, lambda user: copies.get(user, [grant]))
    slowly(monkeypatch, 0.01)
    with Engine(BASE, host.grants, Limits(rows=1, drain_s=0.0)) as engine:
        running = engine.ask(ann.user, {**ASKED, "max_new_tokens": 100})
        begun = iter(running)
        next(begun)
        for user in others:
            engine.ask(user, ASKED)
        times.clear()
        started = time.monotonic()
        text = "".join(begun)
        took = time.monotonic() - started
    assert len(text) > 0
    assert took < 6
    assert len(times) > 0


def test_a_slow_vault_leaves_time_to_compute(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at ten users takes longer here than the time between two looks."""
    members = [host.hosted(f"user {number}", BASE) for number in range(10)]
    counted_of(host, monkeypatch, host.grants.of, 0.04)
    slowly(monkeypatch, 0.01)
    with Engine(BASE, host.grants, Limits(rows=10)) as engine:
        streams = [engine.ask(member.user, {**ASKED, "max_new_tokens": 60}) for member, _ in members]
        started = time.monotonic()
        for stream in streams:
            list(stream)
        assert time.monotonic() - started < 10


def test_who_waited_while_the_grant_ended_does_not_begin(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait, and though nobody told the engine."""
    ann, _ = host.hosted("ann", BASE)
    bob, _ = host.hosted("bob", BASE)
    slowly(monkeypatch, 0.01)
    with Engine(BASE, host.grants, Limits(rows=1, look_s=0.3)) as engine:
        monkeypatch.setattr(engine._watch, "look", lambda: None)
        assert "".join(engine.ask(bob.user, ASKED))  # its prefix is open from here on
        first = engine.ask(ann.user, {**ASKED, "max_new_tokens": 100})
        next(iter(first))
        waiting = engine.ask(bob.user, ASKED)
        (grant,) = host.grants.of(bob.user)
        host.grants.revoke(bob.user, bytes.fromhex(grant.id))
        with pytest.raises(GrantRefused):
            list(waiting)


def test_ten_thousand_requests_are_a_thousand_that_wait_and_refusals(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowly(monkeypatch, 0.02)
    with Engine(BASE, host.grants, Limits(rows=2, drain_s=0.0)) as engine:
        ann, prefix = host.hosted("ann", BASE)
        streams, waits = list[OutputStream](), list[float]()
        for number in range(10_000):
            try:
                user = some_bytes(f"user {number}", 16)
                streams.append(engine.ask(user, LONG, personal=False))
            except EngineBusy as error:
                waits.append(error.retry_after_s)
        assert 1024 <= len(streams) < 1100
        assert len(streams) + len(waits) == 10_000
        assert min(waits) > 0
        for stream in streams:
            stream.cancel()
        wait_for(lambda: not engine.measured()["waiting"], 20)
        assert "".join(engine.ask(ann.user, ASKED)) == alone(ASKED, prefix)


@pytest.mark.parametrize(
    "stop", [["x"] * 50, ["a" * 2000], [f"{number} is where it ends" for number in range(10_000)]]
)
def test_stop_texts_without_end_are_refused(host: Host, stop: list[str]) -> None:
    """Each is looked for after every token, by the thread that everybody waits for."""
    ann, _ = host.hosted("ann", BASE)
    with Engine(BASE, host.grants) as engine:
        with pytest.raises(InvalidArgument, match="stop"):
            engine.ask(ann.user, {**ASKED, "stop": tuple(stop)})
        assert "".join(engine.ask(ann.user, {**ASKED, "stop": tuple("abcdefgh"), "max_new_tokens": 2}))


def test_a_long_prefix_counts_as_memory_too(host: Host) -> None:
    """A request that fits by itself, under a prefix that its user made as long as can be."""
    ann, _ = host.hosted("ann", BASE, length=100)
    bob, prefix = host.hosted("bob", BASE)
    position = BASE.layout.width * 4
    with Engine(BASE, host.grants, Limits(rows=4, batch_bytes=4 * 80 * position)) as engine:
        with pytest.raises(InvalidArgument, match="no memory"):
            list(engine.ask(ann.user, ASKED))
        assert "".join(engine.ask(bob.user, ASKED)) == alone(ASKED, prefix)


def test_opening_what_is_granted_keeps_no_writer_waiting(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record may have 64 MB, and a device may send ten grants a second."""
    ann = host.add("ann")
    host.store(ann, prefix_of(BASE, "ann"))
    signed = host.signed(ann)
    opening, go_on = threading.Event(), threading.Event()
    real = open_granted

    def slow(*given: Any, **more: Any) -> Any:
        opening.set()
        assert go_on.wait(20)
        return real(*given, **more)

    monkeypatch.setattr(grants_module, "open_granted", slow)
    putting = threading.Thread(target=host.grants.put, args=(ann.session, signed))
    putting.start()
    assert opening.wait(20)
    added = threading.Thread(target=host.registry.add, args=("bob",))
    added.start()
    added.join(5)
    late = added.is_alive()
    go_on.set()
    putting.join(20)
    added.join(20)
    assert not late
    assert len(host.grants.of(ann.user)) == 1


@pytest.mark.parametrize("meanwhile", ["replaced", "device revoked", "removed", "suspended"])
def test_what_changes_while_a_grant_is_opened_counts(
    host: Host, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    ann = host.add("ann")
    host.store(ann, prefix_of(BASE, "ann"))
    signed = host.signed(ann)
    real = open_granted

    def changing(*given: Any, **more: Any) -> Any:
        if meanwhile == "replaced":
            host.store(ann, prefix_of(BASE, "ann, later"))
        elif meanwhile == "device revoked":
            host.registry.revoke("ann", ann.session.device)
        elif meanwhile == "removed":
            host.registry.remove("ann")
        else:
            host.registry.suspend("ann")
        return real(*given, **more)

    monkeypatch.setattr(grants_module, "open_granted", changing)
    done = threading.Thread(target=_put_refused, args=(host, ann.session, signed, meanwhile))
    done.start()
    done.join(20)
    assert not done.is_alive()
    if meanwhile != "removed":
        assert host.grants.of(ann.user) == []


def _put_refused(host: Host, session: Any, signed: Any, meanwhile: str) -> None:
    try:
        host.grants.put(session, signed)
    except Exception:
        return
    assert meanwhile == "suspended"  # kept, and does not hold


def test_who_stops_reading_is_let_go(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else answers of megabytes would stay in memory, and connections open, as long as callers like."""
    monkeypatch.setattr(timeouts, "STALLED_S", 1.0)
    event = openai._event
    monkeypatch.setattr(openai, "_event", lambda content: event({**content, "as of a large": "x" * 10_000}))
    ann, prefix = host.hosted("ann", BASE)
    streams = weakref.WeakSet[OutputStream]()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with Engine(BASE, host.grants, Limits(rows=2)) as engine, socket.socket() as silent:
        ask = engine.ask

        def asked(*given: Any, **more: Any) -> OutputStream:
            streams.add(found := ask(*given, **more))
            return found

        monkeypatch.setattr(engine, "ask", asked)
        made = application(host.vault, hosting=Hosting(engine, host.grants, host.epochs))
        with serving(made, listening) as url:
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            silent.connect(listening.getsockname())
            silent.sendall(request(ann.token, max_tokens=200, stream=True, logprobs=5))
            assert silent.recv(200).startswith(b"HTTP/1.1 200")
            wait_for(lambda: not engine.measured()["rows"], 60)
            headers = {"Authorization": f"Bearer {ann.token}", "Content-Type": "application/json"}
            body = request(ann.token, max_tokens=12).split(b"\r\n\r\n")[1]
            said = httpx.post(f"{url}/v1/completions", content=body, headers=headers, timeout=30).json()
            assert said["choices"][0]["text"] == alone(ASKED, prefix)
            wait_for(lambda: gc.collect() >= 0 and not streams, 20)
            silent.settimeout(5)
            with suppress(ConnectionResetError):
                while silent.recv(65536):
                    pass


def request(token: str, **more: Any) -> bytes:
    body = json.dumps({"prompt": "An ornament", "temperature": 0, "ignore_eos": True, **more}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
