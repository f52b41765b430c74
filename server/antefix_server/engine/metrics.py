"""An engine's figures in the form of Prometheus. No user, no grant and no text is in any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["EngineMetrics"]

_GAUGES = {
    "engines": "Processes that compute; 1 where the gateway's own does.",
    "rows": "Requests that run.",
    "waiting": "Requests that wait.",
    "bank_bytes": "Bytes of opened prefixes.",
}
_COUNTERS = {
    "bank_hits": "Rows whose prefix was there.",
    "bank_wiped": "Prefixes that were wiped.",
    "opened": "Prefixes that were opened.",
    "tokens": "Tokens that were generated.",
    "finished": "Requests that were answered.",
    "cancelled": "Requests whose caller went away.",
    "failed": "Requests that ended before their end.",
}


class EngineMetrics(Collector):
    """Reads an engine whenever it is asked."""

    def __init__(self, measured: Callable[[], Mapping[str, float]]) -> None:
        """Read by this."""
        self._measured = measured

    def collect(self) -> Iterator[Metric]:
        """All figures."""
        figures = self._measured()
        for name, description in _GAUGES.items():
            yield GaugeMetricFamily(
                f"antefix_engine_{name}", description, value=figures.get(name, name == "engines")
            )
        for name, description in _COUNTERS.items():
            yield CounterMetricFamily(f"antefix_engine_{name}", description, value=figures.get(name, 0))
