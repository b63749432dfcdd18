"""Look at a running system: facts, metrics, spans and log events.

Usage: pip install "penstock[metrics,otel]" opentelemetry-sdk; python examples/observability.py

It uses the embedded loopback provider, so no key is needed.
"""

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import penstock
from penstock.telemetry.lifecycle import log_streams
from penstock.telemetry.opentelemetry import instrument
from penstock.telemetry.prometheus import PenstockCollector, expose


class Printed:
    """A logger that prints its events; use structlog's, or none at all for the standard library's."""

    def info(self, event: str, **fields: object) -> None:
        print("log:", event, fields)

    warning = info


def main() -> None:
    spans = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    with penstock.System() as system:
        log_streams(system, Printed())
        instrument(system, tracer_provider=tracers)
        streams = [system.chat("echo", f"question {number}", provider="loopback") for number in range(3)]
        for stream in streams:
            stream.result(timeout=10)

        for change in streams[0].state_changes():
            print(f"state: {change.before} -> {change.after}, because of {change.cause}")
        for model in system.get_model_statistics():
            median = model.time_to_first_token.quantile(0.5) or 0.0
            counts = f"{model.completed} completed, {model.tokens} tokens"
            print(f"model: {model.provider}/{model.model}: {counts}, {median:.3f} s to the first token")
        body, _ = expose(PenstockCollector(system, models=["echo"]))
        for line in body.decode().splitlines():
            if line.startswith("penstock_streams_total"):
                print("metric:", line)
    for span in spans.get_finished_spans():
        print("span:", span.name, (span.attributes or {})["penstock.outcome"])


if __name__ == "__main__":
    main()
