"""What a Responses answer has besides text and calls: parts, sources, probabilities, own tools, media, metadata."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from penstock.adapters.providers.openai.responses_decoder import ResponsesDecoder
from penstock.events import (
    Citation,
    FrozenDict,
    Logprobs,
    MediaPart,
    ProviderEvent,
    ReasoningBlock,
    ServerToolCall,
    ServerToolResult,
    TokenLogprob,
)
from penstock.ports import (
    BlockDelta,
    BlockStart,
    CitationDelta,
    Delta,
    EventDelta,
    FinishDelta,
    MetadataDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Thinking,
)
from tests.unit.adapters.providers.common import nested, telling_depths
from tests.unit.adapters.providers.responses_bodies import (
    LIMIT,
    added,
    completed,
    decode,
    decoder_of,
    delta,
    done,
    event,
    message,
    sse,
)

STOP = FinishDelta("stop", "completed")


def events(deltas: list[Delta]) -> list[object]:
    return [told.event for told in deltas if isinstance(told, EventDelta)]


def blocks(deltas: list[Delta]) -> list[object]:
    return [told.data for told in deltas if isinstance(told, BlockDelta)]


# --- parts -----------------------------------------------------------------------------------------------------------


def test_each_further_text_begins_a_part_and_the_first_one_needs_no_telling() -> None:
    assert decode(
        delta("a"), delta("b"), delta("c", part=1), done(1, "web_search_call", id="ws"), delta("d", 2), completed()
    ) == [
        TextDelta("a"),
        TextDelta("b"),
        BlockStart("text"),
        TextDelta("c"),
        EventDelta(ServerToolCall(id="ws", name="web_search")),
        BlockDelta({"type": "web_search_call", "id": "ws"}),
        BlockStart("text"),
        TextDelta("d"),
        STOP,
    ]


def test_reasoning_and_refusals_are_parts_of_their_own_kind() -> None:
    summary = [
        event(f"reasoning_summary_text.{end}", output_index=0, summary_index=at, **{field: text})
        for at, text in enumerate(("one", "two"))
        for end, field in (("delta", "delta"), ("done", "text"))
    ]
    raw = event("reasoning_text.delta", output_index=0, content_index=0, delta="three")
    refusals = [event("refusal.delta", output_index=1, content_index=at, delta="no") for at in (1, 2)]
    assert decode(*summary, raw, delta("a", 1), *refusals, completed()) == [
        ReasoningDelta("one"),
        BlockStart("reasoning"),
        ReasoningDelta("two"),
        BlockStart("reasoning"),
        ReasoningDelta("three"),
        TextDelta("a"),
        RefusalDelta("no"),
        BlockStart("refusal"),
        RefusalDelta("no"),
        FinishDelta("refusal", "completed"),
    ]


def test_a_phase_begins_a_part_and_holds_until_another_one() -> None:
    think = event("reasoning_summary_text.delta", output_index=1, summary_index=0, delta="r")
    assert decode(
        added(0, "message", phase="commentary"),
        delta("Looking."),
        think,
        added(2, "message", phase="final_answer"),
        delta("Done.", 2),
        delta("More.", 2, 1),
        completed(),
    ) == [
        BlockStart("text", phase="commentary"),
        TextDelta("Looking."),
        BlockStart("reasoning"),
        ReasoningDelta("r"),
        BlockStart("text", phase="final_answer"),
        TextDelta("Done."),
        BlockStart("text", phase="final_answer"),
        TextDelta("More."),
        STOP,
    ]


def test_the_phase_of_a_message_that_comes_whole_counts_and_an_unknown_one_is_counted() -> None:
    assert decode(message(0, {"text": "a"}, phase="final_answer")) == [
        BlockStart("text", phase="final_answer"),
        TextDelta("a"),
    ]
    assert decode(added(0, "message", phase="prelude"), delta("a"), skipped=1) == [TextDelta("a")]
    assert decode(added(0, "message", phase=None), delta("a")) == [TextDelta("a")]


# --- a whole value that differs from its pieces ----------------------------------------------------------------------


@pytest.mark.parametrize("closing", ["output_text.done", "content_part.done"])
def test_what_of_a_text_was_not_streamed_follows_when_it_is_whole(closing: str) -> None:
    part = {"type": "output_text", "text": "Hello"}
    whole = {"text": "Hello"} if closing == "output_text.done" else {"part": part}
    close = event(closing, output_index=0, content_index=0, **whole)
    assert decode(delta("Hel"), close, close, message(0, part)) == [TextDelta("Hel"), TextDelta("lo")]
    assert decode(close, close, message(0, part)) == [TextDelta("Hello")]


@pytest.mark.parametrize("whole", ["Help", "He", "hello"])
def test_text_that_differs_from_the_whole_stays_and_is_counted_once(whole: str) -> None:
    close = event("output_text.done", output_index=0, content_index=0, text=whole)
    part = event("content_part.done", output_index=0, content_index=0, part={"type": "output_text", "text": whole})
    assert decode(delta("Hello"), close, part, skipped=1) == [TextDelta("Hello")]
    told = decode(delta("Hello"), close, skipped=1, raw="unknown")
    assert told[1:] == [EventDelta(ProviderEvent(type=close["type"], payload=close))]


@pytest.mark.parametrize("whole", [None, "", 5, {"a": 1}])
def test_a_whole_text_that_is_none_takes_nothing_back(whole: object) -> None:
    assert decode(delta("a"), event("output_text.done", output_index=0, content_index=0, text=whole)) == [
        TextDelta("a")
    ]


def test_a_character_in_two_halves_is_the_same_as_the_whole_one() -> None:
    close = event("output_text.done", output_index=0, content_index=0, text="😀!")
    deltas, decoder = decoder_of(delta("\ud83d"), delta("\ude00"), close, completed())
    assert "".join(told.text for told in deltas if isinstance(told, TextDelta)) == "😀!"
    assert decoder.skipped == 0


def test_summaries_and_refusals_are_completed_in_the_same_way() -> None:
    told = event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="ab")
    whole = event("reasoning_summary_text.done", output_index=0, summary_index=0, text="abc")
    assert decode(told, whole) == [ReasoningDelta("ab"), ReasoningDelta("c")]
    other = event("reasoning_summary_text.done", output_index=0, summary_index=0, text="a")
    assert decode(told, other, skipped=1) == [ReasoningDelta("ab")]
    no = event("refusal.delta", output_index=0, content_index=0, delta="n")
    assert decode(no, event("refusal.done", output_index=0, content_index=0, refusal="no")) == [
        RefusalDelta("n"),
        RefusalDelta("o"),
    ]


def test_content_of_an_unknown_type_is_counted_and_the_text_beside_it_told() -> None:
    part = {"type": "output_hologram", "data": "x"}
    item = message(0, {"text": "a"})
    item["item"]["content"].append(part)
    assert decode(item, skipped=1) == [TextDelta("a")]
    assert events(decode(item, skipped=1, raw="unknown")) == [
        ProviderEvent(type="content.output_hologram", payload=part)
    ]


# --- sources ---------------------------------------------------------------------------------------------------------

PAGE = {"type": "url_citation", "url": "https://x", "title": "X", "start_index": 1, "end_index": 3}


def annotation(item: int, part: int, **fields: Any) -> dict[str, Any]:
    return event("output_text.annotation.added", output_index=item, content_index=part, annotation=fields)


def spans(deltas: list[Delta]) -> list[str]:
    """What the citations span, in the answer's text, by the rule of `CitationDelta`."""
    text, start, found = "", 0, []
    for told in deltas:
        if isinstance(told, TextDelta):
            text += told.text
        elif isinstance(told, BlockStart) and told.kind == "text":
            start = len(text)
        elif isinstance(told, CitationDelta):
            assert told.citation.start is not None
            assert told.citation.end is not None
            found.append((start + told.citation.start, start + told.citation.end))
    return [text[slice(*span)] for span in found]


