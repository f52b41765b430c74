"""The engine: each row under its owner's prefix, and nobody stays longer than a grant holds."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from sqlalchemy import Connection

from antefix import GenerationRequest, Prefix, generate
from antefix.errors import GrantRefused, InvalidArgument, RecordMismatch, TextTooLong
from antefix.generation.interface import StepOutput
from antefix.generation.torch_engine import ContinuousBatch
from antefix.grants import Grant
from antefix_server.engine.core import Engine
from antefix_server.engine.limits import Limits
from antefix_server.engine.output_stream import OutputStream
from antefix_server.engine.prefix_cache import PrefixCache
from antefix_server.engine.prefix_key import PrefixKey
from antefix_server.engine.prefix_loader import loader_pool
from antefix_server.engine.request_queue import FairRequestQueue
from antefix_server.errors import (
    EngineBusy,
    EngineClosed,
    EngineLost,
    NoGrant,
    UnknownUser,
    VaultBusy,
    VaultUnavailable,
)
from antefix_server.vault import Vault, reader
from antefix_server.vault.envelope import RecordMeta, UserEnvelope
from antefix_server.vault.record_store import RecordStore
from tests.support import tiny_models
from tests.support.records import some_bytes
from tests.support.server.hosted_server import Host, prefix_of, slow_steps

pytestmark = pytest.mark.slow

BASE = tiny_models.base("llama")
LONG = {"prompt": "An ornament", "max_new_tokens": 200, "ignore_eos": True}


@pytest.fixture
def host(vault: Vault) -> Host:
    return Host(vault)


@pytest.fixture
def engine(host: Host) -> Iterator[Engine]:
    with Engine(BASE, host.grants, Limits(rows=4, new_tokens=200, drain_s=0.5)) as engine:
        yield engine


def asked(prompt: str = "An ornament", tokens: int = 12, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "max_new_tokens": tokens, "ignore_eos": True, **more}


def alone(settings: dict[str, Any], prefix: Prefix | None) -> str:
    (found,) = generate(BASE, [GenerationRequest(**settings, prefix=prefix)])
    return found.text


def text(stream: OutputStream) -> str:
    whole = "".join(stream)
    assert stream.result is not None
    assert stream.result.text == whole
    return whole


def begun(stream: OutputStream) -> Iterator[str]:
    """Wait for the first piece."""
    pieces = iter(stream)
    next(pieces)
    return pieces


def test_each_user_gets_what_its_own_prefix_gives(host: Host, engine: Engine) -> None:
    members = [host.hosted(f"user {n}", BASE, length=3 + n % 3) for n in range(9)]
    streams = [engine.ask(member.user, asked(tokens=8 + n)) for n, (member, _) in enumerate(members)]
    plain = engine.ask(members[0][0].user, asked(), personal=False)
    for n, (stream, (_, prefix)) in enumerate(zip(streams, members, strict=True)):
        assert text(stream) == alone(asked(tokens=8 + n), prefix)
    assert text(plain) == alone(asked(), None)
    assert engine.measured()["finished"] == 10


def test_exact_answers_are_those_of_a_user_alone_bit_for_bit(host: Host) -> None:
    """Logprobs show the bits; the requests are of three rounded sizes, whose batches take turns."""
    with Engine(BASE, host.grants, Limits(rows=3, new_tokens=200, exact=True)) as engine:
        members = [host.hosted(f"user {n}", BASE, length=3 + n % 3) for n in range(8)]
        settings = [asked("a b " * (1 + 17 * (n % 3)), tokens=9 + n, logprobs=3) for n in range(8)]
        streams = [engine.ask(one.user, given) for (one, _), given in zip(members, settings, strict=True)]
        for stream, (_, prefix), given in zip(streams, members, settings, strict=True):
            text(stream)
            request = GenerationRequest(**given, prefix=prefix)
            assert stream.result == generate(BASE, [request], exact=True, max_rows=3)[0]
        assert engine.measured()["rows"] == 0


def test_memory_of_long_requests_is_given_back(host: Host, engine: Engine) -> None:
    member, _ = host.hosted("ann", BASE)
    text(engine.ask(member.user, LONG))
    until = time.monotonic() + 2
    while engine._batch._batches and time.monotonic() < until:
        time.sleep(0.01)
    assert not engine._batch._batches


def test_who_has_granted_nothing_is_told(host: Host, engine: Engine) -> None:
    with pytest.raises(NoGrant):
        engine.ask(host.add("bob").user, asked())
    with pytest.raises(UnknownUser):
        engine.ask(bytes(16), asked())


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps take as long as those of a real base."""
    slow_steps(monkeypatch, 0.01)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"prompt": "x", "max_new_tokens": 201}, InvalidArgument),
        ({"prompt": "x", "temperature": -1}, InvalidArgument),
        ({"prompt": "x", "prefix_of": "bob"}, InvalidArgument),
        ({"prompt": "x" * 10_000}, TextTooLong),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_at_once(
    host: Host, engine: Engine, settings: dict[str, Any], error: type[Exception]
) -> None:
    member, _ = host.hosted("ann", BASE)
    with pytest.raises(error):
        engine.ask(member.user, settings)


