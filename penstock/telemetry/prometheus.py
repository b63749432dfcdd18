"""Metrics for Prometheus. Needs the extra ``metrics``: ``pip install "penstock[metrics]"``.

The gateway serves them at ``/metrics``. In an application of your own, register a collector::

    from prometheus_client import REGISTRY
    from penstock.telemetry.prometheus import PenstockCollector

    REGISTRY.register(PenstockCollector(system))

Nothing is counted for it: at each scrape it reads `System.statistics` and `System.get_model_statistics`. The names are
in `penstock.telemetry.names`.
"""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import (
    Metric as Family,
)
from prometheus_client.registry import Collector

from penstock.actors.stream.histograms import HistogramSnapshot
from penstock.actors.stream.models import ModelStatistics
from penstock.config.version import __version__
from penstock.inspection import SystemStatistics
from penstock.system import System
from penstock.telemetry.gateway import GatewayStatistics, TellsOfGateway
from penstock.telemetry.names import METRICS, Metric

__all__ = ["PenstockCollector", "expose"]

_Labels: TypeAlias = tuple[str, ...]
_STATES: Final = ("idle", "buffering", "streaming", "rate_limited", "paused", "error")
_CIRCUITS: Final = {"closed": 0, "half_open": 1, "open": 2}
_NONE: Final = "none"
_OTHER: Final = "other"


class PenstockCollector(Collector):
    """Gives prometheus-client the metrics of one or more systems, added up.

    Args:
        systems: they are not started by it; one that has been stopped keeps its last counts out of the sum.
        gateway: whose readers are counted too.
        models: the models that labels name; all others are ``"other"``. None takes those that the systems' settings
            name (`Settings.models`).
    """

    def __init__(
        self, *systems: System, gateway: TellsOfGateway | None = None, models: Iterable[str] | None = None
    ) -> None:
        self._systems = systems
        self._gateway = gateway
        named = (name for system in systems for name in system.settings.models()) if models is None else models
        self._models = frozenset(named)

    def describe(self) -> Iterator[Family]:
        """The metrics without values, so that registering does not collect."""
        for metric in METRICS:
            yield _family(metric)

    def collect(self) -> Iterator[Family]:
        """Read the systems and the gateway. Any thread; never blocks."""
        running = [system for system in self._systems if system._started is not None and not system._stopped]
        found: dict[str, _Values] = {metric.name: _Values() for metric in METRICS}
        for system in running:
            self._add_system(found, system.statistics())
            for model in system.get_model_statistics():
                self._add_model(found, model)
        if self._gateway is not None:
            _add_gateway(found, self._gateway.statistics())
        found["penstock_build_info"].set(1, __version__, platform.python_version())
        for metric in METRICS:
            yield found[metric.name].family(metric)

    def _add_system(self, found: Mapping[str, _Values], statistics: SystemStatistics) -> None:
        for state in _STATES:
            found["penstock_streams_active"].add(statistics.states.get(state, 0), state)
        for supervisor, count in statistics.restarts.items():
            found["penstock_supervisor_restarts_total"].add(count, supervisor)
        found["penstock_mailbox_depth_max"].greatest(statistics.largest_mailbox)
        for endpoint in statistics.providers:
            found["penstock_provider_breaker_state"].greatest(_CIRCUITS[endpoint.circuit], endpoint.name)
            found["penstock_provider_queue"].add(endpoint.queued, endpoint.name)
            found["penstock_provider_in_flight"].add(endpoint.active, endpoint.name)

    def _add_model(self, found: Mapping[str, _Values], one: ModelStatistics) -> None:
        model = one.model if one.model in self._models else _OTHER if one.model else _NONE
        labels = (one.provider or _NONE, model)
        for outcome, count in (("completed", one.completed), ("failed", one.failed), ("cancelled", one.cancelled)):
            found["penstock_streams_total"].add(count, *labels, outcome)
        found["penstock_tokens_total"].add(one.tokens, *labels, "output")
        found["penstock_tokens_total"].add(one.input_tokens, *labels, "input")
        found["penstock_cost_usd_total"].add(one.cost_usd, *labels)
        found["penstock_stream_ttft_seconds"].merge(one.time_to_first_token, *labels)
        found["penstock_stream_intertoken_seconds"].merge(one.inter_token, *labels)
        found["penstock_stream_duration_seconds"].merge(one.duration, *labels)


def _add_gateway(found: Mapping[str, _Values], statistics: GatewayStatistics) -> None:
    for protocol, count in statistics.readers.items():
        found["penstock_readers"].add(count, protocol)
    for (protocol, outcome), count in statistics.reader_outcomes.items():
        found["penstock_reader_outcome_total"].add(count, protocol, outcome)
        found["penstock_readers"].add(0, protocol)
    for result in ("exact", "snapshot", "gap"):
        found["penstock_resume_total"].add(statistics.resumptions.get(result, 0), result)
    for code, count in statistics.refused.items():
        found["penstock_gateway_refused_total"].add(count, code)
    found["penstock_reader_lag_bytes"].merge(statistics.reader_lag)
    found["penstock_gateway_overhead_seconds"].merge(statistics.overhead)


class _Values:
    """The values of one metric, by labels."""

    def __init__(self) -> None:
        self._numbers: defaultdict[_Labels, float] = defaultdict(float)
        self._histograms: dict[_Labels, HistogramSnapshot] = {}

    def set(self, value: float, *labels: str) -> None:
        self._numbers[labels] = value

    def add(self, value: float, *labels: str) -> None:
        self._numbers[labels] += value

    def greatest(self, value: float, *labels: str) -> None:
        self._numbers[labels] = max(value, self._numbers[labels])

    def merge(self, histogram: HistogramSnapshot, *labels: str) -> None:
        before = self._histograms.get(labels)
        self._histograms[labels] = histogram if before is None else before.plus(histogram)

    def family(self, metric: Metric) -> Family:
        family = _family(metric)
        if isinstance(family, HistogramMetricFamily):
            for labels, histogram in self._histograms.items():
                family.add_metric(labels, _buckets(histogram), histogram.sum)
        else:
            for labels, value in self._numbers.items():
                family.add_metric(labels, value)
        return family


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    match metric.kind:
        case "counter":
            return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
        case "gauge":
            return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        case "histogram":
            return HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)


def _buckets(histogram: HistogramSnapshot) -> Sequence[tuple[str, float]]:
    """The cumulative counts by upper bound."""
    made: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*histogram.bounds, None), histogram.counts, strict=True):
        total += count
        made.append(("+Inf" if bound is None else repr(float(bound)), total))
    return made


def expose(collector: Collector, accept: str = "") -> tuple[bytes, str]:
    """Write the metrics of a collector as a response to a scrape.

    Args:
        collector: usually a `PenstockCollector`.
        accept: the request's ``Accept`` header, which chooses between the text format and OpenMetrics.

    Returns:
        The body, and its content type.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    encode, kind = choose_encoder(accept)
    return encode(registry), kind