def test_annotations_of_each_kind_are_citations() -> None:
    told = decode(
        delta("0123456789"),
        annotation(0, 0, **PAGE),
        annotation(0, 0, type="file_citation", file_id="f1", filename="a.txt", index=5),
        annotation(
            0,
            0,
            type="container_file_citation",
            container_id="c",
            file_id="f2",
            filename="b.png",
            start_index=0,
            end_index=0,
        ),
        annotation(0, 0, type="file_path", file_id="f3", index=1),
    )
    assert [each.citation for each in told if isinstance(each, CitationDelta)] == [
        Citation(kind="url", url="https://x", title="X", start=1, end=3),
        Citation(kind="file", id="f1", title="a.txt", location=FrozenDict({"index": 5})),
        Citation(kind="file", id="f2", title="b.png", location=FrozenDict({"container_id": "c"})),
        Citation(kind="file", id="f3", location=FrozenDict({"index": 1})),
    ]


def test_places_count_from_the_part_that_the_citation_is_in() -> None:
    told = decode(
        event("reasoning_text.delta", output_index=0, content_index=0, delta="thinking"),
        delta("ab😀d", 1),
        annotation(1, 0, **{**PAGE, "start_index": 2, "end_index": 4}),
        delta("efgh", 1, 1),
        annotation(1, 1, **{**PAGE, "start_index": 0, "end_index": 2}),
        annotation(1, 0, **{**PAGE, "start_index": 0, "end_index": 1}),  # of the part before
        event("reasoning_text.delta", output_index=2, content_index=0, delta="more"),
        event("reasoning_text.delta", output_index=2, content_index=1, delta="and more"),
        delta("ijkl", 3),
        annotation(3, 0, **PAGE),
    )
    assert spans(told) == ["😀d", "ef", "a", "jk"]


