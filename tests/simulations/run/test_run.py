"""Runs in one process: the same bytes for the same settings, cut off or not, and every user its own."""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from antefix import Example, FrozenBase, Prefix, score
from antefix.errors import AntefixError, InvalidArgument, RecordError
from antefix.keys import DeviceKeys
from antefix.rounds import Round, RoundKey, Update
from antefix.training.neutral_prefix import neutral_prefix
from antefix_simulations.arms.finetuning import Full, Lora
from antefix_simulations.arms.generation import MEASURES, agreement
from antefix_simulations.arms.in_context import nearest
from antefix_simulations.data.store import Population, Split
from antefix_simulations.report.comparison import compare
from antefix_simulations.report.summary import read_summary
from antefix_simulations.run.driver import LocalExecutor, Run
from antefix_simulations.run.record_vault import RecordVault, Sealer
from antefix_simulations.run.task import Result, Task
from antefix_simulations.run.tuning import inner_split
from antefix_simulations.settings import RunSettings
from tests.support import tiny_models

pytestmark = pytest.mark.slow

QUICK = {"num-server-rounds": 2, "steps": 2, "max-texts": 12, "private-passes": 0.5, "cohort-size": 3}


def run(out: Path, executor: Any = LocalExecutor, **changed: Any) -> Path:
    settings = RunSettings.read({**QUICK, **{name.replace("_", "-"): one for name, one in changed.items()}})
    base = tiny_models.base("llama")
    with Run(out, settings, base, lambda line: None, progress=False) as running:
        running.go(executor(base, running.population, settings, out))
    return out


def found(out: Path) -> list[str]:
    """Digests of all that a run must repeat: metrics, and every shared prefix."""
    files = [out / "metrics.jsonl", *sorted(out.glob("rounds/*/shared.safetensors"))]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("done"))


def test_everybody_is_measured(done: Path) -> None:
    summary = read_summary(done)
    assert len(summary.users) == 8
    assert summary.arms == ["none", "shared", "others", "private"]
    assert [line["round"] for line in summary.rounds] == [0, 1, 2]
    assert {len(losses) for losses in summary.newcomers.values()} == {2}
    assert all(line["private"] < line["none"] for line in summary.users)
    assert "private" in summary.as_text()
    json.dumps(summary.as_json())


class CutOff(LocalExecutor):
    """Ends after some tasks, as Ctrl-C would."""

    left = 0

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        for task, result in super().results(tasks):
            if CutOff.left == 0:
                raise KeyboardInterrupt
            CutOff.left -= 1
            yield task, result


@pytest.mark.slow
def test_a_run_that_was_cut_off_ends_in_the_same_bytes(done: Path, tmp_path: Path) -> None:
    for lasts in (0, 1, 2, 4):
        CutOff.left = lasts
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, CutOff)
    assert found(run(tmp_path)) == found(done)


def opened(out: Path, **changed: Any) -> Run:
    return Run(
        out, RunSettings.read(QUICK | changed), tiny_models.base("llama"), lambda line: None, progress=False
    )


@pytest.mark.parametrize("seal", [True, False])
def test_a_folder_has_one_run_at_a_time(seal: bool, tmp_path: Path) -> None:
    """Without a vault nothing held the second one off, and it took the first one's files away."""
    with (
        opened(tmp_path, seal=seal),
        pytest.raises(InvalidArgument, match="another run is under way in"),
        opened(tmp_path, seal=seal),
    ):
        pass
    with opened(tmp_path, seal=seal):
        pass


@pytest.mark.parametrize("content", [None, "no JSON\n", ""])
def test_a_refused_file_leaves_no_folder_behind(content: str | None, tmp_path: Path) -> None:
    data, out, kept = tmp_path / "data.jsonl", tmp_path / "out", tmp_path / "kept"
    if content is not None:
        data.write_text(content)
    kept.mkdir()
    for folder in (out, kept):
        with pytest.raises(AntefixError):
            opened(folder, data=str(data))
    assert not out.exists()
    assert kept.is_dir()  # the user's own


