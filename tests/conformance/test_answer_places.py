"""What the terminal event repeats, and places in the text, over rounds, resets and ends that deliver not everything."""

from __future__ import annotations

from typing import Any

import pytest

import penstock
from penstock.config.options import StreamOptions
from penstock.errors import ApiError
from penstock.events import (
    Citation,
    Event,
    Logprobs,
    MediaPart,
    ReasoningBlock,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamReset,
    StreamSnapshot,
    TokenEvent,
    TokenLogprob,
    ToolCall,
)
from penstock.ports import (
    BlockDelta,
    BlockStart,
    CitationDelta,
    EventDelta,
    FinishDelta,
    ReasoningBlockDelta,
    TextDelta,
    ToolCallFragment,
)
from penstock.testing import Collector, ScriptedAttempt, ScriptedProvider, SimulatedSystem
from tests.conformance.common import FAST

BUSY = ApiError(503, "busy", retryable=True)
STOP = FinishDelta("stop", "stop")
CALLS = FinishDelta("tool_calls", "tool_use")
PAUSE = FinishDelta("other", "pause_turn")
CITED = CitationDelta(Citation(kind="url", url="u"), is_of_block=True)
UNPLACED = CitationDelta(Citation(kind="url", url="v"))
PICTURE = EventDelta(MediaPart(kind="image", data="aGk="))
PROBABLE = EventDelta(Logprobs(tokens=(TokenLogprob(token="a", logprob=-0.5),)))


def attempt(*steps: Any) -> ScriptedAttempt:
    return ScriptedAttempt(steps, finish=None)


def call(name: str) -> ToolCallFragment:
    return ToolCallFragment(index=0, id=name, name="f", arguments="{}")


def signed(name: str) -> ReasoningBlockDelta:
    return ReasoningBlockDelta(ReasoningBlock(kind="thinking", signature=name))


def searched(name: str) -> list[EventDelta]:
    return [
        EventDelta(ServerToolCall(id=name, name="web_search")),
        EventDelta(ServerToolResult(id=name, name="web_search")),
    ]


def f() -> str:
    """Do it."""
    return "done"


def repeated(events: list[Event]) -> dict[str, Any]:
    """The fields of the terminal event that repeat events."""
    voids = StreamReset | StreamSnapshot  # of a reset that is folded, only the snapshot is told
    reset = max((place for place, event in enumerate(events) if isinstance(event, voids)), default=-1)
    before = events[reset] if reset >= 0 else None
    events = [*getattr(before, "answer_events", ()), *events[reset + 1 :]]
    return {
        "citations": tuple(event for event in events if isinstance(event, Citation)),
        "media": tuple(event for event in events if isinstance(event, MediaPart) and not event.is_partial),
        "server_tools": tuple(event for event in events if isinstance(event, ServerToolCall | ServerToolResult)),
        "logprobs": tuple(token for event in events if isinstance(event, Logprobs) for token in event.tokens),
    }


def fields(end: Any) -> dict[str, Any]:
    return {name: getattr(end, name) for name in ("citations", "media", "server_tools", "logprobs")}


@pytest.mark.parametrize("retain_bytes", [0, 1_048_576])
@pytest.mark.parametrize("how", ["completed", "failed", "cancelled", "restarted", "fed"])
def test_the_terminal_event_repeats_the_very_events(how: str, retain_bytes: int) -> None:
    steps: list[Any] = ["a", CITED, PROBABLE, PICTURE, *searched("s"), "b", CITED, PROBABLE]
    last = {"failed": ApiError(400, "no"), "cancelled": 60.0, "restarted": BUSY}.get(how, STOP)
    with SimulatedSystem(1) as system:
        options = FAST.replace(retain_bytes=retain_bytes)
        request = penstock.RequestOptions(on_interrupt="restart", retry_base_delay=0.1)
        if how == "fed":
            stream = system.open_stream(options=options, metadata={"k": 1})
        else:
            provider = ScriptedProvider(attempt(*steps, last), attempt("c", *searched("t"), CITED, STOP))
            stream = system.chat(
                "m", "x", provider=provider, options=options, request_options=request, metadata={"k": 1}
            )
        collector = Collector(stream)
        if how == "fed":
            for step in steps:
                if isinstance(step, EventDelta):
                    stream.sink().push_event(step.event)
            stream.sink().end()
        system.advance(5.0)
        if how == "cancelled":
            stream.cancel()
        system.settle()
        end = collector.events[-1]
        assert fields(end) == repeated(collector.events)
        told = [event for name in ("citations", "media", "server_tools") for event in fields(end)[name]]
        assert told
        assert all(one.seq > 0 and one.stream_id == stream.stream_id and one.metadata == {"k": 1} for one in told)