def test_places_are_right_after_many_parts_and_in_parts_that_grow_at_the_same_time() -> None:
    many = [delta(f"{at:02}", 0, at) for at in range(40)]
    last = {**PAGE, "start_index": 0, "end_index": 2}
    assert spans(decode(*many, annotation(0, 39, **last), annotation(0, 3, **last))) == ["39", "03"]
    growing = (delta("ab", 0), delta("cd", 1), delta("ef", 0), delta("gh", 2))
    assert spans(decode(*growing, annotation(2, 0, **last))) == ["gh"]


def test_halves_of_a_character_count_as_one_in_places() -> None:
    told, _ = decoder_of(
        delta("\ud83d"),
        delta("\ude00a", 0),
        delta("bcd", 1),
        event("reasoning_text.delta", output_index=2, content_index=0, delta="r"),
        event("reasoning_text.delta", output_index=2, content_index=1, delta="r"),
        delta("efgh", 3),
        annotation(3, 0, **PAGE),
    )
    assert spans(told) == ["fg"]


@pytest.mark.parametrize("streamed", [0, 1, 2])
def test_a_citation_is_told_once_wherever_it_stands(streamed: int) -> None:
    sources = [PAGE, {**PAGE, "url": "https://y"}]
    part = {"type": "output_text", "text": "0123", "annotations": sources}
    whole = event("content_part.done", output_index=0, content_index=0, part=part)
    early = [annotation(0, 0, **each) for each in sources[:streamed]]
    end = completed(output=[message(0, part)["item"]])
    bodies = [
        (delta("0123"), *early, whole, message(0, part), end),
        (delta("0123"), *early, message(0, part), end),
        (*early, message(0, part), end),
    ]
    for body in bodies if streamed < 2 else bodies[:2]:
        told = decode(*body)
        assert [each.citation.url for each in told if isinstance(each, CitationDelta)] == ["https://x", "https://y"]
    if streamed == 0:
        told = decode(delta("0123"), end)  # only the finished response has them
        assert [each.citation.url for each in told if isinstance(each, CitationDelta)] == ["https://x", "https://y"]
        assert spans(told) == ["12", "12"]
        whole_only = decode(end)
        assert spans(whole_only) == ["12", "12"]


def test_sources_of_another_text_than_the_streamed_one_are_counted() -> None:
    part = {"type": "output_text", "text": "0123", "annotations": [PAGE]}
    end = completed(output=[message(0, part)["item"]])
    assert decode(delta("01234"), end, skipped=1) == [TextDelta("01234"), STOP]


def test_sources_of_the_finished_response_count_from_the_start_of_the_answer() -> None:
    first = message(0, {"text": "abcd"})["item"]
    second = message(1, {"text": "0123", "annotations": [PAGE]})["item"]
    assert spans(decode(delta("abcd"), delta("0123", 1), completed(output=[first, second]))) == ["12"]


def test_sources_of_a_part_that_the_whole_item_numbers_differently_are_told() -> None:
    empty = {"type": "output_text", "text": ""}
    part = {"type": "output_text", "text": "0123", "annotations": [PAGE]}
    assert spans(decode(delta("0123", 0, 7), message(0, empty, part))) == ["12"]


@pytest.mark.parametrize("wrong", [None, "x", {}, {"type": "new_citation", "url": "u"}])
def test_an_annotation_of_another_form_is_counted(wrong: Any) -> None:
    odd = event("output_text.annotation.added", output_index=0, content_index=0, annotation=wrong)
    assert decode(delta("a"), odd, skipped=1) == [TextDelta("a")]
    assert len(events(decode(delta("a"), odd, skipped=1, raw="unknown"))) == 1


# --- probabilities ---------------------------------------------------------------------------------------------------

