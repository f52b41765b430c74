"""Pictures of a report, drawn of a few numbers."""

import re

from antefix_simulations.run import plots
from antefix_simulations.run.summary import Summary


def test_users_and_cohorts_are_counted_in_whole_numbers() -> None:
    users = [{"user": str(at), "shared": 3.0 + at, "private": 2.0} for at in range(3)]
    times = [{"users": 2, "seconds": 1.0, "peak_mb": 100.0} for _ in range(3)]
    for picture in (plots.gains(Summary(users=users)), plots.throughput(times)):
        ticks = re.findall(r"<!-- (.+?) -->", picture.split("xtick_1", 1)[1].split("ytick_1", 1)[0])
        ticks += re.findall(r">([\d.]+)</text>", picture.split("xtick_1", 1)[1].split("ytick_1", 1)[0])
        assert {"1", "2", "3"} <= set(ticks)
        assert not [tick for tick in ticks if "." in tick]
