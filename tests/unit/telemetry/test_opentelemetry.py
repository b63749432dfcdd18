"""Spans and metrics of OpenTelemetry, as the real SDK exports them."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.trace import SpanKind, StatusCode

import penstock
from penstock.config.telemetry import Semconv, TelemetryOptions
from penstock.errors import ApiError, OptionError
from penstock.events import Usage
from penstock.ports import ReasoningDelta, TextDelta, ToolCallFragment, UsageDelta
from penstock.telemetry.conventions import ATTRIBUTES, CONVENTIONS, DURATIONS, TOKENS
from penstock.telemetry.opentelemetry import instrument
from penstock.telemetry.propagation import caller_traceparent
from penstock.testing import HANG, ScriptedAttempt, ScriptedProvider, SimulatedSystem
from tests.conformance.common import FAST, assert_nothing_is_left

BUSY = ApiError(503, "the key sk-123 is busy", retryable=False)
USAGE = Usage(
    input_tokens=70, output_tokens=9, cached_tokens=40, cache_write_tokens=5, reasoning_tokens=3, total_tokens=79
)
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
PRIVATE = "a private matter"


class Bench:
    """A simulated system, and what the SDK exports of it."""

    def __init__(self, system: SimulatedSystem, options: TelemetryOptions) -> None:
        self.system = system
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        instrument(system, tracer_provider=self.tracers, meter_provider=self.meters, options=options)

    def ask(self, *attempts: Any, model: str = "m", **more: Any) -> penstock.Stream:
        provider = ScriptedProvider(*attempts, name="gemini", base_url="https://host.example:8443/v1")
        provider.request = _with_url(provider.request)  # type: ignore[method-assign]
        stream = self.system.chat(model, PRIVATE, provider=provider, options=FAST, **more)
        self.system.advance(5.0)
        return stream

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def one(self) -> ReadableSpan:
        [span] = self.spans
        return span

    def metrics(self) -> dict[str, list[Any]]:
        data: Any = self.reader.get_metrics_data()
        if data is None:
            return {}
        [resource] = data.resource_metrics
        [scope] = resource.scope_metrics
        return {metric.name: list(metric.data.data_points) for metric in scope.metrics}

    def close(self) -> None:
        self.tracers.shutdown()
        self.meters.shutdown()


def _with_url(request: Any) -> Any:
    def made(call: Any) -> Any:
        from penstock.ports import ProviderRequest

        request(call)
        return ProviderRequest(url="https://host.example:8443/v1/chat", body=b"")

    return made


@contextmanager
def bench(**options: Any) -> Iterator[Bench]:
    with SimulatedSystem(3) as system:
        made = Bench(system, TelemetryOptions(**options))
        try:
            yield made
            assert_nothing_is_left(system)
            assert not system._table.observers[0]._watched  # type: ignore[attr-defined]
        finally:
            made.close()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def double(x: int) -> int:
    """Double a number."""
    return 2 * x


def broken(x: int) -> int:
    """Fail."""
    raise RuntimeError(PRIVATE)


def call_of(name: str, index: int = 0) -> ToolCallFragment:
    return ToolCallFragment(index=index, id=f"c{index}", name=name, arguments='{"x": 4}')


def turn(found: Bench, *attempts: Any, name: str = "helper", **more: Any) -> None:
    provider = ScriptedProvider(*attempts, name="p")
    agent = found.system.agent(name, model="m", provider=provider, tools=[double, broken], options=FAST, **more)
    agent.stream_chat(PRIVATE)
    found.system.advance(10.0)
    agent.stop()


# --- a call --------------------------------------------------------------------------------------------------------


def test_a_call_is_a_span_with_what_was_asked_and_answered() -> None:
    with bench() as found:
        script: list[Any] = [1.0, ReasoningDelta("hm"), TextDelta("a"), 0.5, TextDelta("b"), UsageDelta(USAGE)]
        stream = found.ask(
            ScriptedAttempt(tuple(script), model="m-2026"), temperature=0.5, max_tokens=100, stop="END", seed=7, n=1
        )
        span = found.one()
    assert span.name == "chat m"
    assert span.kind is SpanKind.CLIENT
    assert span.parent is None
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": "m",
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.seed": 7,
        "gen_ai.response.model": "m-2026",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": pytest.approx(1.0, abs=0.01),
        "gen_ai.usage.input_tokens": 70,
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.usage.cache_read.input_tokens": 40,
        "gen_ai.usage.cache_creation.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 3,
        "server.address": "host.example",
        "server.port": 8443,
        "penstock.stream.id": stream.stream_id,
        "penstock.outcome": "completed",
        "penstock.attempts": 1,
    }
    assert span.start_time is not None
    assert span.end_time is not None
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(1.5, abs=0.1)
    assert span.start_time / 1e9 == pytest.approx(stream.statistics().start_time)


def test_a_failed_call_has_the_type_of_its_error_and_not_its_message() -> None:
    with bench() as found:
        found.ask([TextDelta("a"), BUSY])
        span = found.one()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert span.events == ()
    assert (attributes(span)["error.type"], attributes(span)["penstock.outcome"]) == ("503", "failed")
    assert "gen_ai.response.finish_reasons" not in attributes(span)


def test_a_cancelled_call_is_no_error() -> None:
    with bench() as found:
        found.ask([TextDelta("a"), HANG]).cancel()
        span = found.one()
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span)["penstock.outcome"] == "cancelled"
    assert "error.type" not in attributes(span)


def test_a_fallback_that_answers_names_the_span() -> None:
    with bench() as found:
        options = penstock.RequestOptions(max_retries=0, fallback=["n"])
        found.ask([BUSY], ["a"], request_options=options)
        span = found.one()
    assert span.name == "chat n"
    assert (attributes(span)["gen_ai.request.model"], attributes(span)["penstock.attempts"]) == ("n", 2)


def test_a_stream_without_a_provider_is_no_span() -> None:
    with bench() as found:
        found.system.open_stream("s").stop()
        assert found.spans == []


@pytest.mark.parametrize("semconv", CONVENTIONS)
def test_every_attribute_is_in_the_table(semconv: Semconv) -> None:
    with bench(otel_semconv=semconv, capture_content=True) as found:
        parameters: dict[str, Any] = {
            "reasoning_effort": "low",
            "previous_response_id": "r",
            "n": 2,
            "top_p": 0.5,
            "top_k": 3,
        }
        found.ask(["a", UsageDelta(USAGE)], metadata={"conversation_id": "c"}, frequency_penalty=0.1, **parameters)
        found.ask([BUSY], presence_penalty=0.1)
        turn(found, ScriptedAttempt((call_of("double"),), finish="tool_calls"), ["8"])
        used = {name for span in found.spans for name in attributes(span)}
    assert used <= set(ATTRIBUTES)
    assert ("gen_ai.request.reasoning.level" in used) == (semconv == "latest")
    assert ("gen_ai.usage.cache_write.input_tokens" in used) == (semconv == "latest")
    assert "gen_ai.conversation.id" in used


def test_the_names_of_1_41_are_those_of_opentelemetrys_own_package() -> None:
    known = {value for value in vars(gen_ai_attributes).values() if isinstance(value, str)}
    ours = {name for name, about in ATTRIBUTES.items() if name.startswith("gen_ai.") and "`latest` only" not in about}
    assert ours <= known
    names = {value for value in vars(gen_ai_metrics).values() if isinstance(value, str)}
    assert set(CONVENTIONS["1.41"].metrics()) <= names
    assert not set(CONVENTIONS["latest"].metrics()) & set(CONVENTIONS["1.41"].metrics())


# --- parents -------------------------------------------------------------------------------------------------------


def test_the_parent_is_the_callers_current_span() -> None:
    with bench() as found:
        with found.tracers.get_tracer("app").start_as_current_span("request") as parent:
            found.ask(["a"], metadata={"traceparent": PARENT})
        span = next(span for span in found.spans if span.name == "chat m")
    assert span.parent is not None
    assert span.parent.span_id == parent.get_span_context().span_id


@pytest.mark.parametrize("way", ["metadata", "variable"])
def test_without_one_it_is_that_of_a_traceparent(way: str) -> None:
    with bench() as found:
        if way == "metadata":
            found.ask(["a"], metadata={"traceparent": PARENT})
        else:
            token = caller_traceparent.set(PARENT)
            try:
                found.ask(["a"], metadata={"traceparent": PARENT.replace("b7", "00")})
            finally:
                caller_traceparent.reset(token)
        span = found.one()
    assert span.parent is not None
    assert trace.format_trace_id(span.parent.trace_id) == TRACE
    assert trace.format_span_id(span.parent.span_id) == "b7ad6b7169203331"


@pytest.mark.parametrize("given", ["nonsense", 7, None])
def test_a_traceparent_that_is_none_begins_a_trace(given: Any) -> None:
    with bench() as found:
        found.ask(["a"], metadata={"traceparent": given})
        assert found.one().parent is None


def test_the_context_of_the_caller_is_not_changed() -> None:
    before = context.get_current()
    with bench() as found:
        found.ask(["a"])
    assert context.get_current() == before


# --- content -------------------------------------------------------------------------------------------------------


def test_no_text_is_exported_unless_it_is_wanted() -> None:
    with bench() as found:
        found.ask([TextDelta("the answer"), UsageDelta(USAGE)])
        turn(found, ScriptedAttempt((call_of("broken"),), finish="tool_calls"), ["the answer"])
        exported = "".join(span.to_json() for span in found.spans) + repr(found.metrics())
    for text in (PRIVATE, "the answer", '"x"', "sk-123"):
        assert text not in exported


def test_messages_and_answers_are_exported_if_they_are_wanted() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": "u"}}],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "42"},
    ]
    with bench(capture_content=True) as found:
        provider = ScriptedProvider([ReasoningDelta("hm"), TextDelta("Yes.")], name="p")
        found.system.chat("m", messages, provider=provider, options=FAST)
        found.system.advance(1.0)
        span = attributes(found.one())
    assert json.loads(span["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "See"}, {"type": "image_url"}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c", "name": "f", "arguments": "{}"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c", "response": "42"}]},
    ]
    assert json.loads(span["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [{"type": "reasoning", "content": "hm"}, {"type": "text", "content": "Yes."}],
            "finish_reason": "stop",
        }
    ]


# --- agents --------------------------------------------------------------------------------------------------------


def test_a_turn_of_an_agent_has_a_span_for_each_call_and_each_tool() -> None:
    with bench() as found:
        first = ScriptedAttempt((call_of("double"), call_of("broken", 1)), finish="tool_calls")
        turn(found, first, ["8", UsageDelta(USAGE)])
        spans = {span.name: span for span in found.spans}
        chats = [span for span in found.spans if span.name == "chat m"]
    assert sorted(spans) == ["chat m", "execute_tool broken", "execute_tool double", "invoke_agent helper"]
    assert len(chats) == 2
    agent = spans["invoke_agent helper"]
    assert agent.kind is SpanKind.INTERNAL
    assert attributes(agent)["gen_ai.agent.name"] == "helper"
    assert attributes(agent)["gen_ai.provider.name"] == "p"
    assert attributes(agent)["gen_ai.usage.input_tokens"] == 70
    assert agent.context is not None
    for span in (*chats, spans["execute_tool broken"], spans["execute_tool double"]):
        assert span.parent is not None
        assert span.parent.span_id == agent.context.span_id
        assert agent.start_time is not None
        assert span.start_time is not None
        assert agent.start_time <= span.start_time
    assert [attributes(chat)["gen_ai.response.finish_reasons"] for chat in chats] == [("tool_calls",), ("stop",)]
    assert attributes(spans["execute_tool double"]) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "double",
        "gen_ai.tool.call.id": "c0",
        "gen_ai.tool.type": "function",
    }
    assert attributes(spans["execute_tool broken"])["error.type"] == "error"
    assert spans["execute_tool broken"].status.status_code is StatusCode.ERROR


def test_the_arguments_and_results_of_tools_are_exported_if_they_are_wanted() -> None:
    with bench(capture_content=True) as found:
        turn(found, ScriptedAttempt((call_of("double"),), finish="tool_calls"), ["8"])
        tool = next(attributes(span) for span in found.spans if span.name == "execute_tool double")
        chat = next(attributes(span) for span in found.spans if span.name == "chat m")
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"x": 4}
    assert tool["gen_ai.tool.call.result"] == "8"
    assert json.loads(chat["gen_ai.output.messages"])[0]["parts"][0]["name"] == "double"


def test_a_turn_that_is_cancelled_ends_the_call_under_way_too() -> None:
    with bench() as found:
        agent = found.system.agent("helper", model="m", provider=ScriptedProvider(["a", HANG]), options=FAST)
        stream = agent.stream_chat("Hi")
        found.system.advance(1.0)
        stream.cancel()
        found.system.advance(1.0)
        agent.stop()
        spans = {span.name: attributes(span) for span in found.spans}
    assert spans["chat m"]["penstock.outcome"] == spans["invoke_agent helper"]["penstock.outcome"] == "cancelled"


def test_a_turn_that_fails_has_the_type_of_the_error() -> None:
    with bench(otel_semconv="latest") as found:
        turn(found, [BUSY])
        spans = {span.name: attributes(span) for span in found.spans}
        metrics = found.metrics()
    assert spans["chat m"]["error.type"] == spans["invoke_agent helper"]["error.type"] == "503"
    assert "gen_ai.provider.name" not in spans["invoke_agent helper"]
    assert metrics["gen_ai.invoke_agent.duration"][0].attributes == {
        "gen_ai.agent.name": "helper",
        "error.type": "503",
    }


# --- metrics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("semconv", CONVENTIONS)
def test_every_metric_of_the_version_is_recorded_and_no_other(semconv: Semconv) -> None:
    with bench(otel_semconv=semconv) as found:
        found.ask(["a", 0.2, "b", UsageDelta(USAGE)])
        turn(found, ScriptedAttempt((call_of("double"),), finish="tool_calls"), ["8"])
        metrics = found.metrics()
    assert set(metrics) == set(CONVENTIONS[semconv].metrics())


def test_metrics_of_a_call() -> None:
    with bench() as found:
        found.ask([1.0, "a", 0.5, "b", UsageDelta(USAGE)])
        found.ask([BUSY])
        metrics = found.metrics()
    about = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": "m",
        "server.address": "host.example",
        "server.port": 8443,
    }
    durations = metrics["gen_ai.client.operation.duration"]
    good, bad = sorted(durations, key=lambda point: "error.type" in point.attributes)
    assert good.attributes == about | {"gen_ai.response.model": "m"}
    assert bad.attributes == about | {"gen_ai.response.model": "m", "error.type": "503"}
    assert good.explicit_bounds == DURATIONS
    assert good.sum == pytest.approx(1.55, abs=0.06)
    [first] = metrics["gen_ai.client.operation.time_to_first_chunk"]
    assert first.sum == pytest.approx(1.0, abs=0.01)
    [chunks] = metrics["gen_ai.client.operation.time_per_output_chunk"]
    assert 0.4 < chunks.sum < 0.6
    tokens = {point.attributes["gen_ai.token.type"]: point for point in metrics["gen_ai.client.token.usage"]}
    assert (tokens["input"].sum, tokens["output"].sum) == (70, 9)
    assert tokens["input"].explicit_bounds == TOKENS


def test_tokens_are_counters_in_the_latest_version() -> None:
    with bench(otel_semconv="latest") as found:
        found.ask(["a", UsageDelta(USAGE)])
        metrics = found.metrics()
    usage = {name.removeprefix("gen_ai.client.inference.usage."): points[0].value
             for name, points in metrics.items() if ".usage." in name}  # fmt: skip
    assert usage == {
        "input_tokens": 70,
        "output_tokens": 9,
        "cache_read.input_tokens": 40,
        "cache_write.input_tokens": 5,
        "reasoning.output_tokens": 3,
    }
    assert metrics["gen_ai.client.inference.operation.input_tokens"][0].sum == 70


def test_metrics_of_agents_in_the_latest_version() -> None:
    with bench(otel_semconv="latest") as found:
        turn(found, ScriptedAttempt((call_of("double"),), finish="tool_calls"), ["8"])
        metrics = found.metrics()
    assert metrics["gen_ai.invoke_agent.inference_calls"][0].sum == 2
    assert metrics["gen_ai.invoke_agent.tool_calls"][0].sum == 1
    assert metrics["gen_ai.execute_tool.duration"][0].attributes == {"gen_ai.tool.name": "double"}


def test_generated_names_of_agents_are_one_in_metrics() -> None:
    with bench(otel_semconv="latest") as found:
        for _ in range(2):
            agent = found.system.agent(model="m", provider=ScriptedProvider(["a"]), options=FAST)
            agent.stream_chat("Hi")
            found.system.advance(1.0)
            agent.stop()
        points = found.metrics()["gen_ai.invoke_agent.duration"]
    assert [(point.attributes, point.count) for point in points] == [({"gen_ai.agent.name": "other"}, 2)]


# --- on and off ----------------------------------------------------------------------------------------------------


def test_a_system_is_instrumented_once() -> None:
    with bench() as found:
        instrument(found.system)
        found.ask(["a"])
        assert len(found.spans) == 1


def test_options_of_another_kind_are_refused() -> None:
    with SimulatedSystem() as system, pytest.raises(OptionError, match="options"):
        instrument(system, options="1.41")  # type: ignore[arg-type]


def test_without_an_sdk_nothing_is_kept_and_with_one_that_comes_later_all_is() -> None:
    code = """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from penstock.telemetry.opentelemetry import instrument
        from penstock.testing import ScriptedProvider, SimulatedSystem

        with SimulatedSystem() as system:
            instrument(system)
            observer, = system._table.observers
            system.chat("m", "Hi", provider=ScriptedProvider(["a"]))
            assert not observer._watched
            system.advance(1.0)
            exporter = InMemorySpanExporter()
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            trace.set_tracer_provider(provider)
            system.chat("m", "Hi", provider=ScriptedProvider(["a"]))
            assert len(observer._watched) == 1
            system.advance(1.0)
            assert not observer._watched
            print(len(exporter.get_finished_spans()))
    """
    root = str(Path(penstock.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={"PYTHONPATH": root, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["1"], done.stderr