TOKENS = [
    {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": [{"token": "Hi", "logprob": -0.5}]},
    {"token": "!", "logprob": 0, "top_logprobs": []},
]
FIRST, SECOND = (
    TokenLogprob(token="Hi", logprob=-0.5, top=(("Hi", -0.5),)),
    TokenLogprob(token="!", logprob=0.0),
)


def test_probabilities_follow_their_text_and_are_told_once() -> None:
    close = event("output_text.done", output_index=0, content_index=0, text="Hi!", logprobs=TOKENS)
    part = {"type": "output_text", "text": "Hi!", "logprobs": TOKENS}
    whole = event("content_part.done", output_index=0, content_index=0, part=part)
    streamed = (delta("Hi", logprobs=TOKENS[:1]), delta("!", logprobs=TOKENS[1:]))
    for rest in ((close, whole, message(0, part)), (message(0, part),), ()):
        assert decode(*streamed, *rest) == [
            TextDelta("Hi"),
            EventDelta(Logprobs(tokens=(FIRST,))),
            TextDelta("!"),
            EventDelta(Logprobs(tokens=(SECOND,))),
        ]
    plain = (delta("Hi", logprobs=[]), delta("!"))
    both = EventDelta(Logprobs(tokens=(FIRST, SECOND)))
    for late in ((close, whole, message(0, part)), (whole, message(0, part)), (message(0, part),)):
        assert decode(*plain, *late) == [TextDelta("Hi"), TextDelta("!"), both]
    assert decode(message(0, part)) == [TextDelta("Hi!"), both]


@pytest.mark.parametrize(
    "wrong",
    [-0.5, {"token": "a"}, [5], [{"token": "a"}], [{"token": 1, "logprob": -1}], [{"token": "a", "logprob": True}]],
)
def test_probabilities_of_another_form_are_counted_and_the_text_is_told(wrong: Any) -> None:
    assert decode(delta("a", logprobs=wrong), skipped=1) == [TextDelta("a")]
    assert len(events(decode(delta("a", logprobs=wrong), skipped=1, raw="unknown"))) == 1


def test_half_a_character_in_a_token_is_replaced() -> None:
    token = {"token": "a\ud83d", "logprob": -1.0, "top_logprobs": [{"token": "\ude00", "logprob": -2.0}]}
    (event_,) = events(decoder_of(delta("a", logprobs=[token]))[0])
    assert event_ == Logprobs(tokens=(TokenLogprob(token="a\ufffd", logprob=-1.0, top=(("\ufffd", -2.0),)),))


# --- the provider's own tools ----------------------------------------------------------------------------------------

ACTION = {"type": "search", "query": "q", "queries": ["q"]}
LOGS = [{"type": "logs", "logs": "1"}]
TOOLS = [{"name": "ask", "input_schema": {}}]
SHELL = {"type": "container_reference", "container_id": "c"}
HOSTED: list[tuple[dict[str, Any], ServerToolCall, ServerToolResult | None]] = [
    (
        {"type": "web_search_call", "id": "w", "action": ACTION, "status": "completed"},
        ServerToolCall(id="w", name="web_search", input=ACTION, status="completed"),
        None,
    ),
    (
        {"type": "web_search_call", "id": "w", "action": {**ACTION, "sources": [{"url": "u"}]}},
        ServerToolCall(id="w", name="web_search", input=ACTION),
        ServerToolResult(id="w", name="web_search", output={"sources": [{"url": "u"}]}),
    ),
    (
        {"type": "web_search_call", "id": "w", "action": ACTION, "results": [{"url": "u"}]},
        ServerToolCall(id="w", name="web_search", input=ACTION),
        ServerToolResult(id="w", name="web_search", output=[{"url": "u"}]),
    ),
    (
        {"type": "file_search_call", "id": "f", "queries": ["q"], "results": [{"file_id": "x"}], "status": "completed"},
        ServerToolCall(id="f", name="file_search", input={"queries": ["q"]}, status="completed"),
        ServerToolResult(id="f", name="file_search", output=[{"file_id": "x"}], status="completed"),
    ),
    (
        {"type": "file_search_call", "id": "f", "queries": ["q"], "results": None},
        ServerToolCall(id="f", name="file_search", input={"queries": ["q"]}),
        None,
    ),
    (
        {"type": "code_interpreter_call", "id": "c", "code": "1", "container_id": "k", "outputs": LOGS},
        ServerToolCall(id="c", name="code_interpreter", input={"code": "1", "container_id": "k"}),
        ServerToolResult(id="c", name="code_interpreter", output=LOGS),
    ),
    (
        {"type": "mcp_call", "id": "m", "server_label": "s", "name": "ask", "arguments": '{"q":1}', "output": "yes"},
        ServerToolCall(id="m", name="mcp", input={"server_label": "s", "name": "ask", "arguments": {"q": 1}}),
        ServerToolResult(id="m", name="mcp", output="yes"),
    ),
    (
        {"type": "mcp_call", "id": "m", "name": "ask", "arguments": "{", "error": {"code": 1}, "status": "failed"},
        ServerToolCall(id="m", name="mcp", input={"name": "ask", "arguments": "{"}, status="failed"),
        ServerToolResult(id="m", name="mcp", output={"code": 1}, status="failed", is_error=True),
    ),
    (
        {"type": "mcp_list_tools", "id": "l", "server_label": "s", "tools": TOOLS, "error": None},
        ServerToolCall(id="l", name="mcp_list_tools", input={"server_label": "s"}),
        ServerToolResult(id="l", name="mcp_list_tools", output=TOOLS),
    ),
    (
        {"type": "tool_search_call", "id": "t", "call_id": None, "execution": "server", "arguments": {"q": 1}},
        ServerToolCall(id="t", name="tool_search", input={"q": 1}),
        None,
    ),
    (
        {"type": "shell_call", "id": "s", "call_id": "call", "action": {"commands": ["ls"]}, "environment": SHELL},
        ServerToolCall(id="call", name="shell", input={"commands": ["ls"]}),
        None,
    ),
    (
        {"type": "x_search_call", "id": "x", "query": "q", "status": "completed"},
        ServerToolCall(id="x", name="x_search", input={"query": "q"}, status="completed"),
        None,
    ),
    (
        {"type": "openrouter:web_search", "id": "o", "action": ACTION, "output": "found"},
        ServerToolCall(id="o", name="web_search", input=ACTION),
        ServerToolResult(id="o", name="web_search", output="found"),
    ),
    (
        {"type": "custom_tool_call", "call_id": "xs_1", "name": "x_user_search", "input": '{"q":1}', "id": "i"},
        ServerToolCall(id="xs_1", name="x_user_search", input={"q": 1}),
        None,
    ),
    (
        {"type": "program", "id": "p", "call_id": "pc", "code": "f()", "fingerprint": "x"},
        ServerToolCall(id="pc", name="program", input="f()"),
        None,
    ),
]


@pytest.mark.parametrize(("item", "call", "result"), HOSTED)
def test_each_of_the_providers_own_tools_is_told_with_its_result_and_goes_back(
    item: dict[str, Any], call: ServerToolCall, result: ServerToolResult | None
) -> None:
    started = event("output_item.added", output_index=0, item={**item, "status": "in_progress", "input": ""})
    whole = event("output_item.done", output_index=0, item=item)
    end = completed(output=[item])
    told = decode(started, whole, whole, end)
    assert events(told) == [call] if result is None else [call, result]
    assert blocks(told) == [item]
    assert told[-1] == STOP
    in_the_end = decode(end)
    assert events(in_the_end) == events(told)
    assert blocks(in_the_end) == [item]


@pytest.mark.parametrize(
    ("call", "output", "result"),
    [
        (
            {"type": "shell_call", "id": "s", "call_id": "c", "action": {"commands": ["ls"]}, "environment": SHELL},
            {
                "type": "shell_call_output",
                "id": "so",
                "call_id": "c",
                "output": [{"stdout": "x"}],
                "status": "completed",
            },
            ServerToolResult(id="c", name="shell", output=[{"stdout": "x"}], status="completed"),
        ),
        (
            {"type": "tool_search_call", "id": "t", "call_id": None, "execution": "server", "arguments": "{}"},
            {"type": "tool_search_output", "id": "to", "call_id": None, "execution": "server", "tools": TOOLS},
            ServerToolResult(id="t", name="tool_search", output=TOOLS),
        ),
        (
            {"type": "program", "id": "p", "call_id": "pc", "code": "f()"},
            {"type": "program_output", "id": "po", "call_id": "pc", "result": "4", "status": "completed"},
            ServerToolResult(id="pc", name="program", output="4", status="completed"),
        ),
    ],
)
def test_results_that_are_items_of_their_own_refer_to_their_call(
    call: dict[str, Any], output: dict[str, Any], result: ServerToolResult
) -> None:
    told = decode(*(event("output_item.done", output_index=at, item=item) for at, item in enumerate((call, output))))
    first, second = events(told)
    assert isinstance(first, ServerToolCall)
    assert first.id == result.id
    assert second == result
    assert blocks(told) == [call, output]


def test_calls_without_an_id_are_numbered() -> None:
    told = decode(done(0, "web_search_call"), done(1, "web_search_call", id=""), done(2, "web_search_call", id="w"))
    assert [each.id for each in events(told) if isinstance(each, ServerToolCall)] == ["server_0", "server_1", "w"]


def test_what_the_provider_needs_back_and_that_says_nothing_is_a_block() -> None:
    items: list[dict[str, Any]] = [
        {"type": "compaction", "id": "c", "encrypted_content": "sealed"},
        {"type": "context_compaction", "encrypted_content": "sealed"},
        {"type": "additional_tools", "id": "a", "role": "developer", "tools": []},
    ]
    working = event("compaction.compacting", output_index=0, item_id="c")
    body = [event("output_item.done", output_index=at, item=item) for at, item in enumerate(items)]
    assert decode(working, *body, completed()) == [*map(BlockDelta, items), STOP]
    assert decode(completed(output=items)) == [*map(BlockDelta, items), STOP]


def test_items_of_an_unknown_type_or_form_are_counted_and_given_raw() -> None:
    item = {"type": "teleport_call", "id": "t"}
    whole = event("output_item.done", output_index=0, item=item)
    assert decode(whole, completed(), skipped=1) == [STOP]
    assert events(decode(whole, skipped=1, raw="unknown")) == [ProviderEvent(type="item.teleport_call", payload=item)]
    oddities: tuple[Any, ...] = (None, 5, [], {"id": "x"}, {"type": 5})
    for odd in oddities:
        assert decode(event("output_item.done", output_index=0, item=odd), skipped=1) == []


def test_values_that_cannot_be_encoded_are_mended_in_events_and_blocks() -> None:
    item = {"type": "mcp_call", "id": "m\ud83d", "name": "n", "arguments": '{"a":"\\ud83d"}', "output": "x\ud83d"}
    told, _ = decoder_of(event("output_item.done", output_index=0, item=item))
    call, result = events(told)
    assert call == ServerToolCall(id="m\ufffd", name="mcp", input={"name": "n", "arguments": {"a": "\ufffd"}})
    assert result == ServerToolResult(id="m\ufffd", name="mcp", output="x\ufffd")
    assert blocks(told) == [{**item, "id": "m\ufffd", "output": "x\ufffd"}]


# --- reasoning -------------------------------------------------------------------------------------------------------


def test_reasoning_stands_in_its_place_among_tools_and_text() -> None:
    first = {"type": "reasoning", "id": "r1", "summary": [], "encrypted_content": "e1"}
    second = {"type": "reasoning", "id": "r2", "summary": [{"type": "summary_text", "text": "s"}]}
    search = {"type": "web_search_call", "id": "w"}
    body = [event("output_item.done", output_index=at, item=item) for at, item in enumerate((first, search, second))]
    assert decode(added(0, "reasoning", id="r1", summary=[]), *body, delta("a", 3)) == [
        Thinking(),
        ReasoningBlockDelta(ReasoningBlock(kind="reasoning", signature="e1", id="r1")),
        BlockDelta(first),
        EventDelta(ServerToolCall(id="w", name="web_search")),
        BlockDelta(search),
        ReasoningDelta("s"),
        ReasoningBlockDelta(ReasoningBlock(kind="reasoning", text="s", id="r2")),
        BlockDelta(second),
        TextDelta("a"),
    ]


# --- pictures and sound ----------------------------------------------------------------------------------------------


def test_pictures_come_in_previews_and_whole_and_a_stored_one_goes_back_by_its_id() -> None:
    preview = event(
        "image_generation_call.partial_image",
        output_index=0,
        item_id="ig",
        partial_image_b64="QQ==",
        output_format="webp",
    )
    item = {
        "type": "image_generation_call",
        "id": "ig",
        "status": "completed",
        "output_format": "webp",
        "revised_prompt": "p",
        "size": "1x1",
        "result": "QUI=",
    }
    whole = event("output_item.done", output_index=0, item=item)
    asked = {"output_format": "webp", "revised_prompt": "p", "size": "1x1"}
    told = decode(preview, whole, completed())
    assert told == [
        EventDelta(MediaPart(kind="image", mime="image/webp", data="QQ==", id="ig", is_partial=True)),
        EventDelta(ServerToolCall(id="ig", name="image_generation", input=asked, status="completed")),
        EventDelta(MediaPart(kind="image", mime="image/webp", data="QUI=", id="ig")),
        BlockDelta({"type": "image_generation_call", "id": "ig"}),
        STOP,
    ]
    unstored = event("created", response={"store": False})
    assert blocks(decode(unstored, whole)) == [item]


def test_pictures_of_other_forms() -> None:
    def item(**fields: Any) -> dict[str, Any]:
        return done(0, "image_generation_call", id="ig", **fields)

    assert events(decode(item(result="QQ==")))[1] == MediaPart(kind="image", data="QQ==", id="ig")
    assert events(decode(item(result="QQ==", output_format="svg")))[1:] == [
        MediaPart(kind="image", mime="image/svg+xml", data="QQ==", id="ig")
    ]
    for nothing in (None, "", 5, "ä"):
        assert len(events(decode(item(result=nothing)))) == 1
    error = {"type": "image_generation_error", "message": "m", "code": "moderation_blocked"}
    assert events(decode(item(result=None, status="failed", error=error)))[1:] == [
        ServerToolResult(id="ig", name="image_generation", output=error, status="failed", is_error=True)
    ]
    for wrong in ({}, {"partial_image_b64": 5}, {"partial_image_b64": "ä"}):
        assert decode(event("image_generation_call.partial_image", output_index=0, **wrong), skipped=1) == []


def test_sound_comes_in_pieces_and_whole_at_the_end() -> None:
    pieces = [base64.b64encode(piece).decode() for piece in (b"a", b"bc")]
    told = decode(
        event("audio.delta", delta=pieces[0]),
        event("audio.transcript.delta", delta="Hel"),
        event("audio.delta", delta=pieces[1]),
        event("audio.transcript.delta", delta="lo"),
        event("audio.done"),
        event("audio.transcript.done"),
        completed(),
    )
    whole = base64.b64encode(b"abc").decode()
    assert events(told) == [
        MediaPart(kind="audio", data=pieces[0], is_partial=True),
        MediaPart(kind="audio", transcript="Hel", is_partial=True),
        MediaPart(kind="audio", data=pieces[1], is_partial=True),
        MediaPart(kind="audio", transcript="lo", is_partial=True),
        MediaPart(kind="audio", data=whole, transcript="Hello"),
    ]
    assert told[-1] == STOP
    assert decode(event("audio.delta", delta=5), event("audio.delta", delta="ä"), completed(), skipped=1) == [STOP]


# --- the response as a whole -----------------------------------------------------------------------------------------


def metadata(deltas: list[Delta]) -> list[object]:
    return [told.values for told in deltas if isinstance(told, MetadataDelta)]


def test_what_a_response_says_of_itself_is_told_once_and_again_if_it_changes() -> None:
    first = {"id": "r", "service_tier": "auto", "background": False, "incomplete_details": None, "moderation": None}
    later = {**first, "service_tier": "default", "usage": {"input_tokens": 1, "cost": 0.5}}
    body = [event(kind, response=first) for kind in ("created", "queued", "in_progress")]
    assert metadata(decode(*body, event("completed", response=later))) == [
        {"response_id": "r", "service_tier": "auto"},
        {"service_tier": "default", "cost": 0.5},
    ]


def test_metadata_of_different_servers() -> None:
    filters = [{"blocked": False, "source_type": "prompt"}]
    used = {"image_gen": {"input_tokens": 0, "details": {"a": 0}}, "web_search": {"num_requests": 2}}
    response = {
        "system_fingerprint": "fp",
        "provider": "Azure",
        "moderation": {"input": {"flagged": False}},
        "content_filters": filters,
        "conversation": {"id": "c"},
        "background": True,
        "usage": {"cost_in_usd_ticks": 7},
        "tool_usage": used,
        "incomplete_details": {"reason": "max_output_tokens"},
    }
    (told,) = metadata(decode(event("incomplete", response=response)))
    assert told == {
        "system_fingerprint": "fp",
        "upstream_provider": "Azure",
        "moderation": {"input": {"flagged": False}, "content_filters": filters},
        "conversation": {"id": "c"},
        "background": True,
        "cost": {"cost_in_usd_ticks": 7},
        "usage_details": {"tool_usage": used},
        "incomplete_details": {"reason": "max_output_tokens"},
    }
    nothing: dict[str, Any] = {
        "tool_usage": {"web_search": {"num_requests": 0}},
        "content_filters": [],
        "id": "",
        "usage": None,
    }
    assert decode(event("completed", response=nothing)) == [STOP]


def test_metadata_that_is_too_large_is_counted() -> None:
    assert decode(event("created", response={"id": "x" * 4_097, "service_tier": "auto"}), skipped=1) == [
        MetadataDelta({"service_tier": "auto"})
    ]
    assert decode(event("created", response={"conversation": {"id": "x" * 16_384}}), skipped=1) == []
    assert decode(event("created", response={"id": "x" * 4_096})) == [MetadataDelta({"response_id": "x" * 4_096})]


def test_half_a_character_in_metadata_is_replaced() -> None:
    assert metadata(decoder_of(event("created", response={"id": "r\ud83d"}))[0]) == [{"response_id": "r\ufffd"}]


# --- not understood --------------------------------------------------------------------------------------------------


def test_unknown_events_are_given_raw_and_known_ones_are_not() -> None:
    new = event("something.new", x=1)
    known = [
        event("created", response={"id": "r"}),
        event("content_part.added", output_index=0, content_index=0, part={"type": "output_text"}),
        event("web_search_call.searching", output_index=0),
        delta("a"),
        event("content_part.done", output_index=0, content_index=0, part={"type": "output_text", "text": "a"}),
        message(0, {"text": "a"}),
        completed(id="r"),
    ]
    raw = decode(*known[:3], new, *known[3:], skipped=1, raw="unknown")
    assert events(raw) == [ProviderEvent(type="response.something.new", payload=new)]
    assert [told for told in raw if not isinstance(told, EventDelta)] == decode(*known)


# --- after a break ---------------------------------------------------------------------------------------------------


def test_an_answer_that_is_resumed_anywhere_tells_everything_once() -> None:
    part = {"type": "output_text", "text": "01234", "annotations": [PAGE], "logprobs": TOKENS}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    body = [
        event("created", response={"id": "r", "background": True, "service_tier": "auto"}),
        added(0, "message", phase="commentary"),
        delta("012", logprobs=TOKENS[:1]),
        annotation(0, 0, **PAGE),
        delta("34", logprobs=TOKENS[1:]),
        event("output_text.done", output_index=0, content_index=0, text="01234", logprobs=TOKENS),
        message(0, part, phase="commentary"),
        done(1, "web_search_call"),
        event("audio.delta", delta="QQ=="),
        added(2, **call),
        event("function_call_arguments.delta", output_index=2, delta='{"a":1'),
        event("function_call_arguments.done", output_index=2, arguments='{"a":1}'),
        done(3, "tool_search_call", id="t", execution="server", arguments={}),
        done(4, "tool_search_output", call_id=None, tools=[]),
        done(5, "web_search_call"),
        done(6, "shell_call", call_id="s", action={"commands": ["ls"]}),
        done(7, "shell_call_output", call_id="s", output=[]),
        delta("5", 8),
        completed(id="r", service_tier="auto"),
    ]
    numbered = [{**each, "sequence_number": at} for at, each in enumerate(body)]
    whole, _ = decoder_of(*numbered)
    assert sum(isinstance(told, CitationDelta) for told in whole) == 1
    for cut in range(1, len(numbered)):
        decoder = ResponsesDecoder(LIMIT)
        before = decoder.feed(sse(*numbered[:cut]))
        for _ in range(2):  # as if the second connection broke too, before anything came
            rest = decoder.resumed().feed(sse(*numbered[max(0, cut - 2) :]))  # the server repeats two
            assert before + rest == whole


# --- odd values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "item",
    [
        {"type": "local_shell_call", "call_id": "c", "action": "NESTED"},
        {"type": "mcp_call", "id": "m", "arguments": "{}", "output": "NESTED"},
        {"type": "compaction", "encrypted_content": "NESTED"},
        {"type": "reasoning", "id": "r", "summary": "NESTED"},
        {"type": "message", "content": [{"type": "output_text", "text": "a", "annotations": ["NESTED"]}]},
    ],
)
def test_values_of_any_depth_raise_nothing_and_can_be_encoded(item: dict[str, Any]) -> None:
    for depth in telling_depths():
        body = sse(
            event("output_item.done", output_index=0, item=item), event("created", response="NESTED"), delta("x")
        )
        decoder = ResponsesDecoder(100_000_000, "unknown")
        deltas = decoder.feed(body.replace(b'"NESTED"', nested(depth).encode()))
        assert deltas[-1] == TextDelta("x")
        for told in deltas:
            msgspec.json.encode(told.event if isinstance(told, EventDelta) else told)