# --- rounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finish", [CALLS, PAUSE])
def test_closed_reasoning_is_numbered_over_all_rounds_as_in_the_terminal_event(finish: FinishDelta) -> None:
    asked = [call("c")] if finish is CALLS else []
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(
            attempt(signed("1"), "a", signed("2"), *asked, finish), attempt(signed("3"), "b", STOP)
        )
        stream = system.agent(model="m", provider=provider, tools=[f]).stream_chat("x")
        collector = Collector(stream)
        end = stream.result(timeout=20)
        system.settle()
        closed = [(e.index, e.signature) for e in collector.events if isinstance(e, ReasoningBlockClosed)]
        assert closed == [(0, "1"), (1, "2"), (2, "3")]
        assert [block.signature for block in end.reasoning_blocks] == ["1", "2", "3"]


def test_made_up_ids_of_the_providers_own_tools_are_unique_over_the_rounds() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(
            attempt(*searched("server_0"), *searched("server_1"), call("c"), CALLS),
            attempt(*searched("server_0"), *searched("server_2"), call("d"), CALLS),
            attempt(*searched("server_0"), "end", STOP),
        )
        stream = system.agent(model="m", provider=provider, tools=[f]).stream_chat("x")
        end = stream.result(timeout=20)
        ids = [one.id for one in end.server_tools]
        names = ["server_0", "server_1", "server_0_2", "server_2", "server_0_3"]
        assert ids == [name for name in names for _ in range(2)]


def test_the_result_of_a_call_of_an_earlier_piece_keeps_its_id() -> None:
    with SimulatedSystem(1) as system:
        asked, answered = searched("s")
        provider = ScriptedProvider(attempt("a", asked, PAUSE), attempt(answered, "b", STOP))
        end = system.agent(model="m", provider=provider, tools=[f]).chat("x", timeout=20)
        assert [one.id for one in end.server_tools] == ["s", "s"]


def test_an_attempt_of_the_same_round_may_use_an_id_again() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(attempt(*searched("server_0"), BUSY), attempt(*searched("server_0"), "a", STOP))
        request = penstock.RequestOptions(on_interrupt="restart", retry_base_delay=0.1)
        stream = system.chat("m", "x", provider=provider, options=FAST, request_options=request)
        assert [one.id for one in stream.result(timeout=20).server_tools] == ["server_0", "server_0"]


def test_blocks_that_a_fallback_cannot_read_are_counted_in_a_later_round_too() -> None:
    second = ScriptedProvider(attempt("fine", STOP), name="backup")
    with SimulatedSystem(1, providers={"backup": second}) as system:
        provider = ScriptedProvider(attempt(BlockDelta({"type": "t"}), "a", call("c"), CALLS), attempt(BUSY))
        request = penstock.RequestOptions(fallback=("backup/other",), max_retries=0)
        agent = system.agent(model="m", provider=provider, tools=[f], request_options=request)
        end = agent.chat("x", timeout=20)
        assert (end.provider, dict(end.provider_metadata)) == ("backup", {"dropped_blocks": 1})


