"""A user's round with PEFT's prefix tuning, on a base that stays loaded in its process."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from antefix import FrozenBase
from antefix.data.tokenization import Row, encode
from antefix_simulations.arms.peft import PeftTraining
from antefix_simulations.data.store import Population
from antefix_simulations.data.user_texts import cut_prompts

__all__ = ["PeftUsers"]

BATCH = 4
_PROMPT_TOKENS, _TEXT_TOKENS = 64, 256


class PeftUsers:
    """Users of a population, trained with PEFT."""

    def __init__(self, population: str, base: str, dtype: str, length: int, steps: int) -> None:
        """Load the base."""
        self._population, self._steps = Population(Path(population)), steps
        self._base = FrozenBase.load(base, dtype=dtype, progress=False)
        self._peer = PeftTraining(self._base, length)

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> PeftUsers:
        """Those of a run's settings; loaded once in a process."""
        words = [str(config[name]) for name in ("population", "base", "dtype", "length", "steps")]
        return _load(*words)

    @property
    def start(self) -> NDArray[np.float32]:
        """Where a round begins."""
        return self._peer.values

    @property
    def count(self) -> int:
        """Users."""
        return self._population.count

    def train(self, user: int, shared: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
        """The shared prefix after this user's steps, and how many texts it has."""
        texts = self._population.splits([user])[user].training
        cut = cut_prompts(texts, self._base.tokenizer, _PROMPT_TOKENS)  # as a run does
        rows = [row for row in (encode(self._base, text, None) for text in cut) if row.tokens <= _TEXT_TOKENS]
        self._peer.begin(shared)
        self._peer.steps(_for_steps(rows, self._steps * BATCH), BATCH)
        return self._peer.values, len(rows)


@functools.lru_cache(maxsize=1)
def _load(population: str, base: str, dtype: str, length: str, steps: str) -> PeftUsers:
    return PeftUsers(population, base, dtype, int(length), int(steps))


def _for_steps(rows: Sequence[Row], count: int) -> list[Row]:
    return [rows[at % len(rows)] for at in range(count)]
