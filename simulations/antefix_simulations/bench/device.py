"""Measures a personal model on this device: how long learning takes, what it brings, what opening costs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from antefix import Example, FrozenBase, score
from antefix.common.table import align
from antefix_client import PersonalModel
from antefix_simulations.arms.context_prefix import fit_examples

_KEY = bytes(range(32))
_OPEN = """
import sys, time
from antefix_client import PersonalModel
began = time.perf_counter()
model = PersonalModel.open(sys.argv[1], unlock=bytes(range(32)))
print(time.perf_counter() - began)
print(int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) / 1024)
"""
_FIRST_TOKEN = """
import sys, time
import antefix.model.frozen_base, antefix.generation.torch_engine
from antefix_client import PersonalModel
began = time.perf_counter()
model = PersonalModel.open(sys.argv[1], unlock=bytes(range(32)))
next(iter(model.stream("The", max_new_tokens=1)), None)
print(time.perf_counter() - began)
"""
_LOAD = """
import sys, time
import antefix.model.frozen_base, antefix.generation.torch_engine
began = time.perf_counter()
antefix.model.frozen_base.FrozenBase.load(sys.argv[1])
print(time.perf_counter() - began)
"""


def bench_device(
    base: FrozenBase, training: Sequence[Example], held_out: Sequence[Example], repetitions: int
) -> dict[str, Any]:
    """Learn from one user's texts, judge on later ones, and open the profile; a report for JSON.

    Args:
        base: the base, by a name that loads it again.
        training: what the profile remembers.
        held_out: later texts, which nothing has seen.
        repetitions: of opening and loading, in turn, each in a process of its own.
    """
    with tempfile.TemporaryDirectory(prefix="antefix-bench-") as temporary:
        folder = Path(temporary) / "profile"
        with PersonalModel.create(folder, unlock=_KEY, base=base) as model:
            model.remember(training)
            report = model.learn(progress=True)
            losses = {"base alone": score(base, held_out), "own version": model.score(held_out)}
        context = fit_examples(base, training, held_out, None)
        losses[f"{context.texts} own texts in the context"] = score(base, held_out, context.prefix(base))
        opened = [_figures(_OPEN, str(folder)) for _ in range(repetitions)]
        times = [
            (_figures(_FIRST_TOKEN, str(folder))[0], _figures(_LOAD, base.name)[0])
            for _ in range(repetitions)
        ]
    first, load = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "bench": "device",
        "texts": len(training),
        "learned": {
            "kept": report.kept,
            "seconds": report.seconds,
            "steps": report.steps,
            "tokens": report.tokens,
        },
        "held_out_texts": len(held_out),
        "nats_per_token": losses,
        "open_s": statistics.median(column[0] for column in opened),
        "idle_mb": statistics.median(column[1] for column in opened),
        "first_token_s": first,
        "base_load_s": load,
    }


def device_table(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    learned = report["learned"]
    rows = [
        [
            "learning from",
            f"{report['texts']} texts",
            f"{learned['seconds']:.1f} s, {learned['steps']} steps",
        ],
        ["opened without a base", "memory", f"{report['idle_mb']:.0f} MB"],
        ["opening", "profile", f"{report['open_s'] * 1e3:.0f} ms"],
        ["first token", "profile and base", f"{report['first_token_s']:.2f} s"],
        ["", "base alone, loaded", f"{report['base_load_s']:.2f} s"],
        ["", "ratio", f"{report['first_token_s'] / report['base_load_s']:.2f}"],
    ]
    rows += [
        [f"nats per token, {report['held_out_texts']} later texts" if not n else "", name, f"{loss:.3f}"]
        for n, (name, loss) in enumerate(report["nats_per_token"].items())
    ]
    return "\n".join(["bench device", "", *align(rows, left=2)])


def _figures(program: str, argument: str) -> list[float]:
    """What a fresh process prints."""
    process = subprocess.run(
        [sys.executable, "-c", program, argument], capture_output=True, text=True, check=True
    )
    return [float(line) for line in process.stdout.split()]
