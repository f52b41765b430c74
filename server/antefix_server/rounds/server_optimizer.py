"""Makes the next shared prefix of the updates of a round.

The rules that take a mean are written here as plain arithmetic with explicit state (Reddi et al. 2021,
"Adaptive Federated Optimization", algorithm 2; Hsu et al. 2019 for momentum). They give what Flower's
strategies of the same names give. The robust rules, which look at each user's update, are Flower's own.

    rule = optimizer("fedadam")
    state, values = rule.apply(rule.init(), 1, shared.values, aggregator.contributions())
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from numpy.typing import NDArray

from antefix.errors import InvalidArgument
from antefix_server.errors import TooFewUsers

Vector: TypeAlias = NDArray[np.float64]
State: TypeAlias = dict[str, Vector]
"""What a rule remembers from round to round, by the names that state files have."""
Weighted: TypeAlias = tuple[Vector, float]
"""Values of a shared prefix, [size], and how much they count."""
_Step: TypeAlias = "Callable[[MeanRule, State, int, Vector, Vector], tuple[State, Vector]]"

_MEAN, _SQUARE, _MOMENTUM = "m_t/shared", "v_t/shared", "momentum_vector/0"


class ServerOptimizer(Protocol):
    """A rule.

    Attributes:
        name: that of Flower's class.
        is_mean: it takes the mean of all updates, which can be summed as they come; else it needs each.
    """

    @property
    def name(self) -> str: ...

    @property
    def is_mean(self) -> bool: ...

    def init(self) -> State:
        """The state before the first round."""

    def apply(
        self, state: State, number: int, values: NDArray[np.float32], updated: Sequence[Weighted]
    ) -> tuple[State, NDArray[np.float32]]:
        """One round.

        Args:
            state: after the round before.
            number: of the round, from 1.
            values: the shared prefix before, fp32 [size].
            updated: the same after users' updates: the mean alone, or one for each user.

        Returns:
            The next state and the next shared prefix.
        """


@dataclass(frozen=True)
class MeanRule:
    """A rule that takes the mean; the numbers have Flower's defaults.

    Attributes:
        name: that of Flower's class.
        step: from state, number, values and mean to the next state and values.
        rate: of the server.
        beta_1, beta_2: how much of the first and the second moment stays.
        tau: keeps the division from blowing up.
    """

    name: str
    step: _Step
    rate: float = 1.0
    beta_1: float = 0.0
    beta_2: float = 0.0
    tau: float = 1e-3
    is_mean: bool = True

    def init(self) -> State:
        """Nothing is remembered."""
        return {}

    def apply(
        self, state: State, number: int, values: NDArray[np.float32], updated: Sequence[Weighted]
    ) -> tuple[State, NDArray[np.float32]]:
        """As `ServerOptimizer.apply`."""
        total = sum(weight for _, weight in updated)
        mean = np.sum([vector * (weight / total) for vector, weight in updated], axis=0)
        state, after = self.step(self, state, number, values.astype(np.float64), mean)
        return state, after.astype(np.float32)


def _average(rule: MeanRule, state: State, number: int, values: Vector, mean: Vector) -> tuple[State, Vector]:
    return state, mean


def _momentum(
    rule: MeanRule, state: State, number: int, values: Vector, mean: Vector
) -> tuple[State, Vector]:
    gradient = values - mean
    velocity = rule.beta_1 * state[_MOMENTUM] + gradient if _MOMENTUM in state else gradient
    return {_MOMENTUM: velocity}, values - rule.rate * velocity


def _adaptive(second: Callable[[MeanRule, Vector, Vector], Vector], *, corrects_bias: bool = False) -> _Step:
    """A step with a rate of its own for each number: the first moment over the root of the second."""

    def step(rule: MeanRule, state: State, number: int, values: Vector, mean: Vector) -> tuple[State, Vector]:
        delta, zeros = mean - values, np.zeros_like(values)
        first = rule.beta_1 * state.get(_MEAN, zeros) + (1 - rule.beta_1) * delta
        square = second(rule, state.get(_SQUARE, zeros), delta**2)
        rate = rule.rate
        if corrects_bias:  # Kingma & Ba 2014, before section 2.1; Flower counts rounds from one more
            left = [np.power(beta, number + 1.0) for beta in (rule.beta_1, rule.beta_2)]
            rate = rate * np.sqrt(1 - left[1]) / (1 - left[0])
        return {_MEAN: first, _SQUARE: square}, values + rate * first / (np.sqrt(square) + rule.tau)

    return step


_ADAGRAD = _adaptive(lambda rule, v, square: v + square)
_ADAM = _adaptive(lambda rule, v, square: rule.beta_2 * v + (1 - rule.beta_2) * square, corrects_bias=True)
_YOGI = _adaptive(lambda rule, v, square: v - (1.0 - rule.beta_2) * square * np.sign(v - square))


@dataclass(frozen=True)
class RobustRule:
    """A rule of Flower's that looks at each update. It keeps all updates of a round in memory."""

    strategy: flower.Strategy
    is_mean: bool = False

    @property
    def name(self) -> str:
        """That of Flower's class."""
        return type(self.strategy).__name__

    def init(self) -> State:
        """Nothing is remembered."""
        return {}

    def apply(
        self, state: State, number: int, values: NDArray[np.float32], updated: Sequence[Weighted]
    ) -> tuple[State, NDArray[np.float32]]:
        """As `ServerOptimizer.apply`.

        Raises:
            TooFewUsers: the rule needs more updates than these; Flower then gives nothing.
        """
        arrays, _ = self.strategy.aggregate_train(number, [_reply(*update) for update in updated])
        if arrays is None:
            raise TooFewUsers(
                f"round {number}: {len(updated)} updates are too few for {self.name}",
                "nothing of this round was released; raise min-users, or lower hostile",
            )
        return state, arrays["shared"].numpy().astype(np.float32)


