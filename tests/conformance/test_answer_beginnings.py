"""What begins an answer, and what becomes of the events before that: retries, resumed answers, ends without a word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import penstock
from penstock.config.options import StreamOptions
from penstock.errors import ApiError, PenstockError
from penstock.events import (
    Citation,
    Event,
    Logprobs,
    MediaPart,
    ProviderEvent,
    ReasoningBlock,
    ServerToolCall,
    TokenEvent,
    TokenLogprob,
    Usage,
)
from penstock.ports import (
    BlockDelta,
    BlockStart,
    ChoiceDelta,
    CitationDelta,
    Delta,
    ErrorDelta,
    EventDelta,
    FinishDelta,
    MetadataDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)
from penstock.testing import Collector, ResumableProvider, ScriptedAttempt, ScriptedProvider, SimulatedSystem
from tests.conformance.common import FAST

BUSY = ApiError(503, "busy", retryable=True)
STOP = FinishDelta("stop", "stop")
CITED = CitationDelta(Citation(kind="url", url="u"), is_of_block=True)
CALL = ToolCallFragment(index=0, id="c", name="f", arguments="{}")
ONCE = penstock.RequestOptions(max_retries=0)
QUICK = penstock.RequestOptions(retry_base_delay=0.1)


class Notes:
    """A journal."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def append(self, event: Event) -> None:
        self.events.append(event)


def raw(name: str, size: int = 0) -> EventDelta:
    return EventDelta(ProviderEvent(type=name, payload="x" * size))


def attempt(*steps: Any) -> ScriptedAttempt:
    return ScriptedAttempt(steps, finish=None)


def told(events: Sequence[Event]) -> list[Any]:
    return [
        (event.text, event.part, event.phase)
        if isinstance(event, TokenEvent)
        else getattr(event, "type", type(event).__name__)
        for event in events
    ]


# --- what begins an answer -------------------------------------------------------------------------------------------

ABOUT: tuple[Delta, ...] = (
    raw("x"),
    BlockStart("text", phase="commentary"),
    CITED,
    BlockDelta({"type": "container", "id": "c"}),
    MetadataDelta({"container": "c"}),
    UsageDelta(Usage(input_tokens=1)),
    EventDelta(Logprobs(tokens=(TokenLogprob(token="a", logprob=-1.0),))),
)
SAID: tuple[Delta, ...] = (
    TextDelta("void"),
    ReasoningDelta("void"),
    RefusalDelta("void"),
    CALL,
    EventDelta(MediaPart(kind="image", data="aGk=")),
    EventDelta(ServerToolCall(id="s", name="web_search")),
    ReasoningBlockDelta(ReasoningBlock(kind="k", signature="s")),
    ChoiceDelta(1, TextDelta("void")),
)


@pytest.mark.parametrize("delta", ABOUT, ids=repr)
def test_what_is_about_the_answer_does_not_prevent_a_retry_and_goes_with_the_attempt(delta: Delta) -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(attempt(delta, BUSY), attempt("fine", STOP))
        stream = system.chat("m", "x", provider=provider, options=FAST, request_options=QUICK)
        collector = Collector(stream)
        end = stream.result(timeout=10)
        system.settle()
        assert told(collector.events) == [("fine", 0, None), "StreamCompleted"]
        assert (end.citations, end.provider_blocks, dict(end.provider_metadata)) == ((), (), {})


@pytest.mark.parametrize("delta", SAID, ids=repr)
def test_what_the_model_says_prevents_a_retry(delta: Delta) -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(attempt(delta, BUSY), attempt("fine", STOP))
        stream = system.chat("m", "x", provider=provider, options=FAST, request_options=QUICK)
        with pytest.raises(ApiError):
            stream.result(timeout=10)
        assert provider.requests == 1


@pytest.mark.parametrize("delta", [CITED, BlockDelta({"type": "b"}), ABOUT[-1]], ids=repr)
def test_what_is_about_the_answer_keeps_it_alive_once_it_has_begun(delta: Delta) -> None:
    with SimulatedSystem(1) as system:
        steps = ["a", *[step for _ in range(4) for step in (4.0, delta)], STOP]
        options = penstock.RequestOptions(idle_timeout=5.0)
        stream = system.chat(
            "m", "x", provider=ScriptedProvider(attempt(*steps)), options=FAST, request_options=options
        )
        assert stream.result(timeout=60).text == "a"


