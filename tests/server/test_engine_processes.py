"""Engines in processes of their own: the same answers, each user at its own, and none without its gateway."""

import errno
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from antefix import FrozenBase, GenerationRequest, Prefix, generate
from antefix.errors import BaseNotFound, GrantRefused, InvalidArgument, TextTooLong
from antefix.records import OpenedRecord
from antefix_server.engine.limits import Limits
from antefix_server.engine.output_stream import OutputStream
from antefix_server.engine_processes import client as client_module
from antefix_server.engine_processes import rpc_messages
from antefix_server.engine_processes.client import Plan, RemoteEngine, _Row
from antefix_server.engine_processes.router import EngineRouter, rendezvous_order
from antefix_server.engine_processes.rpc import RpcChannel
from antefix_server.errors import EngineBusy, EngineLost, NoGrant, ServerUnfit, VaultUnavailable
from tests.client.people import tiny_folder
from tests.support.records import some_bytes
from tests.support.server.hosted_server import Host, Member
from tests.support.server.processes import wait_for
from tests.support.vaults import new_vault

pytestmark = pytest.mark.slow
ASKED: dict[str, Any] = {"prompt": "An ornament", "max_new_tokens": 12, "ignore_eos": True}
LONG: dict[str, Any] = {**ASKED, "max_new_tokens": 200}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("vault")
    vault = new_vault(folder / "vault", None, folder / "mirror.db")
    yield Host(vault)
    vault.close()


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    limits = Limits(rows=4, waiting=6, waiting_each=4, new_tokens=200, drain_s=0.5)
    return Plan(str(folder), threads=1, limits=limits)


@pytest.fixture(scope="module")
def pair(host: Host, plan: Plan) -> Iterator[tuple[EngineRouter, list[RemoteEngine]]]:
    made = [RemoteEngine(plan, host.grants, index) for index in range(2)]
    with EngineRouter(made) as engines:
        yield engines, made
    assert not any(psutil.pid_exists(one.process) for one in made)


def alone(folder: Path, prefix: Prefix | None, **settings: Any) -> str:
    base = FrozenBase.load(str(folder), progress=False)
    return generate(base, [GenerationRequest(**{**ASKED, **settings}, prefix=prefix)])[0].text


def home(made: list[RemoteEngine], user: bytes) -> RemoteEngine:
    return made[rendezvous_order(user, len(made))[0]]


def spread(host: Host, base: FrozenBase, made: list[RemoteEngine], said: str) -> list[tuple[Member, Prefix]]:
    """Users of every engine: ids are drawn, and six of them are at one of two engines once in 32 times."""
    found: list[tuple[Member, Prefix]] = []
    while len(found) < 6 or len({home(made, member.user).process for member, _ in found}) < len(made):
        found.append(host.hosted(f"user {len(found)} {said}", base))
    return found


def test_each_user_at_its_own_engine(
    host: Host, folder: Path, pair: tuple[EngineRouter, list[RemoteEngine]]
) -> None:
    engines, made = pair
    base = FrozenBase.load(str(folder), progress=False)
    before = [engine.measured() for engine in made]
    members = spread(host, base, made, "at home")
    for member, prefix in members * 2:
        assert "".join(engines.ask(member.user, ASKED)) == alone(folder, prefix)
    assert "".join(engines.ask(members[0][0].user, ASKED, personal=False)) == alone(folder, None)
    after = [engine.measured() for engine in made]
    opened = [now["opened"] - then.get("opened", 0) for then, now in zip(before, after, strict=True)]
    homes = [sum(home(made, member.user) is engine for member, _ in members) for engine in made]
    assert opened == homes
    assert engines.measured()["engines"] == 2
    finished = [now["finished"] - then.get("finished", 0) for then, now in zip(before, after, strict=True)]
    assert sum(finished) == 2 * len(members) + 1


def test_logprobs_and_a_drawn_text_cross_the_line(
    host: Host, folder: Path, pair: tuple[EngineRouter, list[RemoteEngine]]
) -> None:
    engines, _ = pair
    base = FrozenBase.load(str(folder), progress=False)
    ann, prefix = host.hosted("ann who draws", base)
    settings = {**ASKED, "temperature": 0.8, "seed": 5, "logprobs": 2, "chat": False, "stop": ("zzz",)}
    stream = engines.ask(ann.user, settings)
    text = "".join(stream)
    (wanted,) = generate(base, [GenerationRequest(**settings, prefix=prefix)])
    assert stream.result is not None
    assert (text, stream.result.tokens, stream.result.finish) == (wanted.text, wanted.tokens, wanted.finish)
    found = stream.logprobs_taken()
    assert [one.token for one in found] == list(wanted.tokens)
    assert [one.logprob for one in found] == pytest.approx([one.logprob for one in wanted.logprobs], abs=1e-4)
    assert all(engines.word(one.token) == base.tokenizer.decode([one.token]) for one in found)
    assert stream.prompt_tokens == len(base.tokenizer(ASKED["prompt"])["input_ids"])


