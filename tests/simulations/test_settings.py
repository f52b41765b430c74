"""What a run can be told, and what it refuses."""

from typing import Any

import pytest

from antefix.errors import InvalidArgument
from antefix_simulations.settings import RunSettings


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"strategy": "krum"}, "a cohort sends sums"),
        ({"strategy": "nonsense"}, "nonsense is no strategy: use one of fedavg"),
        ({"server-learning-rate": 0.5}, "'fedavg' does not look at server-learning-rate=0.5"),
        ({"users": -5}, "users is -5: input should be greater than or equal to 0"),
        ({"users": "4 num-server-rounds=1"}, "users is '4 num-server-rounds=1'"),
        ({"arms": "fancy"}, "^there is no arm 'fancy': context, retrieved, lora, full"),
        ({"histories": "abc"}, "^histories and tune-factors are positive numbers"),
        ({"tune-factors": "nan"}, "^histories and tune-factors are positive numbers"),
        ({"max-texts": 4}, "max-texts=4 leaves a user 3 training texts, and min-texts=8 are wanted"),
        ({"private": False, "arms": "lora"}, "go beside private prefixes"),
        ({"partition": "iid"}, "partition is for data of hf:, and data is 'sample'"),
        ({"data": "texts.jsonl", "user-column": "who"}, "user-column is for data of hf:"),
        ({"data": "git:.", "where": "a=b"}, "git: has no columns"),
        ({"where": "sent"}, "^where is COLUMN=VALUE"),
        ({"private-passes": float("inf")}, "private-passes is inf"),
        ({"target-epsilon": float("inf")}, "target-epsilon is inf"),
        ({"server-learning-rate": float("nan")}, "server-learning-rate is nan"),
        ({"max-texts": 10**24, "min-texts": 10**22}, "max-texts is 1000000000000000000000000"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_a_line(said: dict[str, Any], why: str) -> None:
    """None is left unheard, and the hint is for who runs a simulation."""
    with pytest.raises(InvalidArgument, match=why) as refused:
        RunSettings.read(said)
    assert "docs/guides/simulate.md" in str(refused.value.hint)


def test_a_misspelt_setting_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidArgument, match="there is no setting 'leraning-rate'") as refused:
        RunSettings.read({"leraning-rate": 1})
    assert refused.value.hint == "did you mean learning-rate?"


def test_one_number_is_a_list() -> None:
    """`-c histories=8` comes as a number."""
    assert RunSettings.read({"histories": 8, "tune-factors": 2}).history_sizes == [8]