@pytest.mark.parametrize("how", ["grant", "suspended", "removed", "device", "replaced", "over"])
@pytest.mark.usefixtures("slow")
def test_a_revocation_ends_what_runs_within_a_second_and_wipes_the_prefix(
    host: Host, engine: Engine, how: str
) -> None:
    member, _ = host.hosted("ann", BASE)
    other, prefix = host.hosted("bob", BASE)
    beside = engine.ask(other.user, asked(tokens=60))
    pieces = begun(engine.ask(member.user, LONG))
    (key,) = (one for one in engine._cache.keys() if one.user == member.user)  # noqa: SIM118
    kept = engine._cache._entries[key].prefix._values
    assert kept.any()
    started = time.monotonic()
    if how == "grant":
        host.grants.revoke(member.user, bytes.fromhex(key.grant))
    elif how == "suspended":
        host.registry.suspend("ann")
    elif how == "removed":
        host.registry.remove("ann")
    elif how == "device":
        host.registry.revoke("ann", member.session.device)
    elif how == "replaced":
        host.grant(member)
    else:
        host.clock.now += 2 * 86_400
    with pytest.raises(GrantRefused, match="does not hold any more"):
        list(pieces)
    assert time.monotonic() - started < 1
    assert not kept.any()
    if how != "over":
        assert text(beside) == alone(asked(tokens=60), prefix)


def test_an_idle_prefix_is_wiped_after_a_revocation(host: Host, engine: Engine) -> None:
    member, _ = host.hosted("ann", BASE)
    text(engine.ask(member.user, asked()))
    (key,) = engine._cache.keys()
    kept = engine._cache._entries[key].prefix._values
    host.grants.revoke(member.user, bytes.fromhex(key.grant))
    engine.recheck(member.user)
    until = time.monotonic() + 1
    while kept.any() and time.monotonic() < until:
        time.sleep(0.01)
    assert not kept.any()
    assert engine._cache.keys() == []


@pytest.mark.usefixtures("slow")
def test_a_caller_who_leaves_frees_the_row(host: Host, engine: Engine) -> None:
    member, _ = host.hosted("ann", BASE)
    stream = engine.ask(member.user, LONG)
    begun(stream)
    stream.cancel()
    until = time.monotonic() + 1
    while engine.measured()["rows"] and time.monotonic() < until:
        time.sleep(0.01)
    assert engine.measured()["rows"] == 0
    for batch in engine._batch._batches.values():
        assert isinstance(batch, ContinuousBatch)
        assert not any(stored.any() for stored in batch._cache._stored.values())


def test_users_take_turns(host: Host) -> None:
    """One who asks eight times does not keep out one who asks once."""
    with Engine(BASE, host.grants, Limits(rows=1)) as engine:
        greedy, _ = host.hosted("greedy", BASE)
        modest, _ = host.hosted("modest", BASE)
        order: list[str] = []

        def read(name: str, stream: OutputStream) -> None:
            "".join(stream)
            order.append(name)

        streams = [("greedy", engine.ask(greedy.user, asked(tokens=30))) for _ in range(8)]
        streams.append(("modest", engine.ask(modest.user, asked(tokens=30))))
        threads = [threading.Thread(target=read, args=one) for one in streams]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert order.index("modest") <= 2