def test_refusals_cross_the_line(
    host: Host, folder: Path, pair: tuple[EngineRouter, list[RemoteEngine]]
) -> None:
    engines, _ = pair
    ann, _ = host.hosted("ann who is refused", FrozenBase.load(str(folder), progress=False))
    with pytest.raises(NoGrant):
        engines.ask(host.add("bob without").user, ASKED)
    with pytest.raises(InvalidArgument, match="temperature"):
        engines.ask(ann.user, {**ASKED, "temperature": -1.0})
    with pytest.raises(TextTooLong):
        engines.ask(ann.user, {**ASKED, "prompt": "word " * 5000})
    before, streams = engines.measured().get("cancelled", 0), list[OutputStream]()
    with pytest.raises(EngineBusy) as refused:
        _ask_until_refused(engines, ann.user, streams)
    assert refused.value.retry_after_s > 0
    for stream in streams:
        stream.cancel()
    wait_for(lambda: engines.measured().get("cancelled", 0) == before + len(streams), 20)


def _ask_until_refused(engines: EngineRouter, user: bytes, streams: list[OutputStream]) -> None:
    for _ in range(9):
        streams.append(engines.ask(user, LONG))


@pytest.mark.alone
def test_a_revocation_ends_what_runs_within_a_second(
    host: Host, folder: Path, pair: tuple[EngineRouter, list[RemoteEngine]]
) -> None:
    engines, _ = pair
    base = FrozenBase.load(str(folder), progress=False)
    (ann, _), (bob, prefix) = host.hosted("ann to revoke", base), host.hosted("bob to stay", base)
    running, other = iter(engines.ask(ann.user, LONG)), engines.ask(bob.user, LONG)
    next(running)
    (grant,) = host.grants.of(ann.user)
    host.grants.revoke(ann.user, bytes.fromhex(grant.id))
    began = time.monotonic()
    engines.recheck(ann.user)
    with pytest.raises(GrantRefused):
        list(running)
    assert time.monotonic() - began < 1
    assert "".join(other) == alone(folder, prefix, max_new_tokens=200)


def test_a_killed_engine_loses_its_requests_alone(
    host: Host, folder: Path, pair: tuple[EngineRouter, list[RemoteEngine]]
) -> None:
    engines, made = pair
    base = FrozenBase.load(str(folder), progress=False)
    members = spread(host, base, made, "of a kill")
    first, prefix = members[0]
    other = next(member for member, _ in members if home(made, member.user) is not home(made, first.user))
    lost, kept = iter(engines.ask(first.user, LONG)), engines.ask(other.user, LONG)
    next(lost)
    killed = home(made, first.user).process
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(EngineLost):
        list(lost)
    assert "".join(engines.ask(first.user, ASKED)) == alone(folder, prefix)  # the other has it meanwhile
    assert len("".join(kept)) > 0
    assert kept.result is not None
    wait_for(lambda: home(made, first.user).there, 60)
    assert home(made, first.user).process != killed
    assert "".join(engines.ask(first.user, ASKED)) == alone(folder, prefix)


def test_an_engine_opens_nothing_for_who_does_not_ask_it(host: Host, folder: Path, plan: Plan) -> None:
    base = FrozenBase.load(str(folder), progress=False)
    ann, _ = host.hosted("ann who does not ask", base)
    (grant,) = host.grants.of(ann.user)
    engine = RemoteEngine(plan, host.grants)
    engine.ready()
    try:
        said = {"user": ann.user.hex(), "grant": grant.id, "base": base.fingerprint}
        with pytest.raises(GrantRefused, match="nobody asks"):
            engine._open(said, lambda *_: pytest.fail("it was opened"))
    finally:
        engine.close()


