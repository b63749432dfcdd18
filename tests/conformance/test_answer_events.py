"""What an answer has besides text and calls, from the deltas to the subscribers, the terminal event and the history."""

from __future__ import annotations

from typing import Any

import pytest

import penstock
from penstock.adapters.tools import to_tool
from penstock.config.options import StreamOptions
from penstock.errors import ApiError, ProtocolError, ProviderTimeout
from penstock.events import (
    AnswerPart,
    Citation,
    Logprobs,
    MediaPart,
    ProviderBlock,
    ProviderEvent,
    ReasoningBlock,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamReset,
    StreamSnapshot,
    TokenEvent,
    TokenLogprob,
)
from penstock.ports import (
    BlockDelta,
    BlockStart,
    CitationDelta,
    EventDelta,
    FinishDelta,
    MetadataDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallFragment,
)
from penstock.testing import Collector, ScriptedAttempt, ScriptedProvider, SimulatedSystem
from penstock.toolbox.chain import chain
from tests.conformance.common import FAST

CALL = EventDelta(ServerToolCall(id="s", name="web_search", input={"query": "q"}))
RESULT = EventDelta(ServerToolResult(id="s", name="web_search", output=["x"]))
PICTURE = EventDelta(MediaPart(kind="image", mime="image/png", data="aGk="))
PREVIEW = EventDelta(MediaPart(kind="image", mime="image/png", data="aA==", is_partial=True))
PROBABLE = TokenLogprob(token="a", logprob=-0.5, top=(("a", -0.5), ("b", -1.5)))
BUSY = ApiError(503, "busy", retryable=True)
QUICK = penstock.RequestOptions(retry_base_delay=0.1)
WIDE = StreamOptions(batch_size=100, flush_interval=0.1, rate_limit=None)


def ended(*steps: Any, finish: FinishDelta | None = None) -> ScriptedAttempt:
    return ScriptedAttempt((*steps, finish or FinishDelta("stop", "stop")), finish=None)


def answered(
    system: SimulatedSystem, *steps: Any, options: StreamOptions = FAST, request: penstock.RequestOptions | None = None
) -> tuple[list[Any], Any]:
    provider = ScriptedProvider(ended(*steps))
    stream = system.chat("m", "Hello", provider=provider, options=options, request_options=request)
    collector = Collector(stream)
    end = stream.result(timeout=10)
    system.settle()
    return list(collector.events), end


def spoken(events: list[Any]) -> list[Any]:
    """Text with its part, and the names of the other events."""
    return [(e.text, e.part) if isinstance(e, TokenEvent) else type(e).__name__ for e in events]


# --- events ----------------------------------------------------------------------------------------------------------


