"""Where a checkpoint cannot be written, training goes on and every result is given."""

import json
import logging
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from antefix import Example, PrefixSpec, TrainedUser, TrainingPlan, train
from antefix.data.tokenization import Row
from antefix.training import checkpoint, trainer
from tests.support import tiny_models

USERS = {user: [Example(f"{user} wrote {n}") for n in range(5)] for user in ("ann", "bob", "cy")}
PLAN = TrainingPlan(max_steps=2, micro_batch_tokens=128, workers=1, users_in_flight=1)
SPEC = PrefixSpec(length=3)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond a few bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
def test_a_full_disk_costs_no_result_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = tiny_models.base("llama")
    wanted = train(base, USERS, SPEC, PLAN, progress=False)
    with caplog.at_level(logging.WARNING, "antefix"), full_disk():
        found = train(base, USERS, SPEC, PLAN, checkpoint=tmp_path, progress=False)
    assert found == wanted
    (record,) = caplog.records
    assert str(tmp_path) in record.getMessage()
    assert "File too large" in record.getMessage()
    assert list(tmp_path.iterdir()) == []
    assert train(base, USERS, SPEC, PLAN, checkpoint=tmp_path, progress=False) == wanted


def test_a_folder_that_goes_away_costs_no_result(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "checkpoint"

    def replace(user: str, result: TrainedUser) -> None:
        if user == "ann":
            shutil.rmtree(folder)
            folder.write_text("a file now")

    done = train(
        tiny_models.base("llama"), USERS, SPEC, PLAN, checkpoint=folder, on_finished=replace, progress=False
    )
    assert list(done) == list(USERS)
    assert len(caplog.records) == 1


def test_an_interrupt_stays_an_interrupt_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "forward_backward", interrupted)
    with full_disk(), pytest.raises(KeyboardInterrupt):
        train(tiny_models.base("llama"), USERS, SPEC, PLAN, checkpoint=tmp_path, progress=False)


@pytest.mark.parametrize(("batching", "former"), [("shared", "stacked"), ("per-user", "alone")])
def test_a_run_keeps_the_name_that_its_checkpoint_knows_it_by(batching: str, former: str) -> None:
    """The plan is part of a run's digest: with other words in it, no interrupted run would go on."""
    plan = TrainingPlan.model_validate({"batching": batching})
    stored = checkpoint._stored_plan(plan)
    assert json.loads(stored) == {**plan.model_dump(), "batching": former}
    assert stored.startswith('{"max_steps":null,"passes":null,"batch_size":4,"learning_rate":0.005,')


def test_a_text_keeps_the_bytes_that_its_checkpoint_knows_it_by() -> None:
    stored = checkpoint._stored_row(Row((1, 2, 3), (3, 4)).with_infix)
    assert stored == b'{"inputs": [1, 2, 3], "targets": [3, 4], "source": [], "blind": 1}'