@pytest.mark.usefixtures("slow")
def test_too_many_are_refused_and_told_when_to_come_again(host: Host) -> None:
    limits = Limits(rows=1, waiting=4, waiting_each=3, drain_s=0.1)
    with Engine(BASE, host.grants, limits) as engine:
        ann, bob = (host.hosted(name, BASE)[0] for name in ("ann", "bob"))
        begun(engine.ask(ann.user, LONG))
        streams = [engine.ask(ann.user, LONG) for _ in range(3)]
        with pytest.raises(EngineBusy, match="3 requests of this user wait, 3 may") as busy:
            engine.ask(ann.user, LONG)
        assert busy.value.retry_after_s == limits.retry_s
        streams.append(engine.ask(bob.user, LONG))
        with pytest.raises(EngineBusy, match="4 requests wait, 4 may"):
            engine.ask(bob.user, LONG)
    for stream in streams:
        with pytest.raises(EngineClosed):
            list(stream)


def test_what_runs_ends_before_the_engine_does(host: Host) -> None:
    member, prefix = host.hosted("ann", BASE)
    engine = Engine(BASE, host.grants, Limits(rows=1))
    streams = [engine.ask(member.user, asked()) for _ in range(3)]
    engine.close()
    assert [text(stream) for stream in streams] == [alone(asked(), prefix)] * 3
    with pytest.raises(EngineClosed):
        engine.ask(member.user, asked())
    assert engine._cache.bytes == 0


