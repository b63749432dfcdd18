"""Spans and metrics of OpenTelemetry for generative AI. Needs the extra ``otel``: ``pip install "penstock[otel]"``.

Configure OpenTelemetry's SDK as usual, and call `instrument` once for each system::

    from penstock.telemetry.opentelemetry import instrument

    instrument(system)

A stream that a provider feeds is a span ``chat MODEL``. An agent's turn is ``invoke_agent NAME``, with a span ``chat
MODEL`` for each round and ``execute_tool NAME`` for each call of a tool. The parent is the current span of the code
that opens the stream, else the ``traceparent`` of the gateway's request, else that in the stream's metadata. Spans have
no token text, arguments or results unless the setting ``telemetry.capture_content`` says so.

Where no SDK is configured when a stream is opened, nothing is done for it.
"""

from __future__ import annotations

from typing import Final

import msgspec
from opentelemetry import context, metrics, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from penstock.actors.call.record import CallRecord
from penstock.actors.stream.feed import Feed
from penstock.actors.stream.outcome import Outcome
from penstock.actors.stream.record import StreamRecord
from penstock.config.telemetry import TelemetryOptions
from penstock.config.version import __version__
from penstock.errors import OptionError, PenstockError
from penstock.events import (
    SideEvent,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamStarted,
    TerminalEvent,
    ToolExecutionStarted,
    ToolResult,
)
from penstock.system import System
from penstock.telemetry.conventions import CONVENTIONS
from penstock.telemetry.described import (
    Attributes,
    answer_attributes,
    error_type,
    identity,
    input_messages,
    output_messages,
    request_attributes,
    usage_attributes,
)
from penstock.telemetry.instruments import Instruments
from penstock.telemetry.propagation import caller_traceparent

__all__ = ["GenAiObserver", "instrument"]

_NAME: Final = "penstock"
_INERT: Final = frozenset({"ProxyTracerProvider", "NoOpTracerProvider", "_ProxyMeterProvider", "NoOpMeterProvider"})


def instrument(
    system: System,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    options: TelemetryOptions | None = None,
) -> None:
    """Make spans and metrics of the streams that a system opens from now on. Harmless if that has been done.

    Args:
        system: it need not have been started.
        tracer_provider: None takes OpenTelemetry's global one at the opening of each stream.
        meter_provider: the same for metrics.
        options: None takes the system's settings.

    Raises:
        OptionError: ``options`` is not a `TelemetryOptions`.
    """
    options = system.settings.telemetry if options is None else options
    if not isinstance(options, TelemetryOptions):
        raise OptionError("options", type(options).__name__, "a TelemetryOptions, or None")
    if not any(isinstance(observer, GenAiObserver) for observer in system._table.observers):
        system._table.observe(GenAiObserver(tracer_provider, meter_provider, options))


class _Watched:
    """What is known of one stream while it runs."""

    __slots__ = ("agent", "arguments", "began", "calls", "parent", "reported", "span", "tools")

    def __init__(self, parent: context.Context, began: float) -> None:
        self.parent = parent
        self.began = began  # Unix time
        self.span: Span | None = None  # of the call, or of the agent's turn
        self.agent = ""  # the agent's name
        self.reported = 0  # the last round whose span is made
        self.calls = 0
        self.tools = 0
        self.arguments: dict[str, str] = {}  # of tools that run, by the call's id; only if content is captured