MEANS = {
    rule.name.lower(): rule
    for rule in (
        MeanRule("FedAvg", _average),
        MeanRule("FedAvgM", _momentum, beta_1=0.9),
        MeanRule("FedProx", _average),
        MeanRule("FedAdagrad", _ADAGRAD, rate=0.1),
        MeanRule("FedAdam", _ADAM, rate=0.1, beta_1=0.9, beta_2=0.99),
        MeanRule("FedYogi", _YOGI, rate=0.01, beta_1=0.9, beta_2=0.99),
    )
}
ROBUST = {
    kind.__name__.lower(): kind
    for kind in (flower.FedMedian, flower.FedTrimmedAvg, flower.Krum, flower.MultiKrum, flower.Bulyan)
}
RULES = (*MEANS, *ROBUST)
"""Names of all rules, in small letters."""
WITH_RATE = ("fedavgm", "fedadagrad", "fedadam", "fedyogi")
BEARS_HOSTILE = ("krum", "multikrum", "bulyan")


def optimizer(name: str, rate: float = 0.0, hostile: int = 1) -> ServerOptimizer:
    """A rule by its name.

    Args:
        name: of Flower's class, in any case.
        rate: of the server; 0 for the rule's own.
        hostile: users that robust rules must bear.

    Raises:
        InvalidArgument: there is none of that name.
    """
    key = name.lower()
    if key in MEANS:
        return replace(MEANS[key], rate=rate) if rate else MEANS[key]
    if key not in ROBUST:
        raise InvalidArgument(f"there is no strategy {name!r:.40}", f"one of {', '.join(RULES)}")
    settings: dict[str, Any] = {"num_malicious_nodes": hostile} if key in BEARS_HOSTILE else {}
    return RobustRule(ROBUST[key](**settings))


def from_flower(strategy: flower.Strategy) -> ServerOptimizer:
    """The rule of one of Flower's strategies, with its numbers.

    Raises:
        InvalidArgument: one that needs other answers than updates.
    """
    kind = type(strategy)
    if ROBUST.get(kind.__name__.lower()) is kind:
        return RobustRule(strategy)
    rule = MEANS.get(kind.__name__.lower())
    if rule is None or getattr(flower, kind.__name__, None) is not kind:
        raise InvalidArgument(
            f"{kind.__name__} is no rule for a shared prefix", f"use one of {', '.join(RULES)}"
        )
    if isinstance(strategy, flower.FedAvgM):
        return replace(rule, rate=strategy.server_learning_rate, beta_1=strategy.server_momentum)
    numbers = {"rate": "eta", "beta_1": "beta_1", "beta_2": "beta_2", "tau": "tau"}
    return replace(
        rule,
        **{ours: getattr(strategy, theirs) for ours, theirs in numbers.items() if hasattr(strategy, theirs)},
    )


def _reply(values: Vector, weight: float) -> Message:
    metrics = MetricRecord({"num-examples": float(weight)})
    content = RecordDict({"arrays": ArrayRecord({"shared": Array(values)}), "metrics": metrics})
    return Message(content=content, dst_node_id=0, message_type=MessageType.TRAIN)