@pytest.mark.parametrize("together", [True, False])
def test_what_was_held_comes_before_what_begins_the_answer_in_order(together: bool) -> None:
    with SimulatedSystem(1) as system:
        deltas = [raw("1"), CITED, raw("2"), BlockStart("text", phase="commentary"), TextDelta("a"), raw("3"), STOP]
        steps = [deltas] if together else deltas
        stream = system.chat("m", "x", provider=ScriptedProvider(attempt(*steps)), options=FAST)
        collector = Collector(stream)
        stream.result(timeout=10)
        system.settle()
        assert told(collector.events) == ["1", "Citation", "2", ("a", 0, "commentary"), "3", "StreamCompleted"]


# --- ends without a beginning ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["error in the stream", "broken", "cancelled", "stopped", "cancelled between attempts"])
def test_what_was_held_is_told_if_the_answer_never_begins(how: str) -> None:
    last = {"error in the stream": ErrorDelta(ApiError(400, "bad")), "broken": BUSY}.get(how, 60.0)
    journal = Notes()
    with SimulatedSystem(1, journal=journal) as system:
        first = attempt(raw("1"), raw("2"), BlockStart("text"), CITED, last)
        if how == "cancelled between attempts":
            first = attempt(raw("1"), raw("2"), CITED, BUSY)
        options = penstock.RequestOptions(max_retries=1, retry_base_delay=30.0) if "between" in how else ONCE
        stream = system.chat("m", "x", provider=ScriptedProvider(first), options=FAST, request_options=options)
        collector = Collector(stream)
        system.advance(1.0)
        if "cancelled" in how:
            stream.cancel()
        elif how == "stopped":
            stream.stop()
        system.settle()
        assert told(collector.events)[:3] == ["1", "2", "Citation"]
        assert len(collector.events) == 4
        assert [event.seq for event in collector.events] == [1, 2, 3, 4]
        assert {event.stream_id for event in collector.events} == {stream.stream_id}
        assert journal.events == collector.events


def test_what_an_attempt_that_was_retried_had_is_not_told_at_the_end() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(attempt(raw("first"), BUSY), attempt(raw("last"), BUSY))
        options = penstock.RequestOptions(max_retries=1, retry_base_delay=0.1)
        stream = system.chat("m", "x", provider=provider, options=FAST, request_options=options)
        collector = Collector(stream)
        with pytest.raises(ApiError):
            stream.result(timeout=10)
        system.settle()
        assert told(collector.events) == ["last", "StreamFailed"]


def test_held_raw_events_are_bounded_in_bytes_and_those_without_room_are_counted() -> None:
    with SimulatedSystem(1) as system:
        steps = [*(raw(str(number), 100_000) for number in range(100)), "a", raw("later"), STOP]
        stream = system.chat("m", "x", provider=ScriptedProvider(attempt(*steps)), options=FAST)
        collector = Collector(stream)
        end = stream.result(timeout=10)
        system.settle()
        names = [event.type for event in collector.events if isinstance(event, ProviderEvent)]
        assert 10 < len(names) < 50
        assert names == [*map(str, range(len(names) - 1)), "later"]
        assert end.provider_metadata == {"dropped_events": 101 - len(names)}


def test_one_raw_event_is_held_however_large_it_is() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(attempt([raw("all", 8_000_000), TextDelta("a")], STOP))
        stream = system.chat("m", "x", provider=provider, options=FAST)
        collector = Collector(stream)
        assert dict(stream.result(timeout=10).provider_metadata) == {}
        system.settle()
        assert told(collector.events) == ["all", ("a", 0, None), "StreamCompleted"]


def test_the_starts_of_blocks_before_the_answer_replace_one_another() -> None:
    with SimulatedSystem(1) as system:
        phases: tuple[Any, ...] = ("commentary", None)
        steps = [*(BlockStart("text", phase=phases[number % 2]) for number in range(2000)), 5.0]
        stream = system.chat("m", "x", provider=ScriptedProvider(attempt(*steps)), options=FAST)
        system.advance(1.0)
        feed: Any = stream._record.feed
        assert len(feed.builder.held.take()) == 1
        stream.cancel()


