"""The rules that take a mean give what Flower's strategies give, from explicit state."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import load, save

from antefix.errors import InvalidArgument
from antefix_server.errors import TooFewUsers
from antefix_server.rounds.server_optimizer import MEANS, ROBUST, RobustRule, Weighted, from_flower

NUMBERS: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fedprox": {"proximal_mu": 0.0},
    "fedavgm": {"server_momentum": 0.9, "server_learning_rate": 0.5},
    "fedadagrad": {"eta": 0.3, "tau": 1e-2},
    "fedadam": {"eta": 0.02, "beta_1": 0.8, "beta_2": 0.95},
    "fedyogi": {},
}
KINDS = {kind.__name__.lower(): kind for kind in vars(flower).values() if isinstance(kind, type)}


@pytest.fixture(autouse=True)
def _task() -> None:
    """Flower's messages want to know whose they are."""
    for name in ("run_id", "task_id", "node_id"):
        setattr(TaskIdentity, name, 1)


class _OneNode:
    """What Flower's `configure_train` looks at before it remembers the arrays."""

    def get_node_ids(self) -> Iterable[int]:
        return [0]


def reply(value: np.ndarray, weight: float) -> Message:
    metrics = MetricRecord({"num-examples": weight})
    content = RecordDict({"arrays": ArrayRecord({"shared": Array(value)}), "metrics": metrics})
    return Message(content, dst_node_id=0, message_type=MessageType.TRAIN)


def in_flower(strategy: Any, number: int, values: np.ndarray, updated: list[Weighted]) -> np.ndarray:
    arrays = ArrayRecord({"shared": Array(values)})
    list(strategy.configure_train(number, arrays, ConfigRecord(), _OneNode()))
    after, _ = strategy.aggregate_train(number, [reply(*update) for update in updated])
    found: np.ndarray = after["shared"].numpy().astype(np.float32)
    return found


@pytest.mark.parametrize("name", MEANS)
def test_a_mean_rule_is_flowers(name: str) -> None:
    """Bit for bit where the rule begins each round from the shared prefix; Flower's FedAvgM begins from its
    own copy in float64, so that it differs from what was released by less than fp32 can tell."""
    theirs = KINDS[name](fraction_train=1.0, min_train_nodes=1, min_available_nodes=1, **NUMBERS[name])
    ours, dice = from_flower(theirs), np.random.default_rng(0)
    state, values = ours.init(), dice.normal(size=500).astype(np.float32)
    before = values
    for number in range(1, 6):
        updated = [(values + dice.normal(size=500) / 10, weight) for weight in (1.0, 3.0, 4.0)]
        mean = (np.sum([value * (weight / 8.0) for value, weight in updated], axis=0), 8.0)
        expected = in_flower(theirs, number, before, [mean])
        state, values = ours.apply(state, number, values, [mean])
        if name == "fedavgm":
            np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)
        else:
            np.testing.assert_array_equal(values, expected)
        before = values
        assert values.dtype == np.float32


@pytest.mark.parametrize("name", MEANS)
def test_a_streamed_mean_is_the_mean_of_all(name: str) -> None:
    rule, dice = MEANS[name], np.random.default_rng(1)
    values = np.zeros(50, np.float32)
    whole, streamed = (rule.init(), values), (rule.init(), values)
    for number in (1, 2):
        updated = [(dice.normal(size=50), weight) for weight in (1.0, 3.0, 4.0)]
        mean = np.sum([value * weight for value, weight in updated], axis=0) / 8.0
        whole = rule.apply(whole[0], number, whole[1], updated)
        streamed = rule.apply(streamed[0], number, streamed[1], [(mean, 8.0)])
        assert np.abs(whole[1] - streamed[1]).max() < 1e-6


@pytest.mark.parametrize("name", ["fedavgm", "fedadagrad", "fedadam", "fedyogi"])
def test_a_rule_goes_on_from_what_flower_remembered(name: str) -> None:
    """State files of earlier versions hold Flower's own arrays by Flower's names."""
    theirs = KINDS[name](fraction_train=1.0, min_train_nodes=1, min_available_nodes=1)
    if name == "fedavgm":
        theirs = KINDS[name](min_train_nodes=1, min_available_nodes=1, server_momentum=0.9)
    ours, dice = from_flower(theirs), np.random.default_rng(2)
    values = dice.normal(size=20).astype(np.float32)
    first, second = ((values + dice.normal(size=20), 1.0) for _ in range(2))
    after = in_flower(theirs, 1, values, [first])
    kept = {f"{kind}/{key}": value for kind in ("m_t", "v_t") for key, value in dict_of(theirs, kind)}
    kept |= {f"momentum_vector/{at}": value for at, value in enumerate(list_of(theirs))}
    state, again = ours.apply(ours.init(), 1, values, [first])
    assert sorted(state) == sorted(kept)
    assert all(np.array_equal(state[key], kept[key]) for key in kept)
    np.testing.assert_array_equal(again, after)
    _, there = ours.apply(load(save(kept)), 2, after, [second])
    _, here = ours.apply(state, 2, after, [second])
    np.testing.assert_array_equal(here, there)


def dict_of(strategy: Any, name: str) -> list[tuple[str, np.ndarray]]:
    return list((getattr(strategy, name, None) or {}).items())


def list_of(strategy: Any) -> list[np.ndarray]:
    return getattr(strategy, "momentum_vector", None) or []


@pytest.mark.parametrize("name", ROBUST)
def test_a_robust_rule_gets_each_update(name: str) -> None:
    dice = np.random.default_rng(3)
    values = np.zeros(10, np.float32)
    updated = [(dice.normal(size=10), 1.0) for _ in range(7)]
    _, after = RobustRule(ROBUST[name]()).apply({}, 1, values, updated)
    arrays, _ = ROBUST[name]().aggregate_train(1, [reply(*update) for update in updated])
    assert arrays is not None
    np.testing.assert_array_equal(after, arrays["shared"].numpy().astype(np.float32))


@pytest.mark.filterwarnings("ignore")  # Flower says it in a warning, too
def test_a_robust_rule_with_too_few_updates_says_so_and_gives_nothing() -> None:
    """Bulyan wants 4·1 + 3 updates: the prefix of before is no result, and no round was done."""
    updated = [(np.ones(10), 1.0)] * 6
    with pytest.raises(TooFewUsers, match="round 1: 6 updates are too few for Bulyan"):
        RobustRule(flower.Bulyan(num_malicious_nodes=1)).apply({}, 1, np.zeros(10, np.float32), updated)


def test_other_rules_are_refused() -> None:
    class FedAvg(flower.FedAvg):
        """Who knows what it does."""

    for strategy in (flower.QFedAvg(client_learning_rate=0.1), FedAvg()):
        with pytest.raises(InvalidArgument, match="no rule for a shared prefix"):
            from_flower(strategy)
