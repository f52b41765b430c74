"""What was learned from removed texts goes with the next `learn`, whatever comes of it."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from antefix import Prefix, train
from antefix.errors import RecordMismatch
from antefix_client import PersonalModel
from antefix_client.errors import TooFewTexts
from antefix_client.learning import learn as learn_module
from antefix_client.learning.hyperparameters import default_plan
from antefix_client.learning.text_split import TextSnapshot
from tests.client.people import KEY, NOTES, reopened
from tests.client.test_model import useless_rule
from tests.client.two_devices import device, learned, link, record, value
from tests.support import tiny_models

pytestmark = pytest.mark.slow


@pytest.fixture
def model(tmp_path: Path) -> Iterator[PersonalModel]:
    with PersonalModel.create(tmp_path / "profile", unlock=KEY, base=tiny_models.base("llama")) as made:
        yield made


def remember_learn_and_remove(model: PersonalModel) -> Prefix:
    """A version that may know the texts that are removed then."""
    model.remember(NOTES)
    assert model.learn(progress=False).kept
    tainted = model.runtime.prefix
    assert tainted is not None
    model.remove_texts([1, 2, 3])
    assert model.status().learn_due
    return tainted


def test_the_next_learn_knows_nothing_of_them(model: PersonalModel, tmp_path: Path) -> None:
    """To the bit what a profile gets that never had them."""
    remember_learn_and_remove(model)
    with reopened(model) as again:
        assert again.status().learn_due
        report = again.learn(progress=False)
        assert report.fresh
        assert report.kept
        assert "older versions are gone" in str(report)
        assert [one.number for one in again.versions()] == [2]
        assert [path.name for path in (tmp_path / "profile/versions").iterdir()] == ["00000002.record"]
        assert not again.status().learn_due
        prefix, split = again.runtime.prefix, TextSnapshot.take(again.session.profile).split()
        texts = {text.completion for text in (*split.training, *split.validation)}
        assert texts == set(NOTES[3:])
        assert not again.learn(progress=False).fresh
    base = tiny_models.base("llama")
    spec, cold = default_plan(len(split.training), warm=False)
    wanted = train(
        base, {"me": split.training}, spec, cold, validation={"me": split.validation}, progress=False
    )["me"].prefix
    assert prefix == wanted


def test_no_gain_takes_them_away_too(model: PersonalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Judged against what knows nothing of them: the tainted version would win, and stay for ever."""
    remember_learn_and_remove(model)
    monkeypatch.setattr(learn_module, "default_plan", useless_rule)
    monkeypatch.setattr(learn_module, "_score", lambda *_: -math.inf)
    report = model.learn(progress=False)
    assert (report.kept, report.fresh, report.version) == (False, True, None)
    assert "no version is in use" in str(report)
    assert model.versions() == []
    assert model.runtime.prefix is None
    assert not any((model.status().folder / "versions").iterdir())
    assert not model.status().learn_due
    monkeypatch.undo()
    assert model.learn(progress=False).version == 2  # numbers only grow, for other devices
    with reopened(model) as again:
        assert [one.number for one in again.versions()] == [2]


def test_the_shared_prefix_is_what_remains(model: PersonalModel, tmp_path: Path) -> None:
    base = tiny_models.base("llama")
    shared = Prefix(torch.randn(base.layout.size(5)) * 0.1, base.layout, base.fingerprint)
    tainted = remember_learn_and_remove(model)
    model.use_shared(shared.save(tmp_path / "shared"))
    assert model.runtime.prefix == tainted  # until the next learn
    texts = TextSnapshot.take(model.session.profile)
    task, _ = learn_module._prepare(texts, model.runtime)
    assert (task.start, task.baseline) == (shared, shared)


def test_fewer_than_four_left(model: PersonalModel) -> None:
    remember_learn_and_remove(model)
    model.remove_texts(list(model.texts())[3:])
    with pytest.raises(TooFewTexts, match="versions that may have learned from removed texts were dropped"):
        model.learn(progress=False)
    assert model.versions() == []
    assert model.runtime.prefix is None
    with pytest.raises(TooFewTexts, match=r"^3 texts are remembered, 4 are needed to learn from"):
        model.learn(progress=False)


def test_rolling_back_does_not_count_as_learning(model: PersonalModel) -> None:
    learned(model, 1.0)
    remember_learn_and_remove(model)
    model.roll_back(1)
    assert model.status().learn_due
    assert model.learn(progress=False).fresh
    assert all(one.number > 3 for one in model.versions())


def test_the_checkpoint_of_a_cut_off_run_goes_at_once(model: PersonalModel) -> None:
    def stop(done: int, steps: int) -> None:
        raise KeyboardInterrupt

    model.remember(NOTES)
    with pytest.raises(KeyboardInterrupt):
        model.learn(progress=stop)
    assert model.status().interrupted
    model.remove_texts([1])
    assert not model.status().interrupted
    assert not model.status().learn_due  # there is nothing that was learned


def test_other_devices_follow_and_cannot_bring_it_back(tmp_path: Path) -> None:
    with device(tmp_path / "phone") as phone, device(tmp_path / "laptop") as laptop:
        link(phone, laptop)
        phone.remember(NOTES)
        learned(phone, 1.0)
        learned(phone, 2.0)
        old = record(phone)
        laptop.receive(old)
        phone.remove_texts([1])
        phone.learn(progress=False)
        if phone.versions():  # better than nothing
            assert [one.number for one in phone.versions()] == [3]
            assert not laptop.receive(record(phone)).beside
        with pytest.raises(RecordMismatch):
            phone.receive(old)
        phone.remove_texts([2])
        phone.remove_texts(list(phone.texts())[2:])
        with pytest.raises(TooFewTexts):
            phone.learn(progress=False)
        assert phone.versions() == []
        with pytest.raises(RecordMismatch, match="the oldest that is kept here is"):
            phone.receive(old)
        learned(phone, 5.0)
        assert not laptop.receive(record(phone)).beside
        assert value(laptop) == 5.0


def test_a_version_that_is_far_ahead_uses_no_numbers_up(tmp_path: Path) -> None:
    from antefix.records import RecordVersion, read_header, seal

    with device(tmp_path / "phone") as phone, device(tmp_path / "laptop") as laptop:
        link(phone, laptop)
        learned(phone, 1.0)
        laptop.receive(record(phone))
        profile, place = phone.session.profile, read_header(record(phone)).edition.address
        with profile.prefixes.open(phone.versions()[0]) as opened:
            payload = bytes(opened.payload)
        for number in (2**64 - 1, 2**20 + 3):
            edition = RecordVersion(place, number, b"\1" * 32)
            hostile = seal(payload, edition, key=profile.keys.user_key, device=profile.keys.device)
            with pytest.raises(RecordMismatch, match="at most"):
                laptop.receive(hostile)
        assert learned(laptop, 2.0).number == 2