class GenAiObserver:
    """Implements `penstock.actors.stream.observing.StreamObserver`. Made by `instrument`."""

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None,
        meter_provider: metrics.MeterProvider | None,
        options: TelemetryOptions,
    ) -> None:
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider
        self._options = options
        self._names = CONVENTIONS[options.otel_semconv]
        self._watched: dict[int, _Watched] = {}  # by the record's serial
        self._tracer: trace.Tracer | None = None
        self._instruments: Instruments | None = None

    def _is_active(self) -> bool:
        """Whether there is an SDK. The tracer and the instruments are made when it is first seen."""
        if self._tracer is not None:
            return True
        traces = self._tracer_provider or trace.get_tracer_provider()
        meters = self._meter_provider or metrics.get_meter_provider()
        if type(traces).__name__ in _INERT and type(meters).__name__ in _INERT:
            return False
        self._instruments = Instruments(meters.get_meter(_NAME, __version__), self._names)
        self._tracer = traces.get_tracer(_NAME, __version__)
        return True

    # --- StreamObserver ------------------------------------------------------------------------------------------

    def opened(self, record: StreamRecord) -> None:
        """See `StreamObserver.opened`."""
        if not self._is_active():
            return
        watched = self._watched[record.serial] = _Watched(_parent_of(record), record.created_at)
        call = record.feed
        if isinstance(call, CallRecord) and call.conductor is None:
            watched.span = self._start(watched, call, record)

    def happened(self, record: StreamRecord, event: SideEvent | StreamReset) -> None:
        """See `StreamObserver.happened`."""
        watched = self._watched.get(record.serial)
        if watched is None:
            return
        match event:
            case StreamStarted(timestamp=time, model=model):  # of an agent's turn
                watched.began = time
                self._start_turn(watched, record, model)
            case ToolExecutionStarted(calls=calls) if self._options.capture_content:
                watched.arguments.update((call.id, call.arguments_raw) for call in calls)
            case ToolResult():
                self._add_tool(watched, event)

    def called(self, record: StreamRecord, feed: Feed, error: PenstockError | None) -> None:
        """See `StreamObserver.called`."""
        watched = self._watched.get(record.serial)
        if watched is not None and isinstance(feed, CallRecord) and feed.conductor is not None:
            watched.agent = feed.conductor.name
            self._add_round(watched, record, feed, error, "completed" if error is None else "failed")

    def ended(self, record: StreamRecord, terminal: TerminalEvent) -> None:
        """See `StreamObserver.ended`."""
        watched = self._watched.pop(record.serial, None)
        if watched is None:
            return
        call, error, outcome = record.feed, _error_of(terminal), _outcome_of(terminal)
        if not isinstance(call, CallRecord):
            if watched.span is not None:  # an agent's turn that ended before the model was asked
                self._end_turn(watched, record, terminal, None)
        elif call.conductor is None:
            self._end_chat(watched, record, call, terminal)
        else:
            watched.agent = call.conductor.name
            if watched.reported < call.round and call.attempts:
                self._add_round(watched, record, call, error, outcome)
            self._end_turn(watched, record, terminal, call)

    # --- spans of a call -----------------------------------------------------------------------------------------

    def _start(self, watched: _Watched, call: CallRecord, record: StreamRecord, began: float | None = None) -> Span:
        assert self._tracer is not None
        attributes = identity("chat", call) | request_attributes(call, self._names)
        attributes["penstock.stream.id"] = record.stream_id
        conversation = record.metadata.get("conversation_id")
        if isinstance(conversation, str):
            attributes["gen_ai.conversation.id"] = conversation
        if self._options.capture_content:
            attributes["gen_ai.input.messages"] = input_messages(call.call.input)
        parent = watched.parent if watched.span is None else trace.set_span_in_context(watched.span, watched.parent)
        return self._tracer.start_span(
            f"chat {call.call.model}",
            context=parent,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=_ns(watched.began if began is None else began),
        )

    def _add_round(
        self, watched: _Watched, record: StreamRecord, call: CallRecord, error: PenstockError | None, outcome: str
    ) -> None:
        """Make the span of one round of an agent's turn, which is over."""
        if watched.reported >= call.round:
            return
        watched.reported = call.round
        watched.calls += 1
        self._start_turn(watched, record, call.call.model)
        began = watched.began if call.began_at is None else call.began_at
        self._finish_chat(
            self._start(watched, call, record, began),
            call,
            call.outcome(),
            error,
            outcome,
            began=began,
            now=record.runtime.clock.time(),
        )

    def _end_chat(self, watched: _Watched, record: StreamRecord, call: CallRecord, terminal: TerminalEvent) -> None:
        """End the span of a stream that is one call."""
        assert watched.span is not None
        outcome = msgspec.structs.replace(
            call.outcome(), text=terminal.text if isinstance(terminal, StreamCompleted) else terminal.partial,
            reasoning=terminal.reasoning,
        )  # fmt: skip
        began, now = watched.began, terminal.timestamp
        self._finish_chat(watched.span, call, outcome, _error_of(terminal), _outcome_of(terminal), began=began, now=now)
        self._record_chunks(record, call)

    def _finish_chat(
        self,
        span: Span,
        call: CallRecord,
        outcome: Outcome,
        error: PenstockError | None,
        how: str,
        *,
        began: float,
        now: float,
    ) -> None:
        assert self._instruments is not None
        about = identity("chat", call)  # a fallback may have answered
        attributes: Attributes = about | answer_attributes(outcome, self._names)
        attributes |= {"penstock.outcome": how, "penstock.attempts": call.attempts}
        if how == "completed":
            attributes["gen_ai.response.finish_reasons"] = [outcome.finish_reason]
        if call.first_delta_at is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = call.first_delta_at - began
        if self._options.capture_content:
            reason = outcome.finish_reason if how == "completed" else None
            attributes["gen_ai.output.messages"] = output_messages(
                outcome.text, outcome.reasoning, outcome.tool_calls, reason
            )
        span.update_name(f"chat {call.call.model}")
        span.set_attributes(attributes)
        if outcome.model:
            about["gen_ai.response.model"] = outcome.model
        first = None if call.first_delta_at is None else call.first_delta_at - began
        self._instruments.called(about, now - began, first, outcome.usage, _end(span, error, now))

    def _record_chunks(self, record: StreamRecord, call: CallRecord) -> None:
        assert self._instruments is not None
        counters = record.counters
        if counters.first_delivery is not None and (count := record.log.tokens - counters.first_tokens) > 0:
            seconds = counters.last_delivery - counters.first_delivery
            self._instruments.chunks(identity("chat", call), seconds / count)

    # --- spans of an agent's turn --------------------------------------------------------------------------------

    def _start_turn(self, watched: _Watched, record: StreamRecord, model: str | None) -> None:
        if watched.span is not None:
            return
        assert self._tracer is not None
        attributes: Attributes = {"gen_ai.operation.name": "invoke_agent", "penstock.stream.id": record.stream_id}
        if model:
            attributes["gen_ai.request.model"] = model
        watched.span = self._tracer.start_span(
            "invoke_agent",
            context=watched.parent,
            kind=SpanKind.INTERNAL,
            attributes=attributes,
            start_time=_ns(watched.began),
        )

    def _add_tool(self, watched: _Watched, result: ToolResult) -> None:
        """Make the span of a tool that has run."""
        assert self._tracer is not None
        assert self._instruments is not None
        watched.tools += 1
        attributes: Attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": result.name,
            "gen_ai.tool.call.id": result.call_id,
            "gen_ai.tool.type": "function",
        }
        if self._options.capture_content:
            attributes["gen_ai.tool.call.arguments"] = watched.arguments.pop(result.call_id, "")
            attributes["gen_ai.tool.call.result"] = result.content
        parent = watched.parent if watched.span is None else trace.set_span_in_context(watched.span, watched.parent)
        span = self._tracer.start_span(
            f"execute_tool {result.name}",
            context=parent,
            kind=SpanKind.INTERNAL,
            attributes=attributes,
            start_time=_ns(result.timestamp - result.duration_s),
        )
        failure = None if result.status == "ok" else result.status
        if failure is not None:
            span.set_attribute("error.type", failure)
            span.set_status(Status(StatusCode.ERROR))
        span.end(_ns(result.timestamp))
        self._instruments.tool(result.name, result.duration_s, failure)

    def _end_turn(
        self, watched: _Watched, record: StreamRecord, terminal: TerminalEvent, call: CallRecord | None
    ) -> None:
        assert self._instruments is not None
        self._start_turn(watched, record, None)
        span = watched.span
        assert span is not None
        attributes = usage_attributes(terminal.usage, self._names)
        attributes["penstock.outcome"] = _outcome_of(terminal)
        if watched.agent:
            span.update_name(f"invoke_agent {watched.agent}")
            attributes["gen_ai.agent.name"] = watched.agent
        if call is not None and self._names.has_agents_provider:
            attributes["gen_ai.provider.name"] = identity("invoke_agent", call)["gen_ai.provider.name"]
        span.set_attributes(attributes)
        failure = _end(span, _error_of(terminal), terminal.timestamp)
        seconds = terminal.timestamp - watched.began
        self._instruments.turn(watched.agent, seconds, watched.calls, watched.tools, failure)
        if call is not None:
            self._record_chunks(record, call)


def _parent_of(record: StreamRecord) -> context.Context:
    """The context of the code that opened a stream, or that of a ``traceparent``, if it has no span."""
    found, header = record.context.copy().run(_current)
    if trace.get_current_span(found).get_span_context().is_valid:
        return found
    told = header or record.metadata.get("traceparent")
    if not isinstance(told, str):
        return found
    return TraceContextTextMapPropagator().extract({"traceparent": told}, context=found)


def _current() -> tuple[context.Context, str]:
    return context.get_current(), caller_traceparent.get()


def _end(span: Span, error: PenstockError | None, now: float) -> str | None:
    """End a span at a Unix time; returns the type of the error. Its message may quote anything, so it is not told."""
    failure = None if error is None else error_type(error)
    if failure is not None:
        span.set_attribute("error.type", failure)
        span.set_status(Status(StatusCode.ERROR))
    span.end(_ns(now))
    return failure


def _error_of(terminal: TerminalEvent) -> PenstockError | None:
    return terminal.error if isinstance(terminal, StreamFailed) else None


def _outcome_of(terminal: TerminalEvent) -> str:
    if isinstance(terminal, StreamCompleted):
        return "completed"
    return "cancelled" if isinstance(terminal, StreamCancelled) else "failed"


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