def test_blocks_of_the_same_provider_are_not_counted_in_a_later_round() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(attempt(BlockDelta({"type": "t"}), "a", call("c"), CALLS), attempt("b", STOP))
        end = system.agent(model="m", provider=provider, tools=[f]).chat("x", timeout=20)
        assert dict(end.provider_metadata) == {}


# --- a reset by the user ---------------------------------------------------------------------------------------------

BEFORE: tuple[Any, ...] = (
    signed("void"),
    "one",
    CITED,
    UNPLACED,
    PICTURE,
    *searched("s"),
    BlockDelta({"type": "void"}),
    BlockStart("text"),
    "two",
    PROBABLE,
)
AFTER: tuple[Any, ...] = (
    CITED,  # of "two"
    "mid",
    UNPLACED,
    BlockDelta({"type": "kept"}),
    signed("kept"),
    BlockStart("text", phase="final_answer"),
    "end",
    CITED,
    PICTURE,
)


def check_after_reset(collector: Collector, end: Any) -> None:
    events = collector.events
    assert fields(end) == repeated(events)
    start = next(place for place, event in enumerate(events) if isinstance(event, StreamReset))
    said = [(e.text, e.part, e.phase) for e in events[start:] if isinstance(e, TokenEvent)]
    assert said == [("mid", 0, None), ("end", 1, "final_answer")]
    assert end.text == "midend"
    assert [(p.index, p.start, p.end) for p in end.parts] == [(0, 0, 3), (1, 3, 6)]
    places = [(one.url, one.part, end.text[one.start : one.end] if one.end else None) for one in end.citations]
    assert places[-2:] == [("v", 0, None), ("u", 1, "end")]
    assert all(one.start is None or one.start < one.end <= 6 for one in end.citations)
    assert len(end.media) == 1
    assert not end.server_tools
    assert not end.logprobs
    assert [(block.data["type"], block.at) for block in end.provider_blocks] == [("kept", 3)]
    assert [block.signature for block in end.reasoning_blocks] == ["kept"]
    closed = [e.index for e in events[start:] if isinstance(e, ReasoningBlockClosed)]
    assert closed == [0]


def test_after_a_reset_by_the_user_places_fit_the_text_that_follows() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(attempt(*BEFORE, 1.0, *AFTER, STOP))
        stream = system.chat("m", "x", provider=provider, options=FAST)
        collector = Collector(stream)
        system.advance(0.5)
        stream.reset("again")
        end = stream.result(timeout=20)
        system.settle()
        check_after_reset(collector, end)


def test_a_reset_by_the_user_in_a_later_round_voids_the_rounds_before_and_not_the_history() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(
            attempt(signed("0"), "zero", CITED, *searched("r"), BlockDelta({"type": "first"}), call("c"), CALLS),
            attempt(*BEFORE, 1.0, *AFTER, STOP),
        )
        agent = system.agent(model="m", provider=provider, tools=[f], options=FAST)
        stream = agent.stream_chat("x")
        collector = Collector(stream)
        system.advance(0.5)
        stream.reset("again")
        end = stream.result(timeout=20)
        system.settle()
        check_after_reset(collector, end)
        assert end.tool_calls == ()
        messages = agent.history
        assert [message["content"] for message in messages] == ["x", "zero", "done", "onetwomidend"]
        blocks = [(block["data"]["type"], block["at"]) for block in messages[3]["provider_blocks"]]
        assert blocks == [("void", 3), ("kept", 9)]