def test_texts_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    out = run(tmp_path / "out")
    assert out.stat().st_mode & 0o077 == 0
    open_to_others = {
        str(path.relative_to(out)): oct(path.stat().st_mode)
        for path in out.rglob("*")
        if path.is_file() and path.stat().st_mode & 0o077
    }
    assert open_to_others == {}


@pytest.mark.parametrize("name", ["work/personal-00000-000000", "rounds/00001/facts.json", "config.json"])
def test_a_damaged_file_is_named(done: Path, name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    (out / name).write_bytes(b"x")
    with pytest.raises(InvalidArgument, match=rf"{name} is damaged"):
        run(out)
    if name != "config.json":
        (out / name).unlink()
        assert found(run(out)) == found(done)


def test_a_vault_without_its_keys_is_refused(done: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    (out / "keys").unlink()
    with pytest.raises(InvalidArgument, match="keys is gone"):
        run(out)


@pytest.mark.slow
def test_texts_that_no_config_tells_of_are_read_anew(done: Path, tmp_path: Path) -> None:
    """A run that was killed before it said which left them; this one may be another."""
    shutil.copy(done / "population.db", tmp_path)
    run(tmp_path, max_texts=10)
    assert read_summary(tmp_path).users[0]["texts"] == 8


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_run_goes_on_later(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("antefix_simulations.run.server.atomic_write", full)
        with pytest.raises(InvalidArgument, match="cannot be written: No space left") as refused:
            run(tmp_path)
    assert "goes on" in str(refused.value.hint)
    assert found(run(tmp_path)) == found(done)


class Backwards(LocalExecutor):
    """Workers that are done in another order."""

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        yield from super().results(tasks[::-1])


@pytest.mark.slow
def test_the_order_of_answers_does_not_matter(done: Path, tmp_path: Path) -> None:
    assert found(run(tmp_path, Backwards)) == found(done)


@pytest.mark.slow
def test_who_is_in_a_cohort_changes_no_private_prefix(done: Path, tmp_path: Path) -> None:
    other = read_summary(run(tmp_path, cohort_size=8, others=0))
    before = read_summary(done)
    for theirs, ours in zip(other.users, before.users, strict=True):
        assert theirs["user"] == ours["user"]
        # Sums of cohorts are added in another order: the shared prefix moves in its last bits.
        assert theirs["private"] == pytest.approx(ours["private"], rel=1e-5)


def test_records_open_for_their_users_alone(done: Path) -> None:
    base, length = tiny_models.base("llama"), 8
    sealer = Sealer(done, base)
    with Population(done / "population.db") as population, RecordVault(done, population.count) as keeping:
        for user in population.numbers():
            record = keeping.record(user)
            with sealer.open(user, record, length) as opened:
                assert isinstance(opened.prefix(), Prefix)
            for other in population.numbers():
                if other != user:
                    with pytest.raises(RecordError):
                        sealer.open(other, record, length)


@pytest.mark.slow
def test_a_user_that_fails_is_told_and_the_others_go_on(done: Path, tmp_path: Path) -> None:
    """One user's texts are all too long for the base."""
    data = tmp_path / "data.jsonl"
    rows = [{"user": f"u{user}", "text": f"{at} {user} abc"} for user in range(4) for at in range(12)]
    rows += [{"user": "long", "text": f"{at} " + "ab " * 500} for at in range(12)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = read_summary(run(tmp_path / "out", data=str(data), max_text_tokens=10_000, new_users=0))
    assert {line["user"] for line in summary.users} == {"u0", "u1", "u2", "u3"}
    assert [(line["user"], line["failed"]) for line in summary.failed] == [("long", "TextTooLong")]
    summary = read_summary(run(tmp_path / "short", data=str(data), new_users=0))
    assert [line["failed"] for line in summary.failed] == ["all texts of a side are too long"]
    told = summary.as_text().splitlines()
    assert "1 user failed: all texts of a side are too long; see metrics.jsonl" in told


def test_a_user_that_fails_in_every_round_is_counted_once(tmp_path: Path) -> None:
    """Everybody's texts are too long: the summary says why nobody has a prefix."""
    summary = read_summary(run(tmp_path, max_text_tokens=1))
    assert len(summary.failed) > 8
    assert summary.as_json()["failed"] == 8
    assert summary.as_text().splitlines() == [
        "no user has a private prefix",
        "8 users failed: all texts of a side are too long; see metrics.jsonl",
    ]


@pytest.mark.slow
def test_an_arm_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object) -> None:
        raise InvalidArgument("no")

    monkeypatch.setattr("antefix_simulations.arms.in_context.InContext.losses", fails)
    summary = read_summary(run(tmp_path, arms="context", num_server_rounds=1))
    assert "context" not in summary.arms
    assert summary.failures() == ["context is left out: 8 users failed: InvalidArgument; see metrics.jsonl"]
    assert "context is left out" in summary.as_text()


def test_what_rounds_are_worth_to_new_users_is_told(done: Path) -> None:
    summary = read_summary(done)
    last = summary.as_json()["cold_start"][2]
    gains = [summary.newcomers[0][user] - summary.newcomers[2][user] for user in summary.newcomers[0]]
    assert (last["round"], last["users"]) == (2, 2)
    assert last["mean"] == pytest.approx(np.mean(gains))
    assert f"round 2 is worth {np.mean(gains):.3f}" in summary.as_text()


def test_another_run_is_refused(done: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"settings: learning-rate was 0\.005, now 0\.01"):
        run(done, learning_rate=0.01)


@pytest.mark.slow
def test_noise_is_repeated(tmp_path: Path) -> None:
    noisy = {"noise_multiplier": 1.0, "num_server_rounds": 1}
    first, second = (found(run(tmp_path / str(number), **noisy)) for number in range(2))
    assert first == second
    rounds = read_summary(tmp_path / "0").rounds
    assert rounds[1]["epsilon"] > 0


def test_the_sum_of_cohorts_is_what_a_server_adds_up(done: Path) -> None:
    """Against a plain loop: everybody's clipped change, averaged."""
    from antefix import PrefixSpec, TrainingPlan, train
    from antefix.rounds import clip_to_norm

    settings = RunSettings.read(QUICK)
    start = Prefix.load(done / "rounds" / "00000" / "shared.safetensors")
    plan = TrainingPlan(max_steps=2, learning_rate=settings.learning_rate, evaluate=False, seed=1)
    changes = []
    with Population(done / "population.db") as population:
        for user, split in population.splits(population.numbers(role=0)).items():
            texts = {str(user): split.training}
            one = train(
                tiny_models.base("llama"), texts, PrefixSpec(length=8), plan, start=start, progress=False
            )
            changes.append(clip_to_norm((one[str(user)].prefix.values - start.values).numpy(), settings.clip))
    expected = start.values.numpy() + np.mean(changes, axis=0)
    after = Prefix.load(done / "rounds" / "00001" / "shared.safetensors").values.numpy()
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)


def test_without_peft_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antefix_simulations.arms.registry.find_spec", lambda name: None)
    with pytest.raises(InvalidArgument, match="the arm lora needs the package peft") as refused:
        opened(tmp_path / "out", arms="lora")
    assert refused.value.hint == "pip install 'antefix[peft]'"
    assert not (tmp_path / "out").exists()


def test_a_base_is_needed_of_the_same_fingerprint(done: Path) -> None:
    settings = RunSettings.read(QUICK)
    other: FrozenBase = tiny_models.base("gpt2")
    with pytest.raises(InvalidArgument, match="other base: name"):
        Run(done, settings, other, lambda line: None, progress=False)


@pytest.mark.slow
def test_runs_are_compared_by_user(done: Path, tmp_path: Path) -> None:
    slower = run(tmp_path / "slower", private_learning_rate=1e-4)
    found = compare([done, slower])
    assert found.users == sorted(line["user"] for line in read_summary(done).users)
    assert found.differences() == ["private-learning-rate: 0.005, 0.0001"]
    shown = found.as_text()
    assert "slower" in shown
    assert "+0.000 (+0.000…+0.000)" in shown  # of the shared prefix, which is the same
    gains = found.as_json()["runs"][1]["gain"]
    assert gains["private"]["high"] < 0
    with pytest.raises(InvalidArgument, match="no finished run"):
        compare([done, tmp_path / "nothing"])
    with pytest.raises(InvalidArgument, match="split their texts in different ways"):
        compare([done, run(tmp_path / "other", max_texts=10)])
    with pytest.raises(InvalidArgument, match=r"nobody in .*rounds has a private prefix"):
        compare([done, run(tmp_path / "rounds", private=False)])


def test_runs_of_other_columns_do_not_compare_and_folders_are_told_apart(done: Path, tmp_path: Path) -> None:
    """Losses of the same users on other texts would be paired."""
    copies = [tmp_path / name / "run" for name in "ab"]
    for copy in copies:
        shutil.copytree(done, copy)
    assert compare(copies).names == [str(copy) for copy in copies]
    for name, value in (("split", "test"), ("subset", "x"), ("user-column", "y"), ("time-column", "z")):
        lines = (done / "metrics.jsonl").read_text().splitlines()
        first = json.loads(lines[0])
        first["settings"][name] = value
        (copies[1] / "metrics.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]))
        with pytest.raises(InvalidArgument, match="in different ways"):
            compare(copies)


@pytest.mark.slow
def test_more_arms(done: Path, tmp_path: Path) -> None:
    """Each is a number for everybody, and leaves the base and the other arms as they were."""
    everything = read_summary(
        run(tmp_path, arms="context,retrieved,lora,full", retrieved_texts=2, lora_rank=1)
    )
    assert everything.arms == ["none", "context", "retrieved", "shared", "others", "lora", "full", "private"]
    before = read_summary(done)
    for theirs, ours in zip(everything.users, before.users, strict=True):
        assert {arm: theirs[arm] for arm in ("none", "shared", "private")} == {
            arm: ours[arm] for arm in ("none", "shared", "private")
        }
    assert everything.gain("lora", "none").mean > 0
    assert everything.gain("full", "none").mean > 0


def test_the_nearest_texts_are_found() -> None:
    texts = [Example("about roofs", "roof tiles"), Example("about ships", "sea ships"), Example("x", "y z")]
    assert nearest("the ships of the sea", texts, 1) == [texts[1]]
    assert nearest("a roof by the sea", texts, 2)[-1] in texts[:2]
    assert nearest("", texts, 2) == texts[1:]


def shared() -> Prefix:
    """Arms that train weights have no use for it."""
    return neutral_prefix(tiny_models.base("llama"), 8)


def test_finetuning_is_plain_training() -> None:
    """Losses before any step are those of `score`, and every user begins with the same weights."""
    base = tiny_models.base("llama")
    split = Split([Example("abc def", "go\n")] * 4, [Example("abc deg", "go\n"), Example("hello", "go\n")])
    settings = RunSettings.read({"full-learning-rate": 1e-12})
    losses = Full(base, settings).losses({0: split, 1: split}, shared())
    assert losses[0] == losses[1] == pytest.approx(score(base, split.held_out), rel=1e-4)


def test_finetuning_leaves_the_base_as_it_is() -> None:
    base = FrozenBase.from_model(tiny_models.model("llama"), tiny_models.tokenizer())
    split = Split([Example("abc def", "go\n")] * 4, [Example("abc deg", "go\n")])
    before = score(base, split.held_out)
    for arm in (Lora, Full):
        settings = RunSettings.read({"full-learning-rate": 0.1, "lora-learning-rate": 0.1})
        arm(base, settings).losses({0: split}, shared())
        assert score(base, split.held_out) == before


@pytest.mark.parametrize("arm", [Lora, Full])
def test_weights_are_trained_in_full_precision_on_a_bf16_base(arm: type[Lora | Full]) -> None:
    model: Any = tiny_models.model("llama").to(torch.bfloat16)  # type: ignore[arg-type]
    base = FrozenBase.from_model(model, tiny_models.tokenizer())
    split = Split([Example("abc def", "go\n")] * 4, [Example("abc def", "go\n")])
    settings = RunSettings.read({"full-learning-rate": 1e-4, "lora-learning-rate": 0.02, "private-passes": 8})
    method = arm(base, settings)
    assert {one.dtype for one in method._weights._trained} == {torch.float32}
    assert method.losses({0: split}, shared())[0] < score(base, split.held_out) - 0.01


@pytest.mark.slow
def test_a_shorter_history_is_the_same_run_on_fewer_texts(done: Path, tmp_path: Path) -> None:
    for line in read_summary(run(tmp_path / "all", histories="9", cohort_size=8)).users:
        assert line["texts"] == 9
        assert line["history"] == {"9": line["private"]}
    run(tmp_path, histories="4,2,9")
    (few, users, gain), *_ = read_summary(tmp_path).curve()
    assert (few, users) == (2, 8)
    assert gain.mean == pytest.approx(
        sum(one["shared"] - one["history"]["2"] for one in read_summary(tmp_path).users) / 8
    )


@pytest.mark.slow
def test_rates_are_chosen_without_the_texts_that_judge(tmp_path: Path) -> None:
    summary = read_summary(run(tmp_path, tune_users=3, tune_factors="1,1e-6,2"))
    (told,) = summary.tuning
    assert (told["method"], told["users"]) == ("private", 3)
    assert told["rates"] == pytest.approx([5e-9, 5e-3, 1e-2])
    assert told["rate"] == told["rates"][told["nats per token"].index(min(told["nats per token"]))]
    assert told["rate"] != told["rates"][0]
    assert inner_split(Split([*map(Example, "abcdefgh")], [Example("z")])) == Split(
        [*map(Example, "abcdef")], [*map(Example, "gh")]
    )
    by_hand = read_summary(run(tmp_path / "by-hand", private_learning_rate=told["rate"]))
    assert [line["private"] for line in summary.users] == [line["private"] for line in by_hand.users]


def test_texts_are_written_and_compared(tmp_path: Path) -> None:
    data = tmp_path / "echo.jsonl"
    rows = [
        {"user": user, "prompt": f"say {user} {at}", "text": f"{user} number {at}"}
        for at in range(12)
        for user in "ab"
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = read_summary(run(tmp_path / "run", data=str(data), generate=2, generate_tokens=4))
    assert [row[0] for row in summary.written_rows()] == list(MEASURES)
    assert all(set(line["written"]) == {"none", "shared", "private"} for line in summary.users)
    assert agreement([("a b  c d e", "a b c d e")]) == pytest.approx(
        {"exact match": 1, "BLEU": 100, "ROUGE-L": 1}
    )
    half = agreement([("one two", "one two"), ("x", "the keeper went home")])
    assert half["exact match"] == half["ROUGE-L"] == 0.5
    assert 0 < half["BLEU"] < 100


def test_a_device_would_send_what_is_told(done: Path) -> None:
    told = read_summary(done).traffic
    shared = done / "rounds/00002/shared.safetensors"
    assert told["down in a round"] == shared.stat().st_size
    with RecordVault(done, 8) as keeping:
        assert told["up for a private prefix"] == len(keeping.record(0))
    round = Round.model_construct(
        tenant="00" * 16, id="00" * 16, release="00" * 32, key=RoundKey().public.hex()
    )
    numbers = Prefix.from_bytes(shared.read_bytes()).values.numpy()
    sealed = Update(numbers, 3).sealed(round, 1, DeviceKeys(bytes(64)))
    assert told["up in a round"] == len(sealed)