def test_a_cancelled_answer_that_is_only_a_picture_has_a_usage() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(attempt(EventDelta(MediaPart(kind="image", data="aGk=")), 60.0))
        stream = system.chat("m", "Hello world", provider=provider, options=FAST)
        system.advance(1.0)
        stream.cancel()
        system.settle()
        usage = stream.statistics().usage
        assert usage is not None
        assert (usage.input_tokens, usage.output_tokens) == (3, 0)


# --- answers that are resumed ----------------------------------------------------------------------------------------

WHOLE: dict[str, tuple[Delta, ...]] = {
    "parts": (TextDelta("a"), BlockStart("text"), BlockStart("text"), TextDelta("b"), CITED),
    "phases": (TextDelta("a"), BlockStart("text", phase="final_answer"), raw("r"), TextDelta("b"), CITED),
    "calls": (CALL, BlockStart("text"), TextDelta("b"), CITED),
    "raw": (TextDelta("abc"), raw("1"), raw("2"), TextDelta("d"), raw("3")),
    "blocks": (
        TextDelta("abc"),
        BlockStart("text", is_joint=False),
        TextDelta("de"),
        CITED,
        BlockDelta({"type": "b"}),
        TextDelta("f"),
    ),
}


def _letters(event: tuple[str, int, Any]) -> list[Any]:
    """Batches may be cut differently."""
    text, part, phase = event
    return [(letter, part, phase) for letter in text]


def _resumed(*attempts: Sequence[Any]) -> tuple[Any, ...]:
    with SimulatedSystem(1) as system:
        provider = ResumableProvider(*(attempt(*steps) for steps in attempts))
        options = penstock.RequestOptions(on_interrupt="resume", retry_base_delay=0.1)
        stream = system.chat("m", "x", provider=provider, options=FAST, request_options=options)
        collector = Collector(stream)
        end = stream.result(timeout=20)
        system.settle()
        assert provider.resumed == len(attempts) - 1
        places = [(one.start, one.end, one.part) for one in end.citations]
        events = [
            one
            for event in told(collector.events)
            for one in (_letters(event) if isinstance(event, tuple) else [event])
        ]
        return events, places, [(one.at, one.calls) for one in end.provider_blocks], end.parts


@pytest.mark.parametrize("name", WHOLE)
def test_an_answer_that_is_resumed_is_told_as_if_it_had_not_broken_off(name: str) -> None:
    whole = (*WHOLE[name], STOP)
    expected = _resumed(whole)
    for first in range(1, len(whole)):
        assert _resumed((*whole[:first], BUSY), whole) == expected
        for second in range(first, len(whole)):
            assert _resumed((*whole[:first], BUSY), (*whole[:second], BUSY), whole) == expected


# --- parts without text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [(), ("a",)])
def test_the_phase_of_a_part_without_text_does_not_stay_in_the_next_round(before: tuple[str, ...]) -> None:
    def f() -> str:
        """Do it."""
        return "done"

    with SimulatedSystem(1) as system:
        first = attempt(*before, BlockStart("text", phase="commentary"), CALL, FinishDelta("tool_calls", "t"))
        agent = system.agent(model="m", provider=ScriptedProvider(first, attempt("final", STOP)), tools=[f])
        stream = agent.stream_chat("x")
        collector = Collector(stream)
        end = stream.result(timeout=20)
        system.settle()
        assert told(collector.events)[-2] == ("final", len(before), None)
        assert [part.phase for part in end.parts] == [None] * len(end.parts)


def test_a_feed_that_cannot_say_what_it_held_does_not_prevent_the_end() -> None:
    with SimulatedSystem(1) as system:
        options = StreamOptions(batch_size=1, rate_limit=None)
        stream = system.chat("m", "x", provider=ScriptedProvider(attempt("a", 9.0)), options=options)
        system.advance(1.0)
        feed: Any = stream._record.feed
        feed.leftovers = lambda: 1 / 0
        stream.cancel()
        system.settle()
        assert isinstance(stream._record.log.terminal, penstock.StreamCancelled)
        with pytest.raises(PenstockError):
            stream.result(timeout=1)
