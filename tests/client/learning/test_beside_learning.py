"""What can be done while a `learn` runs: everything else, and to end it."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from antefix_client import LearnReport, PersonalModel
from antefix_client.errors import BaseChanged, ProfileClosed
from tests.client.people import KEY, NOTES, opened
from tests.support import tiny_models


class Run:
    """A `learn` in a thread, which stops after its first step until `go_on` is set."""

    def __init__(self, model: PersonalModel) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.report: LearnReport | None = None
        self.failed: BaseException | None = None
        self.first_steps = 0
        self._model = model
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        assert self.begun.wait(30)

    def end(self) -> None:
        self.go_on.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _work(self) -> None:
        try:
            self.report = self._model.learn(progress=self._step)
        except BaseException as error:
            self.failed = error
        finally:
            self.begun.set()

    def _step(self, done: int, steps: int) -> None:
        self.first_steps += done == 1
        self.begun.set()
        assert self.go_on.wait(60)


@contextmanager
def learning(model: PersonalModel) -> Iterator[Run]:
    run = Run(model)
    try:
        yield run
    finally:
        run.end()


def answers(call: Callable[[], object]) -> None:
    """It comes back; a deadlock fails this test and hangs no other."""
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(call()), daemon=True)
    thread.start()
    thread.join(20)
    assert done, "it waits for the learn"


@pytest.mark.slow
def test_nothing_waits_for_a_learn(model: PersonalModel, tmp_path: Path) -> None:
    model.remember(NOTES)
    with learning(model) as run:
        answers(lambda: model.remember(["a text more"]))
        for call in (model.status, model.texts, model.versions, model.link_request):
            answers(call)
        answers(lambda: model.export(tmp_path / "texts", what="texts"))
        answers(lambda: model.generate("Note", max_new_tokens=2))
    assert run.report is not None
    assert run.report.kept
    assert run.report.texts + run.report.judged_on == len(NOTES)
    assert model.status().texts == len(NOTES) + 1


@pytest.mark.parametrize("end", ["close", "forget"])
def test_a_learn_ends_with_the_profile(end: str, model: PersonalModel) -> None:
    model.remember(NOTES)
    folder = model.status().folder
    with learning(model) as run:
        answers(lambda: (getattr(model, end)(),))
    assert isinstance(run.failed, ProfileClosed)
    assert run.first_steps == 1
    assert folder.exists() == (end == "close")
    if end == "close":
        with opened(folder) as again:
            assert again.versions() == []


def test_what_is_removed_meanwhile_is_not_learned(model: PersonalModel) -> None:
    model.remember(NOTES)
    with learning(model) as run:
        answers(lambda: model.remove_texts([1, 2, 3]))
    assert run.failed is None
    assert run.report is not None
    assert run.first_steps == 2  # it began again
    assert run.report.texts + run.report.judged_on == len(NOTES) - 3
    assert not run.report.resumed


@pytest.mark.slow
def test_a_version_that_came_meanwhile_must_be_beaten_too(
    model: PersonalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.remember(NOTES[:12])
    assert model.learn(progress=False).kept
    model.remember(NOTES)
    with learning(model) as run:
        answers(lambda: model.roll_back(1) if len(model.versions()) > 1 else model.versions())
        made = model.versions()[0]
        prefix = model.runtime.prefix
        assert prefix is not None
        with model.session.locked() as profile:
            model.runtime.add_version(profile, prefix, made.model_copy(update={"how": "received"}))
    assert run.report is not None
    assert [one.number for one in model.versions()] == ([1, 2, 3] if run.report.kept else [1, 2])


@pytest.mark.slow
def test_a_base_that_was_changed_meanwhile_ends_it(model: PersonalModel) -> None:
    model.remember(NOTES)
    with learning(model) as run:
        model.change_base(tiny_models.base("qwen2"))
    assert isinstance(run.failed, BaseChanged)
    assert model.versions() == []


@pytest.mark.slow
def test_two_learns_take_turns(tmp_path: Path) -> None:
    with PersonalModel.create(tmp_path / "p", unlock=KEY, base=tiny_models.base("llama")) as model:
        model.remember(NOTES)
        with learning(model) as first:
            second = threading.Thread(target=lambda: model.learn(progress=False))
            second.start()
            answers(model.status)
            assert second.is_alive()
        second.join(60)
        assert first.report is not None
        assert not second.is_alive()


def test_the_service_answers_while_many_want_to_learn(
    model: PersonalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They must not take the threads that answer everybody else."""
    httpx = pytest.importorskip("httpx")
    from antefix_client.service.app import Service
    from tests.support.loopback import serving

    model.remember(NOTES)
    go_on, running = threading.Event(), list[int]()

    def learn(**_: object) -> LearnReport:
        running.append(1)
        assert go_on.wait(60)
        raise ProfileClosed

    monkeypatch.setattr(model, "learn", learn)
    with serving(Service(model).application(None)) as address, ExitStack() as open_ones:
        port = int(address.rsplit(":", 1)[1])
        asked = b"POST /antefix/v1/learn HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
        for _ in range(45):
            one = open_ones.enter_context(socket.create_connection(("127.0.0.1", port)))
            one.sendall(asked)
        client = open_ones.enter_context(httpx.Client(base_url=address, timeout=10))
        try:
            for _ in range(20):
                assert client.get("/antefix/v1/status").status_code == 200
            assert len(running) == 1
        finally:
            go_on.set()
