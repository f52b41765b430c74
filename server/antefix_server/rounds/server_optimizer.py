"""The rule of Flower's that makes the next shared prefix of the answers of a round."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    Strategy,
)
from flwr.supercore.run import Run
from numpy.typing import NDArray

from antefix.errors import InvalidArgument

MEANS: tuple[type[Strategy], ...] = (FedAvg, FedAvgM, FedProx, FedAdagrad, FedAdam, FedYogi)
"""They make of the answers their weighted mean first: they may as well get that."""
ROBUST: tuple[type[Strategy], ...] = (FedMedian, FedTrimmedAvg, Krum, MultiKrum, Bulyan)
RULES = {kind.__name__.lower(): kind for kind in (*MEANS, *ROBUST)}
_LOG = logging.getLogger("antefix.rounds")
_DICTS, _LISTS = ("m_t", "v_t"), ("momentum_vector",)


class ServerOptimizer:
    """Arithmetic alone: whom to ask is not its business."""

    def __init__(self, strategy: Strategy) -> None:
        """Take one.

        Raises:
            InvalidArgument: one that needs other answers than updates.
        """
        kind = type(strategy)
        if kind not in (*MEANS, *ROBUST):
            raise InvalidArgument(
                f"{kind.__name__} is no rule for a shared prefix", f"use one of {', '.join(RULES)}"
            )
        self.strategy, self.is_mean, self.name = strategy, kind in MEANS, kind.__name__
        # It would wait without end for nodes that nobody asked.
        for name, value in (("fraction_train", 1.0), ("min_train_nodes", 1), ("min_available_nodes", 1)):
            setattr(strategy, name, value)
        if not self.is_mean:
            _LOG.info("%s keeps all updates of a round in memory", self.name)

    def begin(self, number: int, values: NDArray[np.float32], key: str) -> None:
        """Let it see what a round starts from."""
        arrays = ArrayRecord({key: Array(values)})
        list(self.strategy.configure_train(number, arrays, ConfigRecord(), _OneNode()))

    def state(self) -> dict[str, NDArray[np.float64]]:
        """What it remembers from round to round."""
        found: dict[str, NDArray[np.float64]] = {}
        for name in _DICTS:
            found |= {f"{name}/{key}": one for key, one in (getattr(self.strategy, name, None) or {}).items()}
        for name in _LISTS:
            listed = getattr(self.strategy, name, None) or []
            found |= {f"{name}/{at}": one for at, one in enumerate(listed)}
        return found

    def forget(self) -> None:
        """Remember nothing."""
        for name in (*_DICTS, *_LISTS):
            if hasattr(self.strategy, name):
                setattr(self.strategy, name, None)

    def restore(self, state: dict[str, NDArray[np.float64]]) -> None:
        """Remember that again."""
        for name in _DICTS:
            found = {key.split("/", 1)[1]: one for key, one in state.items() if key.startswith(f"{name}/")}
            if found:
                setattr(self.strategy, name, found)
        for name in _LISTS:
            listed = [state[key] for key in sorted(state) if key.startswith(f"{name}/")]
            if listed:
                setattr(self.strategy, name, listed)


class _OneNode(Grid):
    """A grid that is never used: rules look at its nodes, and what they make of them is dropped."""

    def set_run(self, run: Run) -> None:
        """Nothing."""

    @property
    def run(self) -> Run:
        """None in particular."""
        return Run.create_empty(0)

    def create_message(self, *_: object, **__: object) -> Message:
        """Never."""
        raise NotImplementedError

    def get_node_ids(self) -> Sequence[int]:
        """One."""
        return [0]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Never."""
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Never."""
        raise NotImplementedError

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Never."""
        raise NotImplementedError
