"""Measures arms side by side in one run, and says what came out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from antefix import Example, FrozenBase
from antefix.common.progress import ProgressBar
from antefix.common.settings import Settings
from antefix.errors import ExampleError
from antefix_simulations.common.machine import wait


class BenchSettings(Settings):
    """What every bench can be asked.

    Attributes:
        length: positions of each prefix.
        repetitions: of every arm, in turn.
    """

    length: int = Field(default=16, ge=2)
    repetitions: int = Field(default=3, ge=1)


Arm = Callable[[Sequence[str]], int]
"""Does the work of some users and returns how many real tokens it computed."""


@dataclass(frozen=True)
class Measured:
    """What one arm took.

    Attributes:
        tokens: real tokens of one repetition; no padding, no dummies.
        seconds: of each repetition.
    """

    tokens: int
    seconds: tuple[float, ...]

    @property
    def rates(self) -> list[float]:
        """Tokens per second of each repetition."""
        return [self.tokens / seconds for seconds in self.seconds]

    @property
    def rate(self) -> float:
        """Median tokens per second."""
        return statistics.median(self.rates)


@dataclass(frozen=True)
class BenchReport:
    """Result of one bench.

    Attributes:
        bench: `train` or `serve`.
        machine: what it ran on.
        settings: what was asked.
        arms: by name; `ours` first.
        facts: further numbers by name.
        conclusion: what the facts say, in a sentence.
    """

    bench: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    arms: dict[str, Measured]
    facts: dict[str, float]
    conclusion: str = ""

    @property
    def ratios(self) -> dict[str, float]:
        """Our median rate over that of each other arm."""
        return {name: self.arms["ours"].rate / arm.rate for name, arm in self.arms.items() if name != "ours"}

    def as_json(self) -> dict[str, Any]:
        """The report as plain data.

        Keys:
            bench: `train` or `serve`.
            machine: torch, transformers, peft, device, processor, threads, dtype, and the system's load
                before the first repetition.
            settings: base, users, and what else was asked.
            tokens_per_s: median by arm.
            ratios: ours over theirs, by arm.
            arms: by name; tokens of one repetition, seconds and tokens_per_s with min, median and max.
            facts: of `train` the rate of matrix products, the tokens per second that it allows and our
                share of it; of `serve` the bytes of a prefix and of a LoRA adapter, and its rank.
        """
        return {
            "bench": self.bench,
            "machine": self.machine,
            "settings": self.settings,
            "tokens_per_s": {name: arm.rate for name, arm in self.arms.items()},
            "ratios": self.ratios,
            "arms": {
                name: {
                    "tokens": arm.tokens,
                    "seconds": _spread(arm.seconds),
                    "tokens_per_s": _spread(arm.rates),
                }
                for name, arm in self.arms.items()
            },
            "facts": self.facts,
        }


def compare(
    base: FrozenBase, arms: Mapping[str, Arm], users: Sequence[str], repetitions: int, progress: bool
) -> dict[str, Measured]:
    """Run all arms in turn, `repetitions` times, after a run of each that is not counted.

    Args:
        base: its device is waited for.
        arms: by name.
        users: whose work is done; the run that is not counted does that of the first two.
        repetitions: of all arms.
        progress: show a bar on stderr.
    """
    tokens: dict[str, int] = {}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    with ProgressBar(total=len(arms) * (repetitions + 1), unit="run", disable=not progress) as bar:
        for repetition in range(repetitions + 1):
            for name, arm in arms.items():
                bar.set_description(
                    f"{name}, {repetition}/{repetitions}" if repetition else f"{name}, warm-up"
                )
                started = time.perf_counter()
                computed = arm(users if repetition else users[:2])
                wait(base)
                if repetition:
                    seconds[name].append(time.perf_counter() - started)
                    tokens[name] = computed
                bar.update()
    return {name: Measured(tokens[name], tuple(seconds[name])) for name in arms}


def require_texts(users: Mapping[str, Sequence[Example]]) -> None:
    """Refuse work that is none."""
    if not users or not all(users.values()):
        raise ExampleError(
            f"a bench needs texts of every user, {sum(map(bool, users.values()))} of {len(users)} have any",
            "give at least one user, with at least one text",
        )


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}
