"""The topic ``$board``: totals, models and streams; and ``$providers``: endpoints and models."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, Final

from penstock.actors.call.gate import EndpointStatistics
from penstock.cluster.view import ClusterView
from penstock.config.version import __version__
from penstock.gateway.board.listing import COLUMNS, Listing
from penstock.gateway.board.pace import short
from penstock.gateway.board.sampler import Sampler, milliseconds
from penstock.gateway.board.sheets import Row, Sheet, changed
from penstock.gateway.board.topics import Topic
from penstock.gateway.core import GatewayCore

__all__ = ["BoardTopic", "ProvidersTopic"]

_MODELS: Final = (
    "provider", "model", "running", "tokens_per_s", "ttft_p95_ms", "gap_p95_ms", "completed", "failed", "cost_per_h",
)  # fmt: skip
_ENDPOINTS: Final = (
    "provider", "url", "circuit", "held_s", "queue", "queue_high", "in_flight", "requests", "retries", "refused",
    "failures", "retries_refused", "tokens", "keys", "requests_left", "tokens_left", "ttft_p50_ms", "ttft_p95_ms",
    "tokens_per_s", "completed", "failed",
)  # fmt: skip
_MOST_MODELS: Final = 50
_CLUSTER_EVERY: Final = 2.0  # seconds; it asks the store


class BoardTopic(Topic):
    """Totals of the last minute, the same by model, the plots of 15 minutes, and the table of streams."""

    def __init__(self, gateway: GatewayCore, sampler: Sampler) -> None:
        super().__init__("$board")
        self._gateway = gateway
        self._sampler = sampler
        self._clock = gateway.system.runtime.clock
        self._now = 0.0
        self._kpi: dict[str, Any] = {}
        self._point: int | None = None
        self._cluster: Mapping[str, Any] | None = None
        self._cluster_at = -_CLUSTER_EVERY
        self._make_sheets()

    def _make_sheets(self) -> None:
        self._listing = Listing(self._gateway.system._services.streams, lambda: self._gateway.channels.readers_of)
        self._streams, self._models = Sheet(COLUMNS), Sheet(_MODELS)

    def begin(self) -> None:
        self._sampler.hold()
        self._make_sheets()
        self._kpi, self._point = {}, None

    def end(self) -> None:
        self._sampler.release()

    async def step(self) -> Mapping[str, Any]:
        self._now = round(self._clock.time(), 2)
        made: dict[str, Any] = {"t": self._now}
        await self._look_at_cluster()
        made |= self._streams.change(self._listing.rows(self._now, self._clock.monotonic()))
        kpi = self._totals()
        if changes := changed(self._kpi, kpi):
            made["kpi"] = changes
        self._kpi = kpi
        series = self._sampler.series
        if series.end != self._point:
            self._point = series.end
            made["point"] = [series.end, *series.last()]
            if models := self._models.change(models_of(self._sampler)):
                made["models"] = models
        return made

    async def _look_at_cluster(self) -> None:
        node, now = self._gateway.system._node, self._clock.monotonic()
        if node is not None and now - self._cluster_at >= _CLUSTER_EVERY:
            self._cluster_at = now
            self._cluster = cluster_facts(await self._gateway.in_thread(node.view))

    def whole(self) -> Mapping[str, Any]:
        system = self._gateway.system
        return {
            "t": self._now,
            "host": socket.gethostname(),
            "version": __version__,
            "started": round(self._gateway.created),
            "stall": system.settings.request.idle_timeout,
            "kpi": self._kpi,
            "streams": self._streams.snapshot(),
            "models": self._models.snapshot(),
            "series": self._sampler.series.snapshot(),
        }

    def _totals(self) -> dict[str, Any]:
        lately = self._sampler.pace.recent(fill=True)
        totals = self._gateway.system._services.streams.totals()
        readers = sum(len(reader.protocols) for reader in self._gateway.readers)
        return {
            "streams": totals.active,
            "more": self._listing.more,
            "states": self._listing.states,
            "tokens_per_s": short(self._sampler.pace.recent(within=2.0).tokens_per_s),
            "ttft_p95_ms": milliseconds(lately.ttft_p95),
            "gap_p95_ms": milliseconds(lately.gap_p95),
            "readers": readers,
            "window": round(lately.seconds),
            "completed": lately.completed,
            "failed": lately.failed,
            "cost_per_h": round(lately.cost_per_h, 2),
            "ended": totals.completed + totals.failed + totals.cancelled,
            "draining": self._gateway.is_draining,
            "cluster": self._cluster,
            "circuits": [
                [one.name, one.circuit]
                for one in self._gateway.system._services.gates.statistics()
                if one.circuit != "closed"
            ],
        }


def cluster_facts(view: ClusterView) -> Mapping[str, Any]:
    """The cluster, for boards: the nodes with their streams and leases, and the store."""
    return {
        "nodes": [
            [
                one.name,
                "here" if one.is_here else "drains" if one.is_draining else "alive" if one.is_alive else "dead",
                one.streams,
                one.held,
                one.address,
            ]
            for one in view.nodes
        ],
        "waiting": view.waiting,
        "engine": view.engine,
        "store": view.store,
        "well": view.is_well,
        "problem": view.problem.partition(":")[0],
        "lag": view.lag_events,
        "beat_s": round(view.beat_age_s),
        "lease_s": view.lease_s,
    }


def models_of(sampler: Sampler) -> Mapping[Any, Row]:
    """The rows of the table of models: what each did in the last minute; those with the most tokens first."""
    rows: dict[Any, Row] = {}
    for key in sampler.pace.keys[:_MOST_MODELS]:
        one = sampler.pace.recent([key], fill=True)
        speed = sampler.pace.recent([key], within=2.0).tokens_per_s
        rows[key] = (
            *key,
            sampler.running.get(key, 0),
            short(speed),
            milliseconds(one.ttft_p95),
            milliseconds(one.gap_p95),
            one.completed,
            one.failed,
            round(one.cost_per_h, 2),
        )
    return rows


class ProvidersTopic(Topic):
    """The endpoints with their circuits, queues and limits; the models; the retry budget."""

    def __init__(self, gateway: GatewayCore, sampler: Sampler) -> None:
        super().__init__("$providers")
        self._gateway = gateway
        self._sampler = sampler
        self._clock = gateway.system.runtime.clock
        self._now = 0.0
        self._budget: dict[str, Any] = {}
        self._endpoints, self._models = Sheet(_ENDPOINTS), Sheet(_MODELS)

    def begin(self) -> None:
        self._sampler.hold()
        self._endpoints, self._models = Sheet(_ENDPOINTS), Sheet(_MODELS)
        self._budget = {}

    def end(self) -> None:
        self._sampler.release()

    async def step(self) -> Mapping[str, Any]:
        self._now = round(self._clock.time(), 2)
        gates = self._gateway.system._services.gates
        made: dict[str, Any] = {"t": self._now}
        rows = {(one.name, one.base_url): self._row(one) for one in gates.statistics()}
        if endpoints := self._endpoints.change(rows):
            made["endpoints"] = endpoints
        if models := self._models.change(models_of(self._sampler)):
            made["models"] = models
        budget = {"granted": gates.retry_budget.granted, "refused": gates.retry_budget.refused}
        if changes := changed(self._budget, budget):
            made["budget"] = changes
        self._budget = budget
        return made

    def _row(self, one: EndpointStatistics) -> Row:
        lately = self._sampler.pace.recent([key for key in self._sampler.pace.keys if key[0] == one.name], fill=True)
        return (
            one.name,
            one.base_url,
            one.circuit,
            round(one.held_until_s),
            one.queued,
            one.queue_high_water_mark,
            one.active,
            one.requests,
            one.retries,
            one.refused,
            one.failures,
            one.retries_refused,
            one.tokens,
            one.keys,
            one.requests_left,
            one.tokens_left,
            milliseconds(lately.ttft_p50),
            milliseconds(lately.ttft_p95),
            short(lately.tokens_per_s),
            lately.completed,
            lately.failed,
        )

    def whole(self) -> Mapping[str, Any]:
        return {
            "t": self._now,
            "endpoints": self._endpoints.snapshot(),
            "models": self._models.snapshot(),
            "budget": self._budget,
        }