def test_a_result_that_contains_nothing_is_counted() -> None:
    assert decode(done(0, "shell_call_output", call_id="c", output=None), skipped=1) == []


def test_what_a_hosted_item_has_besides_its_state_is_its_input() -> None:
    def call(**fields: Any) -> Any:
        (told,) = events(decode(done(0, "web_fetch_call", id="w", status="completed", **fields)))
        assert isinstance(told, ServerToolCall)
        return told.input

    assert call(arguments='{"url":"u"}') == {"url": "u"}
    assert call(url="u", depth=None) == {"url": "u"}
    assert call() is None


def test_reasoning_that_comes_only_whole_is_told_in_its_parts() -> None:
    whole = [event("reasoning_text.done", output_index=0, content_index=at, text=text) for at, text in enumerate("ab")]
    item = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "s"}],
        "content": [{"type": "reasoning_text", "text": text} for text in "ab"],
    }
    told = [ReasoningDelta("a"), BlockStart("reasoning"), ReasoningDelta("b")]
    assert decode(*whole) == told
    joint = [ReasoningDelta("s"), BlockStart("reasoning"), *told]
    assert decode(done(0, **item)) == [*joint, BlockDelta(item)]
    assert decode(completed(output=[item])) == [*joint, BlockDelta(item), STOP]


@pytest.mark.parametrize("name", [["x_user_search"], {}, 7, None])
def test_a_custom_call_with_an_odd_name_is_for_the_client(name: object) -> None:
    deltas = decode(added(0, "custom_tool_call", id="i", call_id="xs_1", name=name), completed())
    assert events(deltas) == []
