"""The metrics of `penstock.telemetry.prometheus`: names, kinds, labels and meanings. Pure."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

__all__ = ["METRICS", "Metric"]


class Metric(NamedTuple):
    """A metric as Prometheus stores it.

    Attributes:
        name: with its unit and suffix; a histogram has ``_bucket``, ``_sum`` and ``_count`` after it.
        kind: as in the exposition.
        labels: all are bounded: no stream's id, no key, no URL.
        help: one sentence.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


_MODEL: Final = ("provider", "model")

METRICS: Final = (
    Metric("penstock_streams_active", "gauge", ("state",), "Running streams by state."),
    Metric("penstock_streams_total", "counter", (*_MODEL, "outcome"), "Ended streams: completed, failed, cancelled."),
    Metric("penstock_stream_ttft_seconds", "histogram", _MODEL, "From a stream's opening to its first tokens."),
    Metric(
        "penstock_stream_intertoken_seconds",
        "histogram",
        _MODEL,
        "Between deliveries, divided by their tokens; counted once for each token.",
    ),
    Metric("penstock_stream_duration_seconds", "histogram", _MODEL, "From a stream's opening to its end."),
    Metric(
        "penstock_tokens_total",
        "counter",
        (*_MODEL, "direction"),
        "output: tokens delivered by streams, as they come; input: tokens of the prompts, as reported at the end.",
    ),
    Metric("penstock_cost_usd_total", "counter", _MODEL, "What ended streams cost, in US dollars."),
    Metric("penstock_readers", "gauge", ("protocol",), "Connections that read a stream of the gateway."),
    Metric("penstock_reader_lag_bytes", "histogram", (), "How far each reader is behind, taken about once a second."),
    Metric(
        "penstock_reader_outcome_total",
        "counter",
        ("protocol", "outcome"),
        "Readers that are gone: finished, left, too_slow, drained.",
    ),
    Metric("penstock_resume_total", "counter", ("result",), "Readers that came with a cursor: exact, snapshot, gap."),
    Metric(
        "penstock_gateway_refused_total",
        "counter",
        ("code",),
        "Requests that a gateway of a cluster refused: busy, too_many_tickets.",
    ),
    Metric("penstock_supervisor_restarts_total", "counter", ("supervisor",), "Children that supervisors restarted."),
    Metric("penstock_mailbox_depth_max", "gauge", (), "Messages that wait in the fullest mailbox."),
    Metric(
        "penstock_provider_breaker_state",
        "gauge",
        ("provider",),
        "The circuit breaker: 0 closed, 1 half-open, 2 open; the worst of the provider's endpoints.",
    ),
    Metric("penstock_provider_queue", "gauge", ("provider",), "Requests that wait for our own limits."),
    Metric("penstock_provider_in_flight", "gauge", ("provider",), "Requests that hold a place at the provider."),
    Metric(
        "penstock_gateway_overhead_seconds",
        "histogram",
        (),
        "What the gateway itself took before the first byte of a stream.",
    ),
    Metric("penstock_build_info", "gauge", ("version", "python"), "Always 1; the versions are in the labels."),
)
