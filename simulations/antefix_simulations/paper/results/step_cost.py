"""Time and memory of a step of each method, and how fast a base writes under long prefixes."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import psutil
import torch

from antefix import (
    Example,
    FrozenBase,
    GenerationRequest,
    Prefix,
    PrefixSpec,
    TrainingPlan,
    generate,
    score,
    train,
)
from antefix.data.tokenization import encode
from antefix.errors import OutOfMemory
from antefix_simulations.arms.weights import Schedule
from antefix_simulations.common.machine import wait
from antefix_simulations.common.memory import poll
from antefix_simulations.paper.results.table import Table
from antefix_simulations.paper.weights import KINDS

__all__ = ["StepCostBench", "steps_table", "writing_table"]

_FEW, _MORE = 3, 9
_LENGTH = 10
_MLP_WIDTH = 512
_ROWS, _TOKENS = 16, 32
_EVERY_S = 0.01
_LENGTHS = (0, 1, 10, 50, 100, 200, 300)
_PREFIXES = {"prefix": None, "prefix, MLP": _MLP_WIDTH}


@dataclass(frozen=True)
class StepCostBench:
    """What is measured.

    Attributes:
        base, device, dtype: as for `FrozenBase.load`.
        batch_size: texts of a step.
        repetitions: the median counts.
        methods: whose steps.
    """

    base: str
    device: str = "cpu"
    dtype: str = "fp32"
    batch_size: int = 5
    repetitions: int = 3
    methods: tuple[str, ...] = (*_PREFIXES, *KINDS)


def steps_table(bench: StepCostBench, texts: Sequence[Example], say: Callable[[str], None]) -> Table:
    """A step of each method, each in a process of its own, so that its memory is its own.

    The time of a step is what more steps take over fewer, so that start and end do not count.
    """
    table = Table(
        "A step of training (section 5.3 and appendix)", ["", "ms", "min … max", "MiB beside the base"]
    )
    for name in bench.methods:
        say(f"steps: {name}")
        spawning = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(1, mp_context=spawning) as alone:
                times, memory = alone.submit(_measure, bench, name, list(texts)).result()
        except (BrokenProcessPool, torch.OutOfMemoryError, OutOfMemory) as error:
            ended = isinstance(error, BrokenProcessPool)
            table.rows.append([name, "-", "-", "-"])
            table.notes.append(
                f"{name}: {'its process was ended, for memory perhaps' if ended else 'no memory'}."
            )
            continue
        between = f"{1000 * min(times):,.0f} … {1000 * max(times):,.0f}"
        table.rows.append([name, f"{1000 * median(times):,.0f}", between, f"{memory:,.0f}"])
    table.notes.append(
        f"{bench.batch_size} texts a step, {bench.dtype} on {bench.device}, median of {bench.repetitions}. "
        "Paper: 0.2 hours an epoch where fine-tuning takes 0.3, and about a third of its memory."
    )
    return table


def writing_table(base: FrozenBase, repetitions: int) -> Table:
    """Tokens a second under prefixes of growing length."""
    table = Table(
        "Writing under longer prefixes (section 7.1)", ["positions", "tokens/s", "min … max", "of none"]
    )
    seen = base.context or max(_LENGTHS) + 2 * _TOKENS
    rates = {length: [0.0] * repetitions for length in _LENGTHS if length + 2 * _TOKENS <= seen}
    for number in range(-1, repetitions):  # the first one warms up
        for length in rates:
            rate = _write_speed(base, length)
            if number >= 0:
                rates[length][number] = rate
    for length, rates_of_length in rates.items():
        share = median(rates_of_length) / median(rates[0])
        between = f"{min(rates_of_length):,.1f} … {max(rates_of_length):,.1f}"
        table.rows.append([str(length), f"{median(rates_of_length):,.1f}", between, f"{share:.2f}"])
    table.notes.append(
        f"{_ROWS} rows of {_TOKENS} new tokens, each under a prefix of its own, in "
        f"{str(base.dtype).removeprefix('torch.')}; median of {repetitions}, in turn. "
        "Paper: even 300 positions hardly cost time."
    )
    return table


def _measure(bench: StepCostBench, name: str, texts: Sequence[Example]) -> tuple[list[float], float]:
    """Seconds of a step, each repetition; most MiB beside the loaded base, a copy of it included."""
    base = FrozenBase.load(bench.base, device=bench.device, dtype=bench.dtype, progress=False)
    score(base, list(texts))  # all its weights are in memory then, and count as the base's
    with _growth(base) as grown:
        steps = _stepping(base, bench, name, texts)
        steps(1)
        times = []
        for _ in range(bench.repetitions):
            few, more = _time(base, steps, _FEW), _time(base, steps, _MORE)
            times.append((more - few) / (_MORE - _FEW))
    return times, grown[0]


def _stepping(
    base: FrozenBase, bench: StepCostBench, name: str, texts: Sequence[Example]
) -> Callable[[int], object]:
    """Does so many steps."""
    if name in _PREFIXES:
        spec = PrefixSpec(length=_LENGTH, mlp_width=_PREFIXES[name])
        return lambda count: train(
            base,
            {"task": texts},
            spec,
            TrainingPlan(max_steps=count, batch_size=bench.batch_size, evaluate=False, batching="per-user"),
            progress=False,
        )
    weights, rows = KINDS[name](base, 0), [encode(base, text, None) for text in texts]
    return lambda count: weights.train(rows, Schedule(count, bench.batch_size, 1e-5, 0))


def _time(base: FrozenBase, steps: Callable[[int], object], count: int) -> float:
    wait(base)
    begun = time.perf_counter()
    steps(count)
    wait(base)
    return time.perf_counter() - begun


@contextmanager
def _growth(base: FrozenBase) -> Iterator[list[float]]:
    """The most MiB that the block has beside what was there; without a GPU looked at as it runs."""
    grown = [0.0]
    if base.device.type == "cuda":
        memory_before = torch.cuda.memory_allocated(base.device)
        torch.cuda.reset_peak_memory_stats(base.device)
        yield grown
        grown[0] = (torch.cuda.max_memory_allocated(base.device) - memory_before) / 2**20
        return
    own = psutil.Process()
    memory_before = own.memory_info().rss

    def look() -> None:
        grown[0] = max(grown[0], (own.memory_info().rss - memory_before) / 2**20)

    with poll(look, _EVERY_S):
        yield grown


def _write_speed(base: FrozenBase, length: int) -> float:
    """Tokens a second, reading of prompts included."""
    dice = torch.Generator().manual_seed(length)
    prefixes: list[Prefix | None] = [
        Prefix(0.1 * torch.randn(base.layout.size(length), generator=dice), base.layout, base.fingerprint)
        for _ in range(_ROWS if length else 0)
    ] or [None] * _ROWS
    requests = [
        GenerationRequest(
            prompt="The roof of the house", prefix=prefix, max_new_tokens=_TOKENS, ignore_eos=True
        )
        for prefix in prefixes
    ]
    wait(base)
    begun = time.perf_counter()
    generate(base, requests)
    wait(base)
    return _ROWS * _TOKENS / (time.perf_counter() - begun)
