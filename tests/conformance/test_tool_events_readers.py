"""An answer with function calls, as every kind of subscriber sees it, whatever breaks in between."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pykka
import pytest

import penstock
from penstock.actors.runtime import inspect
from penstock.events import (
    Event,
    StreamReset,
    StreamSnapshot,
    StreamStarted,
    TokenEvent,
    ToolApprovalRequested,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolEvent,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
    to_dict,
)
from penstock.testing import Collector, SimulatedSystem, check_log, kill
from tests.conformance.common import FAST, Sink
from tests.conformance.streams import BrokenJournal

CALL = ToolCall(id="c1", name="add", arguments={"x": 1}, arguments_raw='{"x":1}')
STORY: list[str | ToolEvent] = [
    StreamStarted(model="m"),
    "Let me ",
    "see.",
    ToolCallStarted(id="c1", name="add", index=0),
    ToolCallDelta(index=0, text='{"x"'),
    ToolCallDelta(index=0, text=":1}"),
    ToolCallCompleted(index=0, call=CALL),
    ToolApprovalRequested(call=CALL),
    ToolExecutionStarted(round=1, calls=(CALL,)),
    ToolProgress(call_id="c1", name="add", progress={"done": 0.5}),
    ToolResult(call_id="c1", name="add", content="2", duration_s=0.1),
    "It is ",
    "two.",
]
KINDS = [
    "StreamStarted",
    "Let me see.",
    "ToolCallStarted",
    "ToolCallDelta",
    "ToolCallDelta",
    "ToolCallCompleted",
    "ToolApprovalRequested",
    "ToolExecutionStarted",
    "ToolProgress",
    "ToolResult",
    "It is two.",
    "StreamCompleted",
]


def tell(stream: penstock.Stream, story: list[str | ToolEvent]) -> None:
    for part in story:
        if isinstance(part, str):
            stream.process_token(part)
        else:
            assert stream._record.intake.push_event(part)


def kinds(events: list[Any]) -> list[str]:
    return [event.text if isinstance(event, TokenEvent) else type(event).__name__ for event in events]


class Listener(pykka.ThreadingActor):
    def __init__(self, events: list[Event]) -> None:
        super().__init__()
        self._events = events

    def on_receive(self, message: Any) -> None:
        self._events.append(message)


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_every_subscriber_sees_the_same_events_in_the_same_order(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = system.open_stream(options=FAST, metadata={"user": 7})
        collector = Collector(stream)
        iterator = stream.events()
        tell(stream, STORY)
        system.advance(1)
        stream.stop()
        seen = list(iterator)
        assert kinds(seen) == KINDS
        assert [event.seq for event in seen] == list(range(1, len(KINDS) + 1))
        assert {event.stream_id for event in seen} == {stream.stream_id}
        assert all(event.metadata == {"user": 7} for event in seen if not isinstance(event, penstock.Disconnected))
        collector.wait_for_terminal()
        assert collector.events == seen == list(stream.events())
        collector.check()
        check_log(stream)

        async def read() -> list[Event]:
            return [event async for event in stream.aevents()]

        assert asyncio.run(read()) == seen
        for after in range(len(KINDS)):
            assert list(stream.events(after=after)) == seen[after:]


def test_a_foreign_actor_is_told_the_same() -> None:
    with penstock.System() as system:
        told: list[Event] = []
        listener = Listener.start(told)
        stream = system.open_stream(options=FAST)
        stream.subscribe(listener)
        tell(stream, STORY)
        stream.stop()
        seen = list(stream.events())
        listener.stop()
        assert told == seen
        assert kinds(told) == KINDS


def test_every_event_can_be_written_as_json() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream(options=FAST, metadata={"user": 7})
        tell(stream, STORY)
        stream.stop()
        for event, kind in zip(stream.events(), KINDS, strict=True):
            plain = json.loads(msgspec.json.encode(to_dict(event)))
            assert plain["type"] == ("TokenEvent" if " " in kind else kind)
            assert (plain["seq"], plain["metadata"]) == (event.seq, {"user": 7})


@pytest.mark.sample(5)
@pytest.mark.seeds(30)
def test_a_stream_that_crashes_again_and_again_loses_and_doubles_nothing(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = system.open_stream(options=FAST, restart="transient")
        collector = Collector(stream)
        for place, part in enumerate(STORY):
            tell(stream, [part])
            if place % 2:
                system.settle()
            if place % 3 == seed % 3:
                kill(system, stream)
                system.advance(10)  # so that its supervisor does not give it up
        system.advance(1)
        stream.stop()
        collector.wait_for_terminal()
        collector.check()
        shown = kinds(collector.events)
        tools = [kind for kind in shown if kind.startswith(("Tool", "Stream"))]
        assert tools == [kind for kind in KINDS if kind.startswith(("Tool", "Stream"))]
        assert collector.text == "Let me see.It is two."
        before_tools = shown[: shown.index("ToolCallStarted")]
        assert "".join(before_tools) == "StreamStartedLet me see."
        assert [event.seq for event in collector.events] == list(range(1, len(shown) + 1))


@pytest.mark.parametrize("failing", range(1, len(KINDS) - 1))
def test_whichever_event_the_journal_refuses_it_is_there_in_the_end_and_once(failing: int) -> None:
    journal = BrokenJournal()

    def fail() -> None:
        if len(journal.events) == failing:
            journal.failures, journal.before = 1, None

    journal.before = fail
    with SimulatedSystem() as system:
        stream = system.open_stream(options=FAST, journal=journal)
        tell(stream, STORY)
        system.advance(0.1)
        assert stream.state == "error"
        assert stream._record.log.last_seq == failing
        system.advance(5)
        stream.stop()
        assert kinds(list(stream.events())) == KINDS
        assert journal.events == list(stream._record.log)


def test_a_reset_voids_calls_and_results_for_whoever_comes_late() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream(options=FAST.replace(retain_bytes=0))
        tell(stream, STORY)
        system.settle()
        before = stream.events().next(timeout=0)
        assert isinstance(before, StreamSnapshot)
        assert (before.tool_calls, [one.content for one in before.tool_results]) == ((CALL,), ["2"])
        stream.reset("again")
        late = stream.events().next(timeout=0)
        assert isinstance(late, StreamSnapshot)
        assert (late.text, late.tool_calls, late.tool_results) == ("", (), ())
        collector = Collector(stream)
        tell(stream, [STORY[3], "b"])
        system.advance(1)
        assert kinds(collector.events) == ["", "ToolCallStarted", "b"]
        assert collector.text == "b"


def test_a_reset_is_in_its_place_among_the_events() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream(options=FAST)
        collector = Collector(stream)
        tell(stream, STORY[:5])
        system.settle()
        stream.reset("again")
        tell(stream, STORY[1:])
        stream.stop()
        collector.wait_for_terminal()
        assert kinds(collector.events) == [*KINDS[:4], "StreamReset", *KINDS[1:]]
        assert isinstance(collector.events[4], StreamReset)


@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_a_chained_stream_passes_tool_events_on_in_their_place(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        small = FAST.replace(max_buffer_size=50, batch_size=1)
        first = system.open_stream(options=FAST)
        second = penstock.chain(system, first, lambda event: [token.upper() for token in event.tokens], options=small)
        collector = Collector(second)
        tell(first, STORY)
        system.advance(1)
        first.stop()
        collector.wait_for_terminal()
        shown = kinds(collector.events)
        expected = [*KINDS[:1], "LET ME ", "SEE.", *KINDS[2:10], "IT IS ", "TWO.", KINDS[-1]]
        assert shown == expected
        assert [event.seq for event in collector.events] == list(range(1, len(shown) + 1))
        assert {event.stream_id for event in collector.events} == {second.stream_id}


def test_losing_its_reader_in_the_middle_of_a_call_ends_a_stream_as_ever() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream(options=FAST, on_orphan="cancel")
        tell(stream, STORY[:5])
        for event in stream:
            if isinstance(event, ToolCallDelta):
                break
        del event
        system.settle()
        assert stream.is_over
        assert not stream._record.intake.push_event(STORY[5])  # type: ignore[arg-type]


@pytest.mark.parametrize("slow", ["block", "coalesce", "drop"])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.seeds(3)
def test_a_reader_from_the_start_gets_folded_events_and_no_snapshot(
    seed: int, slow: Any, reset: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.actors.stream.log._UNREAD", 0)  # pieces may not stay for readers
    with SimulatedSystem(seed) as system:
        stream = system.open_stream("s", FAST)
        iterator = stream.events(slow=slow, window=64)
        told: list[Any] = []
        listener = system.runtime.spawn(Sink, told)
        stream.subscribe(listener, slow, window=64)
        expected = KINDS[:-1]
        if reset:
            tell(stream, ["void"])
            system.advance(1)
            stream.reset("again")
            system.advance(1)
            assert kinds([iterator.next(timeout=0) for _ in range(2)]) == ["void", "StreamReset"]
            assert kinds(told) == ["void", "StreamReset"]
            told.clear()
        inspect.suspend(listener)
        stream._record.log.retain_bytes = 1
        tell(stream, STORY)
        system.advance(1)
        assert stream._record.log.first_seq > stream._record.log.last_seq  # all are folded
        stream.stop()
        read = list(iterator)
        inspect.resume(listener)
        system.advance(1)
        for events in (read, told):
            assert not any(isinstance(event, StreamSnapshot) for event in events)
            assert isinstance(events[-1], penstock.StreamCompleted)
            assert "".join(event.text for event in events if isinstance(event, TokenEvent)) == "Let me see.It is two."
        # pieces of arguments and progress reports are not kept
        assert kinds(read) == [*(kind for kind in expected if kind not in ("ToolCallDelta", "ToolProgress")), KINDS[-1]]
