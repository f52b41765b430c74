"""The server's side of simulated rounds: whom to ask, and what becomes of the shared prefix.

OUT/rounds/00003/shared.safetensors   after round 3; 0 is the start
OUT/rounds/00003/rule.npz             what the rule remembers
OUT/rounds/00003/facts.json           what is told of the round
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from antefix import FrozenBase, Prefix
from antefix.common.files import atomic_write
from antefix.errors import AntefixError, InvalidArgument
from antefix.training.neutral_prefix import neutral_prefix
from antefix_server.rounds.aggregation import UpdateAggregator
from antefix_server.rounds.shared_prefix import SharedVector
from antefix_simulations.run.folder import damaged_file
from antefix_simulations.run.task import Result
from antefix_simulations.settings import RunSettings

__all__ = ["SimulatedServer"]


class SimulatedServer:
    """The shared prefix of a run, round by round; a round is on disk whole or not at all."""

    def __init__(self, folder: Path, settings: RunSettings) -> None:
        """Go on where the folder is."""
        self._folder, self._settings = folder, settings
        logging.getLogger("flwr").setLevel(logging.WARNING)  # else two lines for each round
        self.number = -1
        while (self._place(self.number + 1) / "facts.json").is_file():
            self.number += 1

    def begin(self, base: FrozenBase) -> None:
        """Round 0: neutral words."""
        if self.number < 0:
            self._keep(0, neutral_prefix(base, self._settings.length).to_bytes(), {}, {"round": 0})

    @property
    def shared(self) -> bytes:
        """The file of the newest shared prefix."""
        path = self._place(self.number) / "shared.safetensors"
        content = path.read_bytes()
        try:
            Prefix.from_bytes(content)
        except AntefixError:
            raise _lost(path) from None
        return content

    def facts(self, number: int) -> dict[str, Any]:
        """What was told of a round."""
        path = self._place(number) / "facts.json"
        try:
            facts: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except ValueError:
            raise damaged_file(path) from None
        return facts

    def asked(self, users: Sequence[int]) -> list[int]:
        """Who is asked in the next round, in order."""
        config, dice = self._settings, random.Random(f"{self._settings.seed} {self.number + 1}")
        fraction = config.fraction_train
        if config.is_poisson:
            return [user for user in users if dice.random() < fraction]
        return sorted(dice.sample(list(users), max(1, round(fraction * len(users)))))

    def take(self, results: Sequence[Result], users: int) -> None:
        """End the next round.

        Args:
            results: of all its cohorts, in their order.
            users: that there are, asked or not.
        """
        number, config = self.number + 1, self._settings
        vector = SharedVector.of(self.shared)
        size, state = config.projection_dim or len(vector.values), self._remembered()
        seed = hashlib.sha256(vector.values.tobytes()).digest()
        asked = config.fraction_train * users
        expected = asked if config.is_poisson else float(max(1, round(asked)))
        adding = UpdateAggregator(config, expected, size, seed, vector, True, self._noise(number))
        for result in results:
            if result.sum is not None:
                adding.add_sum(result.sum, result.weight)
        norms = [line["norm"] for result in results for line in result.facts if "norm" in line]
        failed = sum("failed" in line for result in results for line in result.facts)
        facts: dict[str, Any] = {"round": number, "users": len(norms), "failed": failed}
        if len(norms) >= config.min_users:
            state, values = config.rule.apply(state, number, vector.values, adding.updated())
            content = vector.with_values(values)
            facts["median norm"] = float(np.median(norms))
            facts["clipped"] = sum(norm > config.clip for norm in norms) / len(norms)
        else:
            content, facts["released"] = self.shared, False
        if config.privacy is not None:
            facts["epsilon"] = config.privacy.epsilon(number)
        self._keep(number, content, state, facts)

    def _noise(self, number: int) -> Any:
        """To be repeated, and so no protection: nobody is to be protected here."""
        generator = np.random.default_rng([self._settings.seed, number])
        return lambda count, deviation: generator.normal(0.0, deviation, count)

    def _remembered(self) -> dict[str, NDArray[np.float64]]:
        path = self._place(self.number) / "rule.npz"
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                return {name.replace("|", "/"): arrays[name] for name in arrays.files}
        except (ValueError, EOFError, BadZipFile):
            raise _lost(path) from None

    def _keep(self, number: int, shared: bytes, rule: dict[str, Any], facts: dict[str, Any]) -> None:
        """The facts come last: by them a round is known to be whole."""
        place, buffer = self._place(number), io.BytesIO()
        np.savez(
            buffer, allow_pickle=False, **{name.replace("/", "|"): array for name, array in rule.items()}
        )
        atomic_write(place / "shared.safetensors", shared)
        atomic_write(place / "rule.npz", buffer.getvalue())
        atomic_write(place / "facts.json", json.dumps(facts).encode())
        self.number = number

    def _place(self, number: int) -> Path:
        return self._folder / f"{number:05}"


def _lost(path: Path) -> InvalidArgument:
    """What a round left cannot be made again without the rounds before it."""
    return InvalidArgument(f"{path} is damaged", "choose another --out")
