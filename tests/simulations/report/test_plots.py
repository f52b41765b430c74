"""Pictures of a report, drawn of a few numbers."""

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from antefix_simulations.paper.results.plots import _apart
from antefix_simulations.report import plots
from antefix_simulations.report.summary import Summary


def test_users_and_cohorts_are_counted_in_whole_numbers() -> None:
    users = [{"user": str(at), "shared": 3.0 + at, "private": 2.0} for at in range(3)]
    times = [{"users": 2, "seconds": 1.0, "peak_mb": 100.0} for _ in range(3)]
    for picture in (plots.gains(Summary(users=users)), plots.throughput(times)):
        ticks = re.findall(r"<!-- (.+?) -->", picture.split("xtick_1", 1)[1].split("ytick_1", 1)[0])
        ticks += re.findall(r">([\d.]+)</text>", picture.split("xtick_1", 1)[1].split("ytick_1", 1)[0])
        assert {"1", "2", "3"} <= set(ticks)
        assert not [tick for tick in ticks if "." in tick]


@given(st.lists(st.floats(0, 10), min_size=1, max_size=9))
def test_labels_of_lines_keep_their_order_and_none_is_over_another(values: list[float]) -> None:
    known = {str(number): value for number, value in enumerate(values)}
    places = _apart(known)
    assert sorted(known, key=known.__getitem__) == sorted(places, key=places.__getitem__)
    found = sorted(places.values())
    least = 0.05 * (max(values) - min(values))
    assert all(above - below >= least * 0.999 for below, above in itertools.pairwise(found))
    assert all(places[name] >= value for name, value in known.items())