def test_what_was_opened_is_wiped_here_too(
    host: Host, folder: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, _ = host.hosted("ann who is opened", FrozenBase.load(str(folder), progress=False))
    wiped = threading.Event()
    wipe = OpenedRecord.wipe

    def seen(record: OpenedRecord) -> None:
        wipe(record)
        assert not record.payload
        wiped.set()

    engine = RemoteEngine(plan, host.grants)
    engine.ready()
    monkeypatch.setattr(OpenedRecord, "wipe", seen)
    try:
        "".join(engine.ask(ann.user, ASKED))
    finally:
        engine.close()
    assert wiped.is_set()


def test_a_base_that_is_none_is_said_and_nothing_is_left(host: Host, tmp_path: Path) -> None:
    engine = RemoteEngine(Plan(str(tmp_path / "nothing")), host.grants)
    with pytest.raises(BaseNotFound):
        EngineRouter([engine])
    assert not psutil.pid_exists(engine.process)


def test_an_engine_ends_with_its_gateway(host: Host, plan: Plan) -> None:
    engine = RemoteEngine(plan, host.grants)
    engine.ready()
    line = engine._line
    assert line is not None
    engine._closing.set()  # nobody starts another
    line.hang_up()  # what the system does when a process is killed
    wait_for(lambda: not psutil.pid_exists(engine.process), 20)


@pytest.fixture
def idle(host: Host, monkeypatch: pytest.MonkeyPatch) -> RemoteEngine:
    """An engine that has no process, and nobody who starts one."""
    monkeypatch.setattr(RemoteEngine, "_keep", lambda _: None)
    return RemoteEngine(Plan("no base"), host.grants)


class _Unread:
    """A line to an engine that refuses, as soon as it may."""

    def __init__(self) -> None:
        self.asked, self.refuses = threading.Event(), threading.Event()

    def call(self, *_: object) -> None:
        self.asked.set()
        self.refuses.wait()
        raise EngineLost


@pytest.mark.parametrize("how", ["ended", "refused"])
def test_a_request_that_goes_while_grants_are_opened_disturbs_no_other(how: str, idle: RemoteEngine) -> None:
    """`_open` goes through all requests; one that left meanwhile made the others fail with a 503."""
    line, going = _Unread(), list[threading.Thread]()

    def leave() -> None:
        if how == "ended":
            idle._end({"row": 102, "error": rpc_messages.of_error(EngineLost()), "words": {}, "logprobs": []})
        else:
            with pytest.raises(EngineLost):
                idle.ask(bytes(16), ASKED)

    class Looked(bytes):
        __hash__ = bytes.__hash__

        def __eq__(self, _: object) -> bool:
            line.refuses.set()
            if how == "ended":
                going[0].start()
            going[0].join(0.3)  # it may wait for us
            return False

    idle._rows.update(
        {
            101: _Row(Looked(16), OutputStream(0, lambda: None)),
            102: _Row(bytes(16), OutputStream(0, lambda: None)),
        }
    )
    going.append(threading.Thread(target=leave, daemon=True))
    if how == "refused":
        idle._line = line  # type: ignore[assignment]  # it need not send
        going[0].start()
        assert line.asked.wait(10)
    with pytest.raises(GrantRefused, match="nobody asks"):
        idle._open({"user": "11" * 16, "grant": "", "base": ""}, lambda *_: None)
    going[0].join(10)
    assert len(idle._rows) == (1 if how == "ended" else 2)


def test_a_key_that_cannot_be_overwritten_ends_no_engine(
    idle: RemoteEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stuck() -> int:
        raise VaultUnavailable("epochs/00.key: input/output error")

    monkeypatch.setattr(idle._grants, "tidy", stuck)
    ours, theirs = socket.socketpair()
    line, end = (
        RpcChannel(ours, {"tidy": idle._tidy}, {"alive": lambda _, answer: answer({})}),
        RpcChannel(theirs, {}, {}),
    )
    for one in (line, end):
        threading.Thread(target=one.run, daemon=True).start()
    end.tell("tidy", {})
    end.call("alive", {}, 10)
    end.hang_up()
    assert "epochs/00.key" in caplog.text


def _no_process(started: list[int]) -> Callable[..., None]:
    def fails(*_: object, **__: object) -> None:
        started.append(1)
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    return fails


def test_an_engine_that_gets_no_process_at_the_start_says_so(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", _no_process([]))
    with pytest.raises(ServerUnfit, match=r"cannot be started.*Cannot allocate memory"):
        EngineRouter([RemoteEngine(Plan("no base"), host.grants)])


def test_an_engine_that_gets_no_process_later_is_tried_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    keep = RemoteEngine._keep
    monkeypatch.setattr(subprocess, "Popen", _no_process(started))
    monkeypatch.setattr(client_module, "_AGAIN_S", (0.01, 0.01))
    monkeypatch.setattr(RemoteEngine, "_keep", lambda engine: (engine._started.set(), keep(engine)))
    engine = RemoteEngine(Plan("no base"), host.grants)
    wait_for(lambda: len(started) > 2, 10)
    engine.close()


def test_users_move_only_when_their_engine_goes() -> None:
    users = [some_bytes(f"user {number}", 16) for number in range(2000)]
    with_three, with_four = [[rendezvous_order(user, count)[0] for user in users] for count in (3, 4)]
    assert set(with_four) == {0, 1, 2, 3}
    assert all(after in (before, 3) for before, after in zip(with_three, with_four, strict=True))
    assert all(430 < with_four.count(home) < 570 for home in range(4))


@pytest.mark.parametrize("said", [b"{", b"[]", b'{"do": "nothing of ours"}', b'{"do": "told"}', b"\xff"])
def test_a_line_that_says_nonsense_is_hung_up_and_nobody_waits(said: bytes) -> None:
    ours, theirs = socket.socketpair()
    line = RpcChannel(ours, {"told": lambda said: said["missing"]}, {})
    reader = threading.Thread(target=line.run)
    reader.start()
    answers = []

    def ask() -> None:
        with pytest.raises(EngineLost):
            line.call("anything", {})
        answers.append("lost")

    asking = threading.Thread(target=ask)
    asking.start()
    theirs.recv(1)
    theirs.sendall(struct.pack(">IQ", len(said), 0) + said)
    reader.join(10)
    asking.join(10)
    assert answers == ["lost"]
    with pytest.raises(EngineLost):
        line.call("anything", {})
    theirs.close()