@pytest.mark.seeds(5)
def test_each_comes_in_order_with_the_text_and_stands_in_the_terminal_event(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        events, end = answered(
            system,
            ReasoningDelta("hm"),
            ReasoningBlockDelta(ReasoningBlock(kind="thinking", text="hm", signature="sig")),
            [TextDelta("a"), EventDelta(Logprobs(tokens=(PROBABLE,))), CALL],
            [RESULT, TextDelta("b"), PREVIEW, PICTURE],
            MetadataDelta({"response_id": "r1", "service_tier": "auto"}),
            MetadataDelta({"service_tier": "flex"}),
        )
        assert spoken(events) == [
            ("hm", 0), "ReasoningBlockClosed", ("a", 0), "Logprobs", "ServerToolCall", "ServerToolResult", ("b", 0),
            "MediaPart", "MediaPart", "StreamCompleted",
        ]  # fmt: skip
        assert [event.seq for event in events] == list(range(1, 11))
        assert all(event.stream_id == end.stream_id and event.timestamp for event in events)
        closed = next(event for event in events if isinstance(event, ReasoningBlockClosed))
        assert (closed.index, closed.signature, closed.provider) == (0, "sig", "scripted")
        assert end.reasoning_blocks[0].provider == "scripted"
        assert [type(event).__name__ for event in end.server_tools] == ["ServerToolCall", "ServerToolResult"]
        assert [part.data for part in end.media] == ["aGk="]
        assert end.logprobs == (PROBABLE,)
        assert end.provider_metadata == {"response_id": "r1", "service_tier": "flex"}
        with pytest.raises(TypeError):
            end.provider_metadata["x"] = 1
        assert (end.text, end.reasoning) == ("ab", "hm")


def test_citations_are_counted_from_the_start_of_the_answer() -> None:
    def cited(start: int | None, end: int | None) -> Citation:
        return Citation(kind="url", url="u", start=start, end=end)

    with SimulatedSystem(1) as system:
        _, end = answered(
            system,
            [ReasoningDelta("a thought that does not count"), CALL],
            ReasoningDelta("nor does this"),
            [TextDelta("one "), CitationDelta(cited(0, 3))],
            [CALL, BlockStart("text"), TextDelta("two "), TextDelta("three"), CitationDelta(cited(4, 9))],
            [BlockStart("text", is_joint=False), TextDelta("four"), CitationDelta(cited(None, None), is_of_block=True)],
            CitationDelta(cited(None, None)),
        )
        spans = [(c.start, c.end, c.part) for c in end.citations]
        assert spans == [(0, 3, 0), (8, 13, 1), (13, 17, 1), (None, None, 1)]
        assert [end.text[c.start : c.end] for c in end.citations[:3]] == ["one", "three", "four"]


def test_citations_of_a_later_round_are_counted_from_the_start_of_the_whole_text() -> None:
    cited = CitationDelta(Citation(kind="url", url="u", start=0, end=4))
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(
            ended("First ", cited, ToolCallFragment(index=0, id="c", name="f", arguments="{}")),
            ended("then ", BlockStart("text"), "last", cited, CitationDelta(Citation(kind="url"), is_of_block=True)),
        )
        end = system.agent(model="m", provider=provider, tools=[f]).chat("x", timeout=20)
        assert end.text == "First then last"
        assert [end.text[c.start : c.end] for c in end.citations] == ["Firs", "last", "last"]


def test_a_failed_and_a_cancelled_stream_have_what_came() -> None:
    with SimulatedSystem(1) as system:
        steps = ("a", CALL, PICTURE, CitationDelta(Citation(kind="url", url="u")), MetadataDelta({"response_id": "r"}))
        failed = system.chat(
            "m",
            "x",
            provider=ScriptedProvider(ScriptedAttempt((*steps, ProtocolError("no")), finish=None)),
            options=FAST,
        )
        cancelled = system.chat("m", "x", provider=ScriptedProvider([*steps, 5.0]), options=FAST)
        system.advance(1.0)
        cancelled.cancel()
        system.advance(1.0)
        for stream in (failed, cancelled):
            end = stream._record.log.terminal
            assert end is not None
            assert (len(end.server_tools), len(end.media), len(end.citations)) == (1, 1, 1)
            assert end.provider_metadata == {"response_id": "r"}


def test_media_and_results_count_into_the_longest_answer() -> None:
    with SimulatedSystem(1) as system:
        options = penstock.RequestOptions(max_answer_bytes=2_000)
        for step in (
            EventDelta(MediaPart(kind="image", data="x" * 3_000)),
            EventDelta(MediaPart(kind="audio", data="x" * 3_000, is_partial=True)),
            EventDelta(ServerToolResult(id="s", name="n", output=["x" * 3_000])),
            CitationDelta(Citation(kind="url", cited_text="x" * 3_000)),
            BlockDelta({"type": "t", "data": "x" * 3_000}),
        ):
            stream = system.chat("m", "x", provider=ScriptedProvider([step]), options=FAST, request_options=options)
            with pytest.raises(ProtocolError, match="longer than 2000"):
                stream.result(timeout=10)


# --- as they came ------------------------------------------------------------------------------------------------


def raw(name: str) -> EventDelta:
    return EventDelta(ProviderEvent(type=name, payload={"type": name}))


@pytest.mark.seeds(5)
def test_raw_events_precede_what_is_made_of_them_and_do_not_prevent_a_retry(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider(
            ScriptedAttempt((raw("first try"), BUSY), finish=None),
            ended([raw("start"), raw("one"), TextDelta("a"), raw("two")], [TextDelta("b"), raw("end")]),
        )
        stream = system.chat("m", "x", provider=provider, options=FAST, request_options=QUICK)
        collector = Collector(stream)
        assert stream.result(timeout=10).text == "ab"
        system.settle()
        said = [e.type if isinstance(e, ProviderEvent) else getattr(e, "text", "") for e in collector.events]
        assert said == ["start", "one", "a", "two", "b", "end", "ab"]
        assert stream.statistics().tokens_delivered == 2


@pytest.mark.parametrize("silent", [raw("ping"), BlockStart("text", phase="commentary"), MetadataDelta({"a": "b"})])
def test_what_is_no_progress_does_not_keep_a_silent_answer_alive(silent: Any) -> None:
    with SimulatedSystem(1) as system:
        request = penstock.RequestOptions(idle_timeout=5.0)
        steps: list[Any] = ["a", *[step for _ in range(20) for step in (1.0, silent)]]
        stream = system.chat("m", "x", provider=ScriptedProvider(steps), options=FAST, request_options=request)
        with pytest.raises(ProviderTimeout, match="idle"):
            stream.result(timeout=60)
        end = stream._record.log.terminal
        assert end is not None
        assert end.metrics is not None
        assert end.metrics.total_time_s < 7


def test_raw_events_do_not_end_the_patience_for_reasoning() -> None:
    with SimulatedSystem(1) as system:
        request = penstock.RequestOptions(idle_timeout=5.0, reasoning_timeout=60.0)
        steps: list[Any] = [[raw("r"), ReasoningDelta("hm")], 1.0, raw("ping"), 20.0, "a"]
        stream = system.chat("m", "x", provider=ScriptedProvider(ended(*steps)), options=FAST, request_options=request)
        assert stream.result(timeout=60).text == "a"


def test_the_phase_of_an_attempt_that_failed_does_not_stay() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(
            ScriptedAttempt((BlockStart("text", phase="commentary"), BUSY), finish=None), ended("a")
        )
        stream = system.chat("m", "x", provider=provider, options=FAST, request_options=QUICK)
        collector = Collector(stream)
        stream.result(timeout=10)
        system.settle()
        assert [e.phase for e in collector.events if isinstance(e, TokenEvent)] == [None]


def test_raw_events_wait_for_room_like_tokens() -> None:
    with SimulatedSystem(1) as system:
        options = StreamOptions(max_buffer_size=3, batch_size=1, rate_limit=None)
        provider = ScriptedProvider(ended("a", *(raw(str(n)) for n in range(20)), "b"))
        stream = system.chat("m", "x", provider=provider, options=options)
        collector = Collector(stream)
        system.advance(0.0)
        stream.pause()
        system.advance(5.0)
        assert stream._record.intake.size <= 3
        stream.resume()
        assert stream.result(timeout=10).text == "ab"
        system.settle()
        assert [e.type for e in collector.events if isinstance(e, ProviderEvent)] == [str(n) for n in range(20)]


# --- parts -----------------------------------------------------------------------------------------------------------

PARTS: tuple[Any, ...] = (
    [TextDelta("Look"), TextDelta("ing.")],
    [CALL, RESULT, BlockStart("text"), TextDelta("Do")],
    [TextDelta("ne."), BlockStart("text", is_joint=False), TextDelta("Yes.")],
    [BlockStart("reasoning"), ReasoningDelta("hm"), BlockStart("text", phase="final_answer"), TextDelta("End")],
)


@pytest.mark.seeds(5)
@pytest.mark.parametrize("options", [FAST, WIDE, StreamOptions(batch_size=2, retain_bytes=0, rate_limit=None)])
def test_a_new_part_changes_the_number_and_is_never_in_one_event_with_the_one_before(
    seed: int, options: StreamOptions
) -> None:
    with SimulatedSystem(seed) as system:
        stream = system.chat("m", "x", provider=ScriptedProvider(ended(*PARTS)), options=options)
        collector = Collector(stream)
        end = stream.result(timeout=10)
        system.settle()
        assert end.text == "Looking.Done.Yes.End"
        texts: dict[tuple[int, str], str] = {}
        for event in collector.events:
            if isinstance(event, TokenEvent):
                key = (event.part, event.kind)
                texts[key] = texts.get(key, "") + event.text
        assert texts == {
            (0, "text"): "Looking.", (1, "text"): "Done.Yes.", (2, "reasoning"): "hm", (3, "text"): "End",
        }  # fmt: skip
        assert [(p.index, end.text[p.start : p.end], p.phase) for p in end.parts if p.kind == "text"] == [
            (0, "Looking.", None),
            (1, "Done.Yes.", None),
            (3, "End", "final_answer"),
        ]
        assert [event.phase for event in collector.events if isinstance(event, TokenEvent)][-1] == "final_answer"


def test_an_answer_without_blocks_has_one_part_for_each_kind() -> None:
    with SimulatedSystem(1) as system:
        _, end = answered(system, ReasoningDelta("hm"), "a", "b")
        assert end.parts == (
            AnswerPart(index=0, kind="reasoning", start=0, end=2),
            AnswerPart(index=0, kind="text", start=0, end=2),
        )
        _, empty = answered(system, BlockStart("text"), BlockStart("text"), "a", BlockStart("text"), "b")
        assert empty.parts == (
            AnswerPart(index=0, kind="text", start=0, end=1),
            AnswerPart(index=1, kind="text", start=1, end=2),
        )


def test_events_of_two_parts_are_not_merged_for_a_slow_subscriber() -> None:
    with SimulatedSystem(1) as system:
        steps = ("a", "b", BlockStart("text"), "c", "d")
        options = StreamOptions(batch_size=1, rate_limit=None)
        stream = system.chat("m", "x", provider=ScriptedProvider(ended(*steps)), options=options)
        slow = stream.events(slow="coalesce", window=1)
        system.advance(5.0)
        assert [(e.text, e.part) for e in slow if isinstance(e, TokenEvent)] == [("ab", 0), ("cd", 1)]


def test_a_late_and_a_slow_subscriber_see_the_parts() -> None:
    with SimulatedSystem(1) as system:
        options = StreamOptions(batch_size=1, retain_bytes=0, rate_limit=None)
        stream = system.chat("m", "x", provider=ScriptedProvider(ended(*PARTS, 1.0)), options=options)
        slow = stream.events(slow="coalesce", window=1)
        system.advance(0.5)
        late = stream.events()
        first = late.next(0)
        assert isinstance(first, StreamSnapshot)
        assert [(p.index, p.kind) for p in first.parts] == [(0, "text"), (1, "text"), (2, "reasoning"), (3, "text")]
        assert [type(event).__name__ for event in first.answer_events] == ["ServerToolCall", "ServerToolResult"]
        system.advance(5.0)
        merged = [(e.text, e.part) for e in slow if isinstance(e, TokenEvent)]
        assert merged == [("Looking.", 0), ("Done.Yes.", 1), ("hm", 2), ("End", 3)]


def test_after_a_reset_the_parts_begin_anew() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(
            ScriptedAttempt((*PARTS, BUSY), finish=None),
            ended("a", BlockStart("text"), "b"),
        )
        options = penstock.RequestOptions(on_interrupt="restart", retry_base_delay=0.1)
        stream = system.chat("m", "x", provider=provider, options=FAST, request_options=options)
        collector = Collector(stream)
        end = stream.result(timeout=20)
        system.settle()
        reset = next(n for n, event in enumerate(collector.events) if isinstance(event, StreamReset))
        assert [(e.text, e.part) for e in collector.events[reset + 1 :] if isinstance(e, TokenEvent)] == [
            ("a", 0),
            ("b", 1),
        ]
        assert [(p.index, p.start, p.end) for p in end.parts] == [(0, 0, 1), (1, 1, 2)]
        assert end.server_tools == ()


def test_what_is_undelivered_has_its_part_too() -> None:
    with SimulatedSystem(1) as system:
        options = StreamOptions(batch_size=1, rate_limit=1.0)
        stream = system.chat("m", "x", provider=ScriptedProvider(ended(*PARTS, 9.0)), options=options)
        Collector(stream)
        system.advance(0.5)
        stream.cancel()
        system.advance(1.0)
        end = stream._record.log.terminal
        assert isinstance(end, penstock.StreamCancelled)
        assert end.undelivered
        assert end.partial == "Looking.Done.Yes.End"
        assert [(p.index, p.kind) for p in end.parts] == [(0, "text"), (1, "text"), (2, "reasoning"), (3, "text")]


def test_a_transformed_stream_keeps_parts_and_sources_but_no_places_in_the_text() -> None:
    with SimulatedSystem(1) as system:
        steps = ("a", CitationDelta(Citation(kind="url", url="u", start=0, end=1)), CALL, BlockStart("text"), "b")
        source = system.chat("m", "x", provider=ScriptedProvider(ended(0.1, *steps)), options=FAST)
        target = chain(system, source, lambda event: [event.text * 2])
        collector = Collector(target)
        end = target.result(timeout=10)
        system.settle()
        assert [(e.start, e.end) for e in collector.events if isinstance(e, Citation)] == [(None, None)]
        assert spoken(collector.events) == [("aa", 0), "Citation", "ServerToolCall", ("bb", 1), "StreamCompleted"]
        assert [(c.url, c.start, c.end) for c in end.citations] == [("u", None, None)]


def test_after_a_reset_a_chained_stream_has_the_sources_in_the_parts_of_the_old_one() -> None:
    with SimulatedSystem(1) as system:
        source_of_b = CitationDelta(Citation(kind="url", url="u"))
        provider = ScriptedProvider(
            ScriptedAttempt((*PARTS, 0.1, BUSY), finish=None),
            ended("a", BlockStart("text"), "b", source_of_b, 0.1),
        )
        options = penstock.RequestOptions(on_interrupt="restart", retry_base_delay=0.1)
        first = system.chat("m", "x", provider=provider, options=FAST, request_options=options)
        second = chain(system, first, lambda event: event.tokens, options=FAST)
        collectors = [Collector(first), Collector(second)]
        ends = [first.result(timeout=20), second.result(timeout=20)]
        system.settle()
        for collector in collectors:
            events = collector.events
            reset = next(n for n, event in enumerate(events) if isinstance(event, StreamReset))
            assert [e.part for e in events[reset:] if isinstance(e, Citation)] == [1]
            assert [(e.text, e.part) for e in events[reset:] if isinstance(e, TokenEvent)] == [("a", 0), ("b", 1)]
        assert [[c.part for c in end.citations] for end in ends] == [[1], [1]]


def test_a_chain_to_a_stream_that_is_under_way_has_its_parts_and_events_too() -> None:
    with SimulatedSystem(1) as system:
        steps = (
            ReasoningDelta("hm"),
            "one",
            CitationDelta(Citation(kind="url", url="u", start=0, end=3)),
            *(CALL, RESULT, PICTURE),
            ToolCallFragment(index=0, id="c", name="f", arguments="{}"),
            BlockStart("text", phase="final_answer"),
            "two",
        )
        unkept = StreamOptions(batch_size=1, rate_limit=None, retain_bytes=0)
        source = system.chat("m", "x", provider=ScriptedProvider(ended(*steps, 1.0, "three")), options=unkept)
        system.advance(0.5)
        seen: list[tuple[str, str, int, str | None]] = []

        def told(event: TokenEvent) -> list[str]:
            seen.append((event.kind, event.text, event.part, event.phase))
            return [event.text] if event.kind == "text" else []

        target = chain(system, source, told, options=FAST)
        collector = Collector(target)
        end = target.result(timeout=10)
        system.settle()
        assert seen == [
            ("reasoning", "hm", 0, None), ("text", "one", 0, None), ("text", "two", 1, "final_answer"),
            ("text", "three", 1, "final_answer"),
        ]  # fmt: skip
        assert spoken(collector.events) == [
            ("one", 0), ("two", 1), "Citation", "ServerToolCall", "ServerToolResult", "MediaPart", ("three", 1),
            "ToolCallCompleted", "StreamCompleted",
        ]  # fmt: skip
        assert end.text == "onetwothree"
        assert [(part.index, part.phase) for part in end.parts] == [(0, None), (1, "final_answer")]


def test_completed_calls_and_their_results_come_from_a_snapshot_too() -> None:
    with SimulatedSystem(1) as system:
        called = ToolCallFragment(index=0, id="c", name="f", arguments="{}")
        provider = ScriptedProvider(ended("Look", called, finish=FinishDelta("tool_calls", "t")), ended("Done", 1.0))
        unkept = StreamOptions(batch_size=1, rate_limit=None, retain_bytes=0)
        agent = system.agent(model="m", provider=provider, tools=[f], options=unkept)
        source = agent.stream_chat("x")
        system.advance(0.5)
        target = chain(system, source, lambda event: event.tokens, options=FAST)
        collector = Collector(target)
        assert target.result(timeout=10).text == "LookDone"
        system.settle()
        names = [type(event).__name__ for event in collector.events]
        assert names == ["TokenEvent", "TokenEvent", "ToolCallCompleted", "ToolResult", "StreamCompleted"]


def test_a_full_chained_stream_slows_down_events_too() -> None:
    with SimulatedSystem(1) as system:
        raw = [EventDelta(ProviderEvent(type=str(number), payload={})) for number in range(200)]
        small = StreamOptions(batch_size=1, max_buffer_size=10, rate_limit=None)
        source = system.chat("m", "x", provider=ScriptedProvider(ended("a", 0.1, *raw, "b")), options=small)
        target = chain(system, source, lambda event: event.tokens, options=small)
        collector = Collector(target)
        system.advance(0.05)
        target.pause()
        system.advance(5.0)
        assert target._record.intake.size == 10
        target.resume()
        assert target.result(timeout=10).text == "ab"
        system.settle()
        assert [event.type for event in collector.events if isinstance(event, ProviderEvent)] == list(
            map(str, range(200))
        )


# --- blocks that go back ---------------------------------------------------------------------------------------------


def block(name: str) -> BlockDelta:
    return BlockDelta({"type": name})


def test_blocks_have_their_place_among_text_and_calls() -> None:
    with SimulatedSystem(1) as system:
        _, end = answered(
            system,
            [block("thinking"), TextDelta("Hi "), block("tool")],
            ToolCallFragment(index=0, id="s", name="search", arguments="{}", is_server=True),
            ToolCallFragment(index=1, id="c", name="f", arguments="{}"),
            [block("between"), TextDelta("you")],
        )
        assert end.provider_blocks == (
            ProviderBlock(provider="scripted", data={"type": "thinking"}),
            ProviderBlock(provider="scripted", data={"type": "tool"}, at=3),
            ProviderBlock(provider="scripted", data={"type": "between"}, at=3, calls=1),
        )


def test_an_agents_history_gives_the_blocks_back_and_names_the_provider() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(
            ended(block("a"), "Look", ToolCallFragment(index=0, id="c", name="f", arguments="{}"), block("b")),
            ended(block("c"), "Done."),
        )
        agent = system.agent(model="m", provider=provider, tools=[f])
        assert agent.chat("x", timeout=20).text == "LookDone."
        call, result, last = agent.history[-3:]
        assert call["provider_blocks"] == [
            {"provider": "scripted", "data": {"type": "a"}, "at": 0, "calls": 0},
            {"provider": "scripted", "data": {"type": "b"}, "at": 4, "calls": 1},
        ]
        assert result["role"] == "tool"
        assert [one["data"]["type"] for one in last["provider_blocks"]] == ["c"]
        assert provider.calls[-1].provider == "scripted"


def f() -> str:
    """Return nothing of interest."""
    return "ok"


PAUSE = FinishDelta("other", "pause_turn")


def test_a_paused_turn_is_sent_back_as_it_is_and_becomes_one_message() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(
            ended("One ", block("search"), finish=PAUSE),
            ended(block("result"), "two ", finish=PAUSE),
            ended("three", block("last")),
            ended("again"),
        )
        agent = system.agent(model="m", provider=provider)
        end = agent.chat("x", timeout=20)
        assert (end.text, end.finish_reason) == ("One two three", "stop")
        assert [end.text[p.start : p.end] for p in end.parts] == ["One ", "two ", "three"]
        asked = [call.input for call in provider.calls]
        assert [message["role"] for message in asked[2]] == ["user", "assistant"]
        assert asked[2][-1]["content"] == "One two "
        assert [(b["data"]["type"], b["at"]) for b in asked[2][-1]["provider_blocks"]] == [("search", 4), ("result", 4)]
        assert [message["role"] for message in agent.history] == ["user", "assistant"]
        assert [(b["data"]["type"], b["at"]) for b in agent.history[-1]["provider_blocks"]] == [
            ("search", 4),
            ("result", 4),
            ("last", 13),
        ]
        assert agent.chat("y", timeout=20).text == "again"


def test_a_turn_that_pauses_for_ever_ends_in_an_error() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(ended("a", finish=PAUSE))
        agent = system.agent(model="m", provider=provider, max_tool_rounds=3)
        with pytest.raises(penstock.ToolRoundsExceeded):
            agent.chat("x", timeout=20)
        assert provider.requests == 4
        assert [message["role"] for message in agent.history] == ["user", "assistant"]
        assert agent.history[-1]["content"] == "aaaa"


def test_pauses_count_as_rounds_in_all_of_the_turn() -> None:
    with SimulatedSystem(1) as system:
        paused = ended("p", finish=PAUSE)
        calling = [
            ended(
                ToolCallFragment(index=0, id=f"c{n}", name="f", arguments="{}"), finish=FinishDelta("tool_calls", "t")
            )
            for n in range(3)
        ]
        provider = ScriptedProvider(paused, paused, calling[0], paused, calling[1], calling[2])
        agent = system.agent(model="m", provider=provider, tools=[f], max_tool_rounds=4)
        with pytest.raises(penstock.ToolRoundsExceeded):
            agent.chat("x", timeout=20)
        assert provider.requests == 5


def test_a_paused_turn_that_goes_on_to_call_a_tool_is_one_round() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(
            ended("One ", block("search"), finish=PAUSE),
            ended(
                "two",
                ToolCallFragment(index=0, id="c", name="f", arguments="{}"),
                finish=FinishDelta("tool_calls", "t"),
            ),
            ended("three"),
        )
        agent = system.agent(model="m", provider=provider, tools=[f])
        assert agent.chat("x", timeout=20).text == "One twothree"
        _user, call, result, last = agent.history
        assert (call["content"], len(call["tool_calls"]), call["provider_blocks"][0]["at"]) == ("One two", 1, 4)
        assert (result["content"], last["content"]) == ("ok", "three")


def test_a_paused_turn_that_is_cancelled_while_its_tool_runs_keeps_each_word_once() -> None:
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(
            ended("One ", block("search"), finish=PAUSE),
            ended(
                "two",
                ToolCallFragment(index=0, id="c", name="ask", arguments="{}"),
                finish=FinishDelta("tool_calls", "t"),
            ),
        )

        @penstock.tool(needs_approval=True)
        def ask() -> str:
            """Wait for the user."""
            return "ok"

        agent = system.agent(model="m", provider=provider, tools=[ask])
        stream = agent.stream_chat("x")
        system.advance(5.0)
        stream.cancel()
        system.advance(1.0)
        assert [message.get("content") for message in agent.history if message["role"] == "assistant"] == [
            "One two",
            "[interrupted]",
        ]


def test_blocks_of_another_provider_are_counted_in_the_answer() -> None:
    def message(maker: str) -> dict[str, Any]:
        sealed = [{"provider": maker, "data": {"type": "thinking"}}] * 2
        return {"role": "assistant", "content": "Hi", "provider_blocks": sealed}

    with SimulatedSystem(1) as system:
        for maker, count in (("scripted", None), ("other", 2)):
            messages = [{"role": "user", "content": "x"}, message(maker), {"role": "user", "content": "y"}]
            stream = system.chat("m", messages, provider=ScriptedProvider(ended("a")), options=FAST)
            assert stream.result(timeout=10).provider_metadata.get("dropped_blocks") == count


# --- calls of other types ----------------------------------------------------------------------------------------


def test_a_tool_runs_calls_of_its_type_and_no_others() -> None:
    got: list[Any] = []

    @penstock.tool(type="custom")
    def patch(text: str) -> str:
        """Apply a patch."""
        got.append(text)
        return "applied"

    @penstock.tool(type="local_shell")
    def run(action: dict[str, Any]) -> str:
        """Run a command."""
        got.append(action)
        return "ran"

    finish = FinishDelta("tool_calls", "tool_calls")
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(
            ended(
                ToolCallFragment(index=0, id="a", name="patch", arguments="*** not JSON", type="custom"),
                ToolCallFragment(
                    index=1, id="b", name="local_shell", arguments='{"command":["ls"]}', type="local_shell"
                ),
                ToolCallFragment(index=2, id="c", name="patch", arguments="{}"),
                ToolCallFragment(index=3, id="d", name="computer", arguments="{}", type="computer"),
                finish=finish,
            ),
            ended("done"),
        )
        agent = system.agent(model="m", provider=provider, tools=[patch, run])
        end = agent.chat("x", timeout=20)
        assert [call.type for call in end.tool_calls] == ["custom", "local_shell", "function", "computer"]
        assert sorted(got, key=str) == ["*** not JSON", {"command": ["ls"]}]
        described = provider.calls[0].parameters["tools"]
        assert described == [
            {"type": "custom", "custom": {"name": "patch", "description": "Apply a patch."}},
            {"type": "local_shell"},
        ]
        calls = agent.history[1]["tool_calls"]
        assert calls[0] == {"id": "a", "type": "custom", "custom": {"name": "patch", "input": "*** not JSON"}}
        assert calls[1]["type"] == "local_shell"
        results = {
            message["tool_call_id"]: message["content"] for message in agent.history if message["role"] == "tool"
        }
        assert (results["a"], results["b"]) == ("applied", "ran")
        assert results["c"] == "The tool 'patch' is of type 'custom'; it cannot be called as 'function'."
        assert "There is no tool 'computer'" in results["d"]


def test_a_custom_call_at_the_length_limit_is_not_run() -> None:
    ran: list[str] = []

    @penstock.tool(type="custom")
    def patch(text: str) -> str:
        """Apply a patch."""
        ran.append(text)
        return "applied"

    with SimulatedSystem(1) as system:
        call = ToolCallFragment(index=0, id="a", name="patch", arguments="*** half of it", type="custom")
        provider = ScriptedProvider(ended(call, finish=FinishDelta("length", "max_tokens")))
        end = system.agent(model="m", provider=provider, tools=[patch]).chat("x", timeout=20)
        assert (end.finish_reason, ran) == ("length", [])


def test_tools_of_other_types_refuse_what_they_cannot_use() -> None:
    def two(a: str, b: str) -> str:
        return a + b

    def one(a: str) -> str:
        return a

    for function, options, field in (
        (one, {"type": "python"}, "tool.type"),
        (two, {"type": "custom"}, "tool two"),
        (one, {"type": "custom", "schema": {"type": "object"}}, "tool.schema"),
        (one, {"type": "local_shell", "format": {"type": "text"}}, "tool.format"),
        (one, {"format": {"type": "text"}}, "tool.format"),
        (one, {"type": "custom", "format": "text"}, "tool.format"),
    ):
        with pytest.raises(penstock.OptionError) as caught:
            penstock.tool(**options)(function)
        assert caught.value.field == field


def test_a_tool_of_another_type_may_be_a_pair_of_its_form_and_a_function() -> None:
    def run(action: Any) -> str:
        return str(action)

    grammar = {"type": "grammar", "syntax": "regex", "definition": "a+"}
    custom = to_tool(({"type": "custom", "custom": {"name": "patch", "description": "d", "format": grammar}}, run))
    assert (custom.name, custom.description, custom.type, custom.format) == ("patch", "d", "custom", grammar)  # type: ignore[attr-defined]
    shell = to_tool(({"type": "local_shell"}, run))
    assert (shell.name, shell.type) == ("local_shell", "local_shell")  # type: ignore[attr-defined]
    assert shell.check({"command": ["ls"]}) == {"action": {"command": ["ls"]}}


def test_a_custom_call_that_was_cut_off_is_not_run() -> None:
    with SimulatedSystem(1) as system:
        call = ToolCallFragment(index=0, id="a", name="patch", arguments="half", type="custom")
        stream = system.chat(
            "m", "x", provider=ScriptedProvider(ScriptedAttempt((call, ProtocolError("no")), finish=None)), options=FAST
        )
        system.advance(1.0)
        end = stream._record.log.terminal
        assert end is not None
        assert (end.tool_calls[0].arguments, end.tool_calls[0].arguments_raw) == (None, "half")
