"""One command for a GPU: are its numbers those of the CPU, does it keep users apart, and how fast is it?

Weights and texts are random, so that nothing has to be brought along; none of the figures depend on them.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from antefix import Example, FrozenBase, GenerationRequest, Prefix, PrefixSpec, TrainingPlan, generate, train
from antefix.common.table import align
from antefix.data.tokenization import encode
from antefix.training.bucketing import Buckets
from antefix.training.micro_batch import MicroBatchResult, forward_backward
from antefix_simulations.bench.random_base import random_base
from antefix_simulations.common.machine import describe, wait

__all__ = ["bench_gpu", "gpu_table"]

_LENGTH, _LETTERS = 16, (24, 96)
_SPEC = PrefixSpec(length=_LENGTH, start="zeros")
FP32, BF16 = 1e-4, 0.05
"""Largest relative differences from the CPU in fp32: of gradients of the same weights in fp32, in bf16."""


def bench_gpu(
    shapes: Sequence[str], device: str, users: int, new_tokens: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Checks on the first shape, then the speed of each; a report for JSON.

    Args:
        shapes: of `_random_base.SHAPES`; the first in fp32 and bf16, all are timed in bf16.
        device: `cuda`, say.
        users: that train and generate together.
        new_tokens: of each generated text.
        say: progress.
    """
    say(f"checking {shapes[0]} against the CPU")
    checks = _checks(shapes[0], device)
    rows, machine = [], dict[str, Any]()
    for shape in shapes:
        say(f"timing {shape}, {users} users")
        base = random_base(shape, device=device, dtype=torch.bfloat16)
        machine = describe(base)
        rows.append({"shape": shape, **_speed(base, users, new_tokens)})
        del base
    return {"bench": "gpu", "machine": machine, "checks": checks, "users": users, "speed": rows}


def gpu_table(report: Mapping[str, Any]) -> str:
    """The report for a terminal."""
    names = [f"{name} {report['machine'][name]}" for name in ("processor", "torch", "transformers")]
    checks = [
        [name, check["value"], check["wanted"], "ok" if check["ok"] else "FAILED"]
        for name, check in report["checks"].items()
    ]
    head = ["shape", "training tokens/s", "users/s", "new tokens/s", "without prefixes", "peak GB"]
    speed = [
        [
            row["shape"],
            f"{row['training_tokens_per_s']:,.0f}",
            f"{row['users_per_s']:.2f}",
            f"{row['new_tokens_per_s']:,.0f}",
            f"{row['new_tokens_per_s_without']:,.0f}",
            f"{row['peak_gb']:.2f}",
        ]
        for row in report["speed"]
    ]
    conditions = f"{report['users']} users, bf16, prefixes of {_LENGTH}"
    return "\n".join(
        [", ".join(names), "", *align(checks, left=4), "", conditions, "", *align([head, *speed], left=1)]
    )


def _checks(shape: str, device: str) -> dict[str, dict[str, Any]]:
    """What must hold before any speed counts."""
    there = random_base(shape, device=device, dtype=torch.float32)
    here = FrozenBase.from_model(_copy(there, "cpu", torch.float32), there.tokenizer, name=there.name)
    reference = _gradients(here)
    fp32 = _distance(_gradients(there), reference)
    apart = _apart(there)
    del there
    low = FrozenBase.from_model(_copy(here, device, torch.bfloat16), here.tokenizer, name=here.name)
    bf16 = _distance(_gradients(low), reference)
    return {
        "fp32, gradients against the CPU": _below(fp32, FP32),
        "bf16, gradients against the CPU in fp32": _below(bf16, BF16),
        "fp32, a user's prefix alone and among 15": {"value": "bits", "wanted": "equal", "ok": apart},
        "bf16, a user's prefix alone and among 15": {"value": "bits", "wanted": "equal", "ok": _apart(low)},
    }


def _copy(base: FrozenBase, device: str, dtype: torch.dtype) -> Any:
    model: Any = copy.deepcopy(base.model)
    return model.to(device, dtype)


def _below(value: float, limit: float) -> dict[str, Any]:
    return {"value": f"{value:.1e}", "wanted": f"≤ {limit:.0e}", "ok": value <= limit}


def _gradients(base: FrozenBase) -> MicroBatchResult:
    """Of eight rows, each under a prefix of its own."""
    rows = [encode(base, text, None) for text in _texts(random.Random(1), 8)]
    dice = torch.Generator().manual_seed(2)
    prefixes = torch.randn(len(rows), base.layout.size(_LENGTH), generator=dice) * 0.3
    shape = Buckets.of(base, 1024).bucket_for(rows[0])
    return forward_backward(base, shape, rows, prefixes, [1.0] * len(rows))


def _distance(ours: MicroBatchResult, reference: MicroBatchResult) -> float:
    if ours.gradients is None or reference.gradients is None:
        raise RuntimeError("weights were given, so gradients come")
    return float((ours.gradients.cpu() - reference.gradients).norm() / reference.gradients.norm())


def _apart(base: FrozenBase) -> bool:
    """One user's prefix has the same bits whoever trains beside it."""
    dice = random.Random(3)
    plan = TrainingPlan(max_steps=3, evaluate=False)
    everybody = {f"user {n}": _texts(dice, 8 + n) for n in range(16)}
    among = train(base, everybody, _SPEC, plan, progress=False)["user 7"]
    alone = train(base, {"user 7": everybody["user 7"]}, _SPEC, plan, progress=False)["user 7"]
    return torch.equal(alone.prefix.values, among.prefix.values)


def _speed(base: FrozenBase, users: int, new_tokens: int) -> dict[str, float]:
    """After one round of everything for warmth."""
    dice = random.Random(4)
    texts = {f"user {n}": _texts(dice, 16) for n in range(users)}
    plan = TrainingPlan(passes=1, evaluate=False)
    few_texts = dict(list(texts.items())[:4])
    trained = train(base, few_texts, _SPEC, plan, progress=False)
    if base.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(base.device)
    seconds, trained = _time(base, partial(train, base, texts, _SPEC, plan, progress=False))
    prefixes = [result.prefix for result in trained.values()]
    speeds = {
        "training_tokens_per_s": sum(result.tokens for result in trained.values()) / seconds,
        "users_per_s": users / seconds,
    }
    for name, under in (("new_tokens_per_s", prefixes), ("new_tokens_per_s_without", [None] * users)):
        _generate_all(base, under[:4], 2)
        seconds_taken, tokens = _time(base, partial(_generate_all, base, under, new_tokens))
        speeds[name] = tokens / seconds_taken
    peak = torch.cuda.max_memory_allocated(base.device) if base.device.type == "cuda" else 0
    return {**speeds, "peak_gb": peak / 1e9}


def _generate_all(base: FrozenBase, prefixes: Sequence[Prefix | None], new_tokens: int) -> int:
    requests = [
        GenerationRequest(prompt="a text that goes on", prefix=prefix, max_new_tokens=new_tokens)
        for prefix in prefixes
    ]
    return sum(len(answer.tokens) for answer in generate(base, requests, max_rows=max(1, len(requests))))


def _time(base: FrozenBase, work: Callable[[], Any]) -> tuple[float, Any]:
    wait(base)
    began = time.perf_counter()
    result = work()
    wait(base)
    return time.perf_counter() - began, result


def _texts(dice: random.Random, count: int) -> list[Example]:
    return [
        Example("".join(dice.choices("abcdefghij klmno", k=dice.randrange(*_LETTERS)))) for _ in range(count)
    ]
