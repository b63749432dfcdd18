"""Spans of streams that requests to a gateway open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from penstock.telemetry.opentelemetry import instrument
from penstock.testing import eventually
from tests.integration.gateway.serving import Served, gateway

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Spans:
    """The gateway, and the spans that are exported."""

    def __init__(self, server: Served, exporter: InMemorySpanExporter) -> None:
        self.server = server
        self.exporter = exporter

    def one(self) -> Any:
        eventually(lambda: len(self.exporter.get_finished_spans()) == 1)
        return self.exporter.get_finished_spans()[0]


@pytest.fixture
def spans() -> Iterator[Spans]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with gateway() as server:
        instrument(server.system, tracer_provider=provider)
        yield Spans(server, exporter)
    provider.shutdown()


@pytest.mark.parametrize("path", ["/v1/streams", "/v1/chat/completions", "/v1/responses"])
def test_the_parent_is_the_span_of_the_client(spans: Spans, path: str) -> None:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    if path == "/v1/responses":
        body = {"model": "m", "input": "Hi"}
    answer = spans.server.request("POST", path, json=body, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert answer.status_code in (200, 201), answer.text
    span = spans.one()
    assert trace.format_trace_id(span.context.trace_id) == TRACE
    assert trace.format_span_id(span.parent.span_id) == PARENT


def test_a_request_without_a_trace_is_of_the_trace_that_the_gateway_begins(spans: Spans) -> None:
    stream_id = spans.server.open()
    spans.server.finish(stream_id)
    told = spans.server.system.stream(stream_id).metadata["traceparent"]
    assert trace.format_trace_id(spans.one().context.trace_id) == told.split("-")[1]


def test_the_next_request_is_of_its_own_trace(spans: Spans) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    spans.server.request("POST", "/v1/streams", json=body, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    first = spans.one()
    spans.exporter.clear()
    spans.server.request("POST", "/v1/streams", json=body)
    assert spans.one().context.trace_id != first.context.trace_id