def test_a_damaged_record_is_its_users_alone(
    host: Host, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, _ = host.hosted("ann", BASE)
    bob, prefix = host.hosted("bob", BASE)
    real = reader.content

    def damaged(
        shelf: RecordStore, connection: Connection, owner: UserEnvelope, row: int, head: RecordMeta
    ) -> bytes:
        record = real(shelf, connection, owner, row, head)
        return record[:-1] + bytes([record[-1] ^ 1]) if owner.user == ann.user else record

    monkeypatch.setattr(reader, "content", damaged)
    broken, fine = engine.ask(ann.user, asked()), engine.ask(bob.user, asked())
    with pytest.raises(RecordMismatch):
        list(broken)
    assert text(fine) == alone(asked(), prefix)


def test_the_next_version_is_used_after_its_grant(host: Host, engine: Engine) -> None:
    member, first = host.hosted("ann", BASE)
    assert text(engine.ask(member.user, asked())) == alone(asked(), first)
    second = prefix_of(BASE, "ann, later")
    host.store(member, second)
    host.grant(member)
    assert text(engine.ask(member.user, asked())) == alone(asked(), second)
    host.store(member, first)  # and the grant is for the one before
    with pytest.raises((NoGrant, GrantRefused)):
        list(engine.ask(member.user, asked()))


def test_a_small_bank_opens_again(host: Host) -> None:
    one = prefix_of(BASE, "x").size
    members = [host.hosted(f"user {n}", BASE) for n in range(4)]
    with Engine(BASE, host.grants, Limits(rows=2, bank_bytes=2 * one)) as engine:
        for _ in range(2):
            for member, prefix in members:
                assert text(engine.ask(member.user, asked(tokens=3))) == alone(asked(tokens=3), prefix)
        assert engine.measured()["bank_bytes"] <= 2 * one
        assert engine.measured()["opened"] == 8


def key_of(name: str) -> PrefixKey:
    tenant, user, prefix = (some_bytes(f"{name} {part}", 16) for part in ("tenant", "user", "prefix"))
    return PrefixKey(tenant, user, prefix, some_bytes("base", 32), 1, some_bytes(name, 32), name)


def test_a_prefix_in_use_is_wiped_when_its_row_is_done() -> None:
    bank, prefix = PrefixCache(1), prefix_of(BASE, "ann")
    bank.keep(key_of("ann"), prefix)
    leased = bank.acquire(key_of("ann"))
    assert leased is prefix
    assert bank.drop(lambda key: True) == 1
    assert bank.acquire(key_of("ann")) is None
    values = prefix._values
    assert values.any()
    bank.release(key_of("ann"), prefix)
    assert not values.any()
    assert bank.bytes == 0


def test_turns_are_by_user_and_who_is_not_ready_is_passed_over() -> None:
    turns: FairRequestQueue[str] = FairRequestQueue(9, 9)
    for item in ("a1", "a2", "b1", "c1"):
        turns.add(item[0].encode(), item, 1.0)
    assert [turns.next(lambda item: item != "b1") for _ in range(4)] == ["a1", "c1", "a2", None]
    assert turns.remove(lambda item: item == "b1") == ["b1"]
    assert len(turns) == 0


def test_torch_is_left_as_it_was(host: Host) -> None:
    before = torch.get_num_threads()
    Engine(BASE, host.grants).close()
    assert torch.get_num_threads() == before


def test_each_opener_computes_by_itself_and_nobody_else_does() -> None:
    """Beside busy cores an opening would wait for a core that nobody gives: 150 ms instead of 10."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with loader_pool(3) as opening:
            assert torch_threads() == 2
            assert list(opening.map(lambda _: torch_threads(), range(9))) == [1] * 9
            with ThreadPoolExecutor(1) as another:
                assert another.submit(torch_threads).result() == 2
    finally:
        torch.set_num_threads(before)


def torch_threads() -> int:
    """That this thread computes with."""
    torch.isfinite(torch.zeros(2**16)).all()
    told: str = torch.__config__.parallel_info()
    return int(told.split("omp_get_max_threads() :")[1].split()[0])


def test_a_vault_that_is_away_ends_what_a_grant_allows_and_nothing_else(
    host: Host, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    member, prefix = host.hosted("ann", BASE)
    own, plain = engine.ask(member.user, LONG), engine.ask(member.user, LONG, personal=False)
    assert next(iter(own))
    of = host.grants.of
    away = threading.Event()

    def asked_of(user: bytes) -> list[Grant]:
        if away.is_set():
            raise VaultUnavailable("/srv/vault: gone")
        return of(user)

    monkeypatch.setattr(host.grants, "of", asked_of)
    step = ContinuousBatch.step
    monkeypatch.setattr(ContinuousBatch, "step", slowly(0.03))
    away.set()
    with pytest.raises(VaultUnavailable):
        list(own)
    monkeypatch.setattr(ContinuousBatch, "step", step)  # what is left of the other may come at once
    assert engine._cache.bytes == 0
    assert "".join(plain) == alone(LONG, None)
    with pytest.raises(VaultUnavailable):
        engine.ask(member.user, asked())
    away.clear()
    assert text(engine.ask(member.user, asked())) == alone(asked(), prefix)


def test_a_revocation_that_cannot_be_looked_at_ends_its_user_at_once(
    host: Host, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ann, _), (bob, prefix) = host.hosted("ann", BASE), host.hosted("bob", BASE)
    step = ContinuousBatch.step
    monkeypatch.setattr(ContinuousBatch, "step", slowly(0.01))
    running, other = engine.ask(ann.user, LONG), engine.ask(bob.user, LONG)
    assert next(iter(running))
    of = host.grants.of

    def asked_of(user: bytes) -> list[Grant]:
        if user == ann.user:
            raise VaultBusy("locked")
        return of(user)

    engine.limits = replace(engine.limits, doubt_s=60)
    monkeypatch.setattr(host.grants, "of", asked_of)
    engine.recheck(ann.user)
    with pytest.raises(VaultBusy):
        list(running)
    monkeypatch.setattr(ContinuousBatch, "step", step)
    assert "".join(other) == alone(LONG, prefix)


@pytest.mark.parametrize("where", ["_admit", "look"])
def test_an_error_that_nobody_thought_of_leaves_nobody_waiting(
    host: Host, engine: Engine, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    member, prefix = host.hosted("ann", BASE)
    monkeypatch.setattr(ContinuousBatch, "step", slowly(0.01))
    running = engine.ask(member.user, LONG)
    assert next(iter(running))
    owner = engine._watch if where == "look" else engine
    real = getattr(owner, where)
    failed = threading.Event()

    def fails() -> None:
        if not failed.is_set():
            failed.set()
            raise ZeroDivisionError
        real()

    monkeypatch.setattr(owner, where, fails)
    with pytest.raises(EngineLost):
        list(running)
    assert text(engine.ask(member.user, asked())) == alone(asked(), prefix)


def test_an_opening_that_fails_in_a_way_nobody_thought_of_is_told(
    host: Host, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    member, _ = host.hosted("ann", BASE)
    monkeypatch.setattr(host.grants, "open", lambda *_: 1 / 0)
    with pytest.raises(EngineLost):
        list(engine.ask(member.user, asked()))


def slowly(seconds: float) -> Callable[[ContinuousBatch], list[StepOutput]]:
    """A step that takes its time."""
    step = ContinuousBatch.step

    def slow(batch: ContinuousBatch) -> list[StepOutput]:
        time.sleep(seconds)
        return step(batch)

    return slow