def test_a_round_after_a_reset_by_the_user_goes_on_in_the_same_places() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(
            attempt("void", signed("1"), 1.0, signed("2"), "a", CITED, call("c"), CALLS),
            attempt("b", signed("3"), CITED, STOP),
        )
        stream = system.agent(model="m", provider=provider, tools=[f], options=FAST).stream_chat("x")
        collector = Collector(stream)
        system.advance(0.5)
        stream.reset("again")
        end = stream.result(timeout=20)
        system.settle()
        assert end.text == "ab"
        assert [(c.start, c.end, c.part) for c in end.citations] == [(0, 1, 0), (1, 2, 1)]
        assert [isinstance(one, ToolCall) and one.id for one in end.tool_calls] == ["c"]
        assert [block.signature for block in end.reasoning_blocks] == ["2", "3"]
        closed = [(e.index, e.signature) for e in collector.events if isinstance(e, ReasoningBlockClosed)]
        assert closed == [(0, "1"), (0, "2"), (1, "3")]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_reset_with_text_in_the_buffer_counts_it(size: int) -> None:
    """Text that the provider sent and that waits for room when the reset comes belongs to what follows."""
    with SimulatedSystem(1) as system:
        options = StreamOptions(batch_size=1, rate_limit=None, max_buffer_size=size)
        letters = [TextDelta(letter) for letter in "abcdefgh"]
        provider = ScriptedProvider(attempt("xyz", 0.1, letters, 1.0, BlockStart("text"), "end", CITED, STOP))
        stream = system.chat("m", "x", provider=provider, options=options)
        system.advance(0.05)
        stream.pause()
        system.advance(0.5)
        stream.reset("again")
        stream.resume()
        end = stream.result(timeout=20)
        assert end.text.endswith("end")
        assert len(end.text) == 3 + max(0, 8 - size)
        assert [end.text[one.start : one.end] for one in end.citations] == ["end"]


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_a_reset_counts_what_was_dropped_before_it(overflow: Any) -> None:
    with SimulatedSystem(1) as system:
        options = StreamOptions(batch_size=1, rate_limit=None, max_buffer_size=2, overflow=overflow)
        letters = [TextDelta(letter) for letter in "abcdefgh"]
        provider = ScriptedProvider(attempt(letters, 1.0, BlockStart("text"), "end", CITED, STOP))
        stream = system.chat("m", "x", provider=provider, options=options)
        system.advance(0.5)
        stream.reset("again")
        end = stream.result(timeout=20)
        assert (end.text, [(one.start, one.end) for one in end.citations]) == ("end", [(0, 3)])


def test_a_citation_across_a_reset_is_cut() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(attempt("void", 1.0, "ab", CITED, STOP))
        stream = system.chat("m", "x", provider=provider, options=FAST)
        system.advance(0.5)
        stream.reset("again")
        end = stream.result(timeout=20)
        assert (end.text, [(one.start, one.end) for one in end.citations]) == ("ab", [(0, 2)])


# --- ends that deliver not everything --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_a_cancelled_stream_repeats_only_what_belongs_to_its_partial_text(size: int) -> None:
    with SimulatedSystem(1) as system:
        options = StreamOptions(batch_size=1, rate_limit=5.0, max_buffer_size=size)
        steps: list[Any] = [one for letter in "abcdefghij" for one in (letter, CITED, PROBABLE)]
        stream = system.chat("m", "x", provider=ScriptedProvider(attempt(*steps, 60.0)), options=options)
        system.advance(0.5)
        stream.cancel()
        system.settle()
        end: Any = stream._record.log.terminal
        assert end.partial
        assert max((one.end for one in end.citations), default=0) <= len(end.partial)
        assert len(end.partial) - 1 <= len(end.citations) <= len(end.partial)
        assert len(end.logprobs) <= len(end.partial)


def test_a_cut_round_has_no_blocks_after_its_text() -> None:
    with SimulatedSystem(1) as system:
        options = StreamOptions(batch_size=1, rate_limit=1.0, max_buffer_size=2)
        deltas = [one for letter in "abcdef" for one in (TextDelta(letter), BlockDelta({"type": letter}))]
        provider = ScriptedProvider(attempt(deltas, 60.0))
        stream = system.agent(model="m", provider=provider, options=options).stream_chat("x")
        system.advance(0.5)
        stream.cancel()
        system.settle()
        end: Any = stream._record.log.terminal
        assert 0 < len(end.partial) < 6
        assert [block.at for block in end.provider_blocks] == list(range(1, len(end.partial) + 1))
