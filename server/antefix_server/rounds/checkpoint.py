"""What a run of rounds needs to go on after a crash, and what rounds have spent of their users' privacy.

    DATA/rounds/state.safetensors    the shared prefix and the rule's memory after the last round that is done
    DATA/rounds/spent.json           privacy that was spent, by every run over these users

Written before the release: a round that is in here and was not released yet is released with the next start,
so that no round counts twice, and none that was spent is forgotten. Round keys are never here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from antefix.common.file_lock import hold_lock
from antefix.common.files import atomic_write
from antefix_server.errors import VaultBusy, VaultDamaged
from antefix_server.rounds.config import RoundConfig
from antefix_server.rounds.privacy import Spent
from antefix_server.rounds.server_optimizer import ServerOptimizer, State
from antefix_server.storage.os_errors import files

_FOLDER, _STATE, _SPENT = "rounds", "state.safetensors", "spent.json"
_PREFIX = "prefix"
_FORMER = {"num_server_rounds": "rounds", "fraction_train": "fraction", "projection_dim": "projection"}
_COUNTED = (
    *_FORMER, "min_users", "clip", "steps", "learning_rate", "promote_every", "patience"
)  # fmt: skip
_TOLD_OTHERWISE = (
    "strategy", "server_learning_rate", "hostile", "sampling", "round_timeout_s", "weights",
    "noise_multiplier", "target_epsilon", "target_delta",
)  # fmt: skip


class RoundState:
    """Of one server's data and one configuration."""

    def __init__(self, data: Path, config: RoundConfig, rule: ServerOptimizer) -> None:
        """Read nothing yet."""
        self._folder, self._plan = data / _FOLDER, plan_digest(config, rule)

    @contextmanager
    def held(self) -> Iterator[None]:
        """No other run over these users meanwhile: two would spend the same privacy twice.

        Raises:
            VaultBusy: there is one.
        """
        busy = VaultBusy("another run of rounds is under way", "wait for it, or stop it")
        with ExitStack() as held:
            with files(self._folder):
                self._folder.mkdir(mode=0o700, exist_ok=True)
                held.enter_context(hold_lock(self._folder / "lock", busy))
            yield

    def save(self, number: int, started: str, prefix: bytes, rule: State) -> None:
        """Keep a round that is done.

        Args:
            number: of the round.
            started: digest of the release it started from.
            prefix: content of the next shared prefix.
            rule: what the rule remembers.

        Raises:
            VaultFull, VaultUnavailable.
        """
        arrays: dict[str, NDArray[np.generic]] = {**rule, _PREFIX: np.frombuffer(prefix, np.uint8)}
        metadata = {"plan": self._plan, "number": str(number), "started": started}
        with files(self._folder):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            atomic_write(self._folder / _STATE, save(arrays, metadata=metadata))

    def restore(self) -> tuple[int, str, bytes, State] | None:
        """What `save` was given last; None for another configuration or none.

        Raises:
            VaultDamaged: it cannot be read.
        """
        path = self._folder / _STATE
        with files(path):
            if not path.is_file():
                return None
            content = path.read_bytes()
        try:
            size = int.from_bytes(content[:8], "little")
            metadata = json.loads(content[8 : 8 + size])["__metadata__"]
            arrays = load(content)
            number, started, plan = int(metadata["number"]), metadata["started"], metadata["plan"]
            prefix = arrays.pop(_PREFIX).tobytes()
        except Exception:  # safetensors raises a class of its own
            raise VaultDamaged(f"{path} is damaged", "delete it to begin the rounds anew") from None
        if plan != self._plan:
            return None
        return number, started, prefix, arrays

    def clear(self) -> None:
        """The run is over."""
        with files(self._folder):
            (self._folder / _STATE).unlink(missing_ok=True)

    @property
    def spent(self) -> tuple[Spent, ...]:
        """By all runs so far."""
        return spent(self._folder.parent)

    def spend(self, one: Spent) -> None:
        """Count a round, before anything of it is released.

        Raises:
            VaultFull, VaultUnavailable.
        """
        previous = spent(self._folder.parent)
        if previous and _like(previous[-1], one):
            last = Spent(one.noise, one.sampling, one.fraction, previous[-1].rounds + one.rounds)
            after = (*previous[:-1], last)
        else:
            after = (*previous, one)
        with files(self._folder):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            atomic_write(self._folder / _SPENT, json.dumps([asdict(entry) for entry in after]).encode())


def spent(data: Path) -> tuple[Spent, ...]:
    """What all runs so far have spent.

    Raises:
        VaultDamaged: it cannot be read.
    """
    path = data / _FOLDER / _SPENT
    with files(path):
        if not path.is_file():
            return ()
        content = path.read_bytes()
    try:
        return tuple(Spent(**entry) for entry in json.loads(content))
    except (ValueError, TypeError):
        raise VaultDamaged(f"{path} is damaged", "put it back from a backup: it guards your users") from None


def plan_digest(config: RoundConfig, rule: ServerOptimizer) -> str:
    """Stands for what a run does: a run goes on only where it was begun with the same.

    Settings have the names here that state files were written with. One that came later counts where it is
    not at its default, so that a run which was begun before it goes on.
    """
    facts: dict[str, Any] = {_FORMER.get(name, name): getattr(config, name) for name in _COUNTED}
    facts |= {
        "poisson": config.is_poisson,
        "by_examples": config.by_examples,
        "privacy": None if config.privacy is None else asdict(config.privacy),
        "epsilon": config.target_epsilon or None,
    }
    for name, field in type(config).model_fields.items():
        if name not in (*_COUNTED, *_TOLD_OTHERWISE) and getattr(config, name) != field.default:
            facts[name] = getattr(config, name)
    return hashlib.sha256(json.dumps([rule.name, facts], sort_keys=True).encode()).hexdigest()


def _like(first: Spent, other: Spent) -> bool:
    return (first.noise, first.sampling, first.fraction) == (other.noise, other.sampling, other.fraction)
