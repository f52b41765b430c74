"""Every arm of the benches runs on a tiny base and does the same work."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from antefix import Example, FrozenBase, GenerationRequest, generate
from antefix.data.tokenization import encode, prompt_tokens
from antefix.errors import ExampleError, InvalidArgument
from antefix_simulations.arms.peft import PeftLora, PeftPrefixes, PeftTraining, own_copy
from antefix_simulations.bench import gpu
from antefix_simulations.bench.gpu import bench_gpu, gpu_table
from antefix_simulations.bench.harness import BenchReport, Measured
from antefix_simulations.bench.serve import ServeBench, _prefix, bench_serve
from antefix_simulations.bench.table import table
from antefix_simulations.bench.train import TrainBench, bench_train
from antefix_simulations.cli import bench
from antefix_simulations.common.machine import matrix_rate, step_operations
from tests.client.people import tiny_folder
from tests.support import tiny_models

pytestmark = pytest.mark.slow

USERS = {
    "al.x": [
        Example("the roof is red", "Say: roof\n"),
        Example("a tile fell"),
        Example("mend it soon, please"),
    ],
    "bo": [
        Example("tiles!", "Say: tile\n"),
        Example("all good here"),
        Example("ok", "A longer prompt here\n"),
    ],
    "cy": [Example("one"), Example("two"), Example("three words now", "x\n")],
}
NEW_TOKENS = 6


def tokens_of(base: FrozenBase) -> int:
    return sum(encode(base, text, None).tokens for texts in USERS.values() for text in texts)


def positive(report: BenchReport, *arms: str) -> None:
    assert tuple(report.arms) == arms
    assert all(arm.rate > 0 for arm in report.arms.values())
    assert all(ratio > 0 for ratio in report.ratios.values())
    assert tuple(report.ratios) == arms[1:]


def test_every_training_arm_computes_the_same_real_tokens() -> None:
    base = tiny_models.base("llama")
    settings = TrainBench(length=4, batch_size=2, repetitions=2)
    report = bench_train(base, USERS, settings, progress=False)
    positive(report, "ours", "peft", "one_user")
    assert {arm.tokens for arm in report.arms.values()} == {tokens_of(base)}
    assert all(len(arm.seconds) == 2 for arm in report.arms.values())
    assert report.settings["users"] == 3
    assert report.settings["base"] == "tiny-llama"
    assert f"Antefix reaches {report.facts['ours_of_limit']:.0%} of that." in report.conclusion


def test_passes_multiply_the_tokens() -> None:
    base = tiny_models.base("llama")
    report = bench_train(base, USERS, TrainBench(length=4, passes=2, repetitions=1), progress=False)
    assert {arm.tokens for arm in report.arms.values()} == {2 * tokens_of(base)}


def test_every_serving_arm_makes_the_same_number_of_tokens() -> None:
    settings = ServeBench(length=4, new_tokens=NEW_TOKENS, repetitions=1)
    report = bench_serve(tiny_models.base("llama"), USERS, settings, progress=False)
    positive(report, "ours", "peft", "peft_lora", "one_user", "shared_prefix")
    assert {arm.tokens for arm in report.arms.values()} == {3 * NEW_TOKENS}


@pytest.mark.slow
def test_a_gateway_makes_the_same_number_of_tokens(tmp_path: Path) -> None:
    base = FrozenBase.load(str(tiny_folder(tmp_path / "base")), progress=False)
    settings = ServeBench(length=4, new_tokens=NEW_TOKENS, repetitions=1, served=True)
    report = bench_serve(base, USERS, settings, progress=False)
    assert tuple(report.arms)[-2:] == ("served", "served_base")
    assert {arm.tokens for arm in report.arms.values()} == {3 * NEW_TOKENS}
    assert "a gateway over TLS" in table(report)


def test_a_lora_adapter_is_about_as_large_as_a_prefix() -> None:
    base = tiny_models.base("llama")
    report = bench_serve(base, USERS, ServeBench(length=16, new_tokens=1, repetitions=1), progress=False)
    assert report.facts["prefix_bytes"] == 16 * 2 * 2 * 2 * 16 * 4
    assert "A prefix has 8,192 bytes, a LoRA adapter of rank" in report.conclusion
    assert 0.8 < report.facts["lora_bytes"] / report.facts["prefix_bytes"] < 1.25


def test_peft_and_ours_generate_the_same_tokens_for_the_same_prefixes() -> None:
    base = tiny_models.base("llama")
    prefixes = {user: _prefix(base, texts, 5) for user, texts in USERS.items()}
    theirs = PeftPrefixes(base, prefixes)
    for user, texts in USERS.items():
        request = GenerationRequest(
            prompt=texts[0].prompt, prefix=prefixes[user], max_new_tokens=NEW_TOKENS, ignore_eos=True
        )
        ours = generate(base, [request])[0].tokens
        assert list(ours) == theirs.generate(user, prompt_tokens(base, texts[0].prompt), NEW_TOKENS)


def test_each_row_of_the_lora_batch_has_its_own_adapter() -> None:
    base = tiny_models.base("llama")
    lora = PeftLora(base, ["al", "bo"], base.layout.size(16))
    prompt = prompt_tokens(base, "Say: roof\n")
    alone = [lora.generate([user], [prompt], NEW_TOKENS)[0] for user in ("al", "bo")]
    assert alone[0] != alone[1]
    assert lora.generate(["al", "bo"], [prompt, prompt], NEW_TOKENS) == alone


def test_peft_training_learns() -> None:
    base = tiny_models.base("llama")
    rows = [encode(base, Example("the roof is red", "Say: roof\n"), None)]
    peer = PeftTraining(base, 4)
    assert peer.train(rows, passes=30, batch_size=1) < peer.train(rows, passes=1, batch_size=1)


def test_a_peer_shares_the_weights_and_leaves_the_base_as_it_is() -> None:
    base = tiny_models.base("llama")
    copy = own_copy(base)
    assert {id(p) for p in copy.parameters()} == {id(p) for p in base.model.parameters()}
    assert copy.config._attn_implementation == "sdpa"
    assert base.model.config._attn_implementation == "antefix"


def test_encoder_decoders_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="encoder-decoder"):
        bench_train(tiny_models.base("t5"), USERS, progress=False)
    with pytest.raises(InvalidArgument, match="encoder-decoder"):
        bench_serve(tiny_models.base("t5"), USERS, progress=False)


@pytest.mark.parametrize("users", [{}, {"al": []}])
def test_a_bench_without_texts_is_refused(users: dict[str, list[Example]]) -> None:
    with pytest.raises(ExampleError, match="0 of"):
        bench_train(tiny_models.base("llama"), users, progress=False)
    with pytest.raises(ExampleError, match="0 of"):
        bench_serve(tiny_models.base("llama"), users, progress=False)


def test_a_report_compares_medians() -> None:
    arms = {"ours": Measured(100, (1.0, 2.0, 4.0)), "peft": Measured(100, (10.0, 5.0, 20.0))}
    facts = {"matrix_gflops": 80.0, "limit_tokens_per_s": 200.0, "ours_of_limit": 0.25}
    report = BenchReport("train", {**MACHINE}, {"users": 2}, arms, facts, "25% of the limit")
    plain = json.loads(json.dumps(report.as_json()))
    assert plain["tokens_per_s"] == {"ours": 50.0, "peft": 10.0}
    assert plain["ratios"] == {"peft": 5.0}
    assert plain["arms"]["ours"]["seconds"] == {"min": 1.0, "median": 2.0, "max": 4.0}
    assert "5.00 x" in table(report)
    assert table(report).endswith("25% of the limit")


MACHINE = {
    "torch": "2.13",
    "transformers": "5.23",
    "peft": "0.21",
    "device": "cpu",
    "processor": "a processor",
    "threads": 2,
    "dtype": "float32",
    "load": 0.1,
}


def test_the_limit_counts_every_weight_of_the_body_and_the_head_on_targets() -> None:
    """Llama: 64 hidden, 96 in the MLP, 2 layers, 4 query heads and 2 key/value heads of 16."""
    base = tiny_models.base("llama")
    body = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96)
    assert step_operations(base, tokens=10, targets=3) == 4 * (
        body * 10 + len(tiny_models.tokenizer()) * 64 * 3
    )
    assert matrix_rate(base) > 0


@pytest.mark.parametrize(
    ("command", "ratios"),
    [
        (["train", "--rows", "2", "--batch-size", "2"], {"peft", "one_user"}),
        (["serve", "--new-tokens", "2"], {"peft", "peft_lora", "one_user", "shared_prefix"}),
    ],
)
def test_the_command_prints_json_on_stdout_and_progress_on_stderr(
    command: list[str], ratios: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FrozenBase, "load", lambda *_, **__: tiny_models.base("llama"))
    app = typer.Typer()
    bench.register(app)
    app.command("other")(lambda: None)
    options = ["--users", "2", "--length", "4", "--repetitions", "1", "--json"]
    result = CliRunner().invoke(app, ["bench", *command, *options], catch_exceptions=False)
    printed: dict[str, Any] = json.loads(result.stdout)
    assert set(printed["ratios"]) == ratios
    assert printed["settings"]["users"] == 2
    assert printed["machine"]["threads"] == 1
    assert "run" in result.stderr


@pytest.mark.slow
def test_the_bench_of_a_gpu_checks_before_it_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, which is a device like any other."""
    said: list[str] = []
    report = bench_gpu(["tiny"], "cpu", 3, 2, said.append)
    assert [check["ok"] for check in report["checks"].values()] == [True] * 4
    assert report["speed"][0]["users_per_s"] > 0
    assert "tiny" in gpu_table(report)
    assert len(said) == 2
    monkeypatch.setattr(gpu, "BF16", 1e-9)
    checks = bench_gpu(["tiny"], "cpu", 1, 1, said.append)["checks"]
    assert [name[:4] for name, check in checks.items() if not check["ok"]] == ["bf16"]
    with pytest.raises(InvalidArgument, match="no shape 'x'"):
        bench_gpu(["x"], "cpu", 1, 1, said.append)
