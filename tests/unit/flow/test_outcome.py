"""What a provider says beside the text, put together."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.call.answer import OutcomeBuilder
from penstock.events import (
    ProviderEvent,
    ReasoningBlock,
    ReasoningBlockClosed,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from penstock.ports import (
    BlockDelta,
    ChoiceDelta,
    Delta,
    FinishDelta,
    KeepAlive,
    MetadataDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)


def built(*deltas: Delta) -> OutcomeBuilder:
    builder = OutcomeBuilder()
    for delta in deltas:
        builder.note(delta)
    return builder


def test_everything_beside_the_text_is_kept() -> None:
    block = ReasoningBlock(kind="thinking", text="hm", signature="s")
    usage = Usage(input_tokens=3)
    outcome = built(
        ReasoningBlockDelta(block),
        ToolCallFragment(index=0, id="a", name="f", arguments='{"x": 1}', is_server=True, signature="g"),
        UsageDelta(Usage(input_tokens=1)),
        UsageDelta(usage),
        FinishDelta("tool_calls", "tool_use"),
    ).outcome()
    assert outcome.reasoning_blocks == (block,)
    assert outcome.usage == usage
    assert (outcome.finish_reason, outcome.raw_finish_reason) == ("tool_calls", "tool_use")
    (call,) = outcome.tool_calls
    assert (call.arguments, call.is_server, call.signature) == ({"x": 1}, True, "g")


def test_a_signature_has_its_maker_in_every_choice_and_in_the_events() -> None:
    signed = ToolCallFragment(index=0, id="a", name="f", arguments="{}", signature="g")
    bare = ToolCallFragment(index=1, id="b", name="f", arguments="{}")
    builder = OutcomeBuilder()
    builder.provider = "gemini"
    for delta in (signed, bare, ChoiceDelta(1, signed), FinishDelta("tool_calls", "tool_calls")):
        builder.note(delta)
    outcome = builder.outcome()
    assert [call.signed_by for call in outcome.tool_calls] == ["gemini", ""]
    assert [call.signed_by for call in outcome.choices[0].tool_calls] == ["gemini"]
    completed = [event.call for event in builder.complete() if isinstance(event, ToolCallCompleted)]
    assert [call.signed_by for call in completed] == ["gemini", ""]


def test_a_stop_behind_tool_calls_does_not_hide_them() -> None:
    outcome = built(FinishDelta("tool_calls", "tool_calls"), FinishDelta("stop", "stop")).outcome()
    assert outcome.finish_reason == "tool_calls"


def test_the_other_choices_come_whole_and_by_their_numbers() -> None:
    outcome = built(
        ChoiceDelta(2, TextDelta("c")),
        ChoiceDelta(1, TextDelta("b")),
        ChoiceDelta(2, RefusalDelta("no")),
        ChoiceDelta(1, ReasoningDelta("hm")),
        ChoiceDelta(1, TextDelta("b")),
        ChoiceDelta(1, ToolCallFragment(index=0, id="x", name="f", arguments="{}")),
        ChoiceDelta(1, FinishDelta("length", "max_tokens")),
    ).outcome()
    first, second = outcome.choices
    assert (first.index, first.text, first.reasoning, first.finish_reason) == (1, "bb", "hm", "length")
    assert [call.arguments for call in first.tool_calls] == [{}]
    assert (second.index, second.text, second.refusal, second.finish_reason) == (2, "c", "no", None)
    assert outcome.tool_calls == ()


def test_only_a_stop_behind_tool_calls_is_left_out() -> None:
    outcome = built(FinishDelta("tool_calls", "tool_calls"), FinishDelta("length", "max")).outcome()
    assert (outcome.finish_reason, outcome.raw_finish_reason) == ("length", "max")


def test_a_call_of_another_choice_has_arguments_only_when_that_choice_has_finished() -> None:
    fragment = ChoiceDelta(1, ToolCallFragment(index=0, id="x", name="f"))
    assert built(fragment).outcome().choices[0].tool_calls[0].arguments is None
    finished = built(fragment, ChoiceDelta(1, FinishDelta("tool_calls", "x"))).outcome()
    assert finished.choices[0].tool_calls[0].arguments == {}


@pytest.mark.parametrize(
    ("delta", "size"),
    [
        (ToolCallFragment(index=0, id="ab", name="f", arguments="123"), 6),
        (ChoiceDelta(1, TextDelta("four")), 4),
        (ChoiceDelta(1, ReasoningDelta("12345")), 5),
        (ChoiceDelta(1, RefusalDelta("no")), 2),
        (ChoiceDelta(1, ToolCallFragment(index=0, id="ab", name="f", arguments="123")), 6),
        (ChoiceDelta(1, FinishDelta("stop", "stop")), 0),
        (UsageDelta(Usage(input_tokens=1)), 0),
        (FinishDelta("stop", "stop"), 0),
        (ReasoningBlockDelta(ReasoningBlock(kind="thinking", text="hm")), 0),
    ],
)
def test_what_is_said_besides_the_text_of_the_first_choice_is_counted_apart_from_it(delta: Delta, size: int) -> None:
    builder = OutcomeBuilder()
    assert (builder.size, builder.unwritten, builder.written) == (0, 0, 0)
    builder.size = 7  # characters of text
    builder.note(delta)
    builder.note(delta)
    assert (builder.size, builder.unwritten, builder.written) == (7 + 2 * size, 2 * size, 7)


def test_the_blocks_of_reasoning_are_reported_with_their_numbers() -> None:
    builder = OutcomeBuilder()
    builder.provider = "p"
    blocks = [ReasoningBlock(kind="thinking", signature="a"), ReasoningBlock(kind="redacted", signature="b", id="i")]
    assert [event for block in blocks for event in builder.note(ReasoningBlockDelta(block))] == [
        ReasoningBlockClosed(index=0, kind="thinking", signature="a", provider="p"),
        ReasoningBlockClosed(index=1, kind="redacted", signature="b", id="i", provider="p"),
    ]


@pytest.mark.parametrize(
    "delta", [KeepAlive(), UsageDelta(Usage()), FinishDelta("stop", "stop"), ChoiceDelta(1, TextDelta("a"))]
)
def test_no_event_follows_from_what_only_the_end_of_the_answer_reports(delta: Delta) -> None:
    assert OutcomeBuilder().note(delta) == []


def test_a_builder_that_is_told_nothing_keeps_no_text_and_places_blocks_at_the_start() -> None:
    builder = built(BlockDelta({"type": "x"}))
    assert not builder.keeps_text
    assert [(block.at, block.calls) for block in builder.outcome().provider_blocks] == [(0, 0)]


def test_text_is_part_of_it_only_where_somebody_tells_what_was_taken() -> None:
    builder = OutcomeBuilder(keeps_text=True)
    builder.took([("a", "text"), ("hm", "reasoning"), ("b", "text")])
    assert (builder.outcome().text, builder.outcome().reasoning) == ("ab", "hm")
    assert "ab" not in repr(builder.outcome())


def test_a_call_that_has_just_begun_is_not_a_call_without_arguments() -> None:
    fragment = ToolCallFragment(index=0, id="a", name="f")
    assert built(fragment).outcome().tool_calls[0].arguments is None
    assert built(fragment, FinishDelta("tool_calls", "x")).outcome().tool_calls[0].arguments == {}
    only_the_end_marker = built(fragment)
    only_the_end_marker.complete()
    assert only_the_end_marker.outcome().tool_calls[0].arguments is None  # they may not have come


def test_long_other_choices_take_linear_time() -> None:
    builder = OutcomeBuilder()
    for _ in range(500_000):  # 10 MB: what copies it each time runs into the test's time-out
        builder.note(ChoiceDelta(1, TextDelta("x" * 20)))
    assert len(builder.outcome().choices[0].text) == 10_000_000


def test_another_thread_may_look_at_any_time_and_never_sees_more_than_has_come() -> None:
    builder = OutcomeBuilder()
    arguments = '{"x": [1, 2, 3], "y": "' + "z" * 50 + '"}'
    seen: list[object] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for call in builder.outcome().tool_calls:
                assert arguments.startswith(call.arguments_raw)
                assert call.arguments is None or call.arguments_raw == arguments
                seen.append(call.arguments)

    def watch() -> None:
        try:
            look()
        except BaseException as error:
            seen.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    for number in range(200):
        builder.note(ToolCallFragment(index=number, id=f"id{number}", name="f"))
        for sign in arguments:
            builder.note(ToolCallFragment(index=number, arguments=sign))
        builder.note(ChoiceDelta(number % 7 + 1, TextDelta("x")))
    done.set()
    thread.join()
    assert not [each for each in seen if isinstance(each, BaseException)]


# --- what is told of calls -----------------------------------------------------------------------------------------


def told(*deltas: Delta, complete: bool = True) -> list[tuple[object, ...]]:
    builder = OutcomeBuilder()
    events = [event for delta in deltas for event in builder.note(delta)]
    if complete:
        events += builder.complete()
    said: list[tuple[object, ...]] = []
    for event in events:
        match event:
            case ToolCallStarted(id=id, name=name, index=index):
                said.append(("started", index, id, name))
            case ToolCallDelta(index=index, text=text):
                said.append(("delta", index, text))
            case ToolCallCompleted(index=index, call=call):
                said.append(("completed", index, call.id, call.arguments))
    return said


F = ToolCallFragment


def test_a_call_is_told_of_as_it_grows_and_completed_with_the_answer() -> None:
    deltas = [F(index=0, id="a", name="f"), F(index=0, arguments='{"x"'), F(index=0, arguments=": 1}")]
    growing = [("started", 0, "a", "f"), ("delta", 0, '{"x"'), ("delta", 0, ": 1}")]
    assert told(*deltas, complete=False) == growing
    assert told(*deltas) == [*growing, ("completed", 0, "a", {"x": 1})]


def test_parallel_calls_interleave_and_are_completed_in_order() -> None:
    assert told(
        F(index=1, id="b", name="g", arguments="{"),
        F(index=0, id="a", name="f", arguments="{"),
        F(index=1, arguments="}"),
        F(index=0, arguments="}"),
    ) == [
        ("started", 0, "b", "g"), ("delta", 0, "{"), ("started", 1, "a", "f"), ("delta", 1, "{"),
        ("delta", 0, "}"), ("delta", 1, "}"), ("completed", 0, "b", {}), ("completed", 1, "a", {}),
    ]  # fmt: skip


def test_an_id_that_comes_with_the_next_fragment_is_waited_for() -> None:
    assert told(F(index=0, name="f"), F(index=0, id="a")) == [("started", 0, "a", "f"), ("completed", 0, "a", None)]


@pytest.mark.parametrize(
    "behind", [F(index=0, arguments="{}"), F(index=1, name="g", arguments="{}"), FinishDelta("tool_calls", "x")]
)
def test_a_call_without_an_id_gets_one_and_keeps_it(behind: Delta) -> None:
    said = told(F(index=0, name="f"), behind, FinishDelta("tool_calls", "x"))
    assert said[0] == ("started", 0, "call_0", "f")
    assert ("completed", 0, "call_0", {}) in said


def test_a_call_whose_start_waits_for_its_id_is_reported_after_another_one_was() -> None:
    assert told(F(index=0, name="f"), F(index=1, name="g"), F(index=1, arguments="{}"), complete=False) == [
        ("started", 0, "call_0", "f"),
        ("started", 1, "call_1", "g"),
        ("delta", 1, "{}"),
    ]


def test_an_id_that_comes_too_late_changes_nothing_but_is_known() -> None:
    said = told(
        F(index=0, name="f", arguments="{"), F(index=0, id="late", arguments='"x": '), F(id="late", arguments="1}")
    )
    assert [each for each in said if each[0] != "delta"] == [
        ("started", 0, "call_0", "f"),
        ("completed", 0, "call_0", {"x": 1}),
    ]


def test_arguments_before_the_name_are_told_of_behind_it() -> None:
    assert told(F(index=0, arguments="{"), F(index=0, arguments="}"), F(index=0, id="a", name="f"), complete=False) == [
        ("started", 0, "a", "f"),
        ("delta", 0, "{}"),
    ]


def test_a_call_that_never_gets_a_name_is_told_of_all_the_same() -> None:
    assert told(F(index=0, id="a", arguments="{}")) == [
        ("started", 0, "a", ""),
        ("delta", 0, "{}"),
        ("completed", 0, "a", {}),
    ]


@given(
    st.lists(
        st.builds(
            F,
            index=st.sampled_from([None, 0, 1, 2]),
            id=st.sampled_from([None, "a", "b"]),
            name=st.sampled_from([None, "f", "g"]),
            arguments=st.sampled_from(["", "{", "}", '{"x": 1}', "null"]),
        ),
        max_size=12,
    )
)
def test_what_was_told_is_what_the_outcome_says(deltas: list[Delta]) -> None:
    builder = OutcomeBuilder()
    events = [event for delta in deltas for event in builder.note(delta)] + builder.complete()
    calls = builder.outcome().tool_calls
    started = {event.index: event for event in events if isinstance(event, ToolCallStarted)}
    assert sorted(started) == list(range(len(calls)))
    for place, call in enumerate(calls):
        assert (started[place].id, started[place].name) == (call.id, call.name)
        pieces = [event.text for event in events if isinstance(event, ToolCallDelta) and event.index == place]
        assert "".join(pieces) == call.arguments_raw
    assert [event.call for event in events if isinstance(event, ToolCallCompleted)] == list(calls)


def test_an_answer_without_a_finish_reason_has_stopped() -> None:
    outcome = built(TextDelta("a")).outcome()
    assert (outcome.finish_reason, outcome.raw_finish_reason) == ("stop", None)


def test_what_came_before_a_reset_is_void_and_the_blocks_of_reasoning_are_numbered_anew() -> None:
    thought, block = ReasoningBlockDelta(ReasoningBlock(kind="thinking")), BlockDelta({"type": "x"})
    builder = built(thought, thought, block)
    builder.extras.text_before = 3
    before = builder.outcome()
    assert (before.void_reasoning_blocks, before.void_text, before.void_provider_blocks) == (0, 0, 0)
    builder.void(8)
    (closed,) = builder.note(thought)
    builder.note(block)
    outcome = builder.outcome()
    assert (outcome.void_reasoning_blocks, outcome.void_text, outcome.void_provider_blocks) == (2, 5, 1)
    assert (len(outcome.reasoning_blocks), len(outcome.provider_blocks)) == (3, 2)
    assert isinstance(closed, ReasoningBlockClosed)
    assert closed.index == 0


@pytest.mark.parametrize("end", [None, "finish reason", "end marker", "both"])
@pytest.mark.parametrize("keeps_text", [False, True])
def test_of_an_answer_that_broke_off_the_blocks_after_the_text_that_was_taken_are_left_out(
    end: str | None, *, keeps_text: bool
) -> None:
    builder = OutcomeBuilder(keeps_text=keeps_text)
    builder.took([("ab", "text")])
    for at in (1, 2, 3):
        builder.note(BlockDelta({"type": "x"}), at)
    if end in ("finish reason", "both"):
        builder.note(FinishDelta("stop", "stop"))
    if end in ("end marker", "both"):
        builder.complete()
    is_cut = keeps_text and end is None
    assert (builder.is_whole, builder.is_finished) == (end is not None, end in ("finish reason", "both"))
    assert [block.at for block in builder.outcome().provider_blocks] == ([1, 2] if is_cut else [1, 2, 3])


def test_raw_events_that_there_was_no_room_for_are_counted_in_the_metadata() -> None:
    builder = built(MetadataDelta({"a": 1}))
    assert builder.outcome().provider_metadata == {"a": 1}
    for _ in range(3):
        builder.held.add(ProviderEvent(type="x", payload="y" * 3_000_000))
    outcome = builder.outcome()
    assert outcome.provider_metadata == {"a": 1, "dropped_events": 2}
    assert outcome.finish_reason == "stop"
