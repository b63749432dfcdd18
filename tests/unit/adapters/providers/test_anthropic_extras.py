"""What the Messages API says besides text and calls: citations, its own tools, blocks, parts, metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from penstock.adapters.providers.anthropic.decoder import MessagesDecoder
from penstock.config.options import Raw
from penstock.errors import ProtocolError
from penstock.events import Citation, FrozenDict, ProviderEvent, ReasoningBlock, ServerToolCall, ServerToolResult
from penstock.ports import (
    BlockDelta,
    BlockStart,
    CitationDelta,
    Delta,
    ErrorDelta,
    EventDelta,
    FinishDelta,
    MetadataDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    TextDelta,
    Thinking,
    ToolCallFragment,
)
from tests.unit.adapters.providers.common import nested, telling_depths
from tests.unit.adapters.providers.test_anthropic import end, head, piece, sse, start, stop

STOP = {"type": "message_stop"}


def _decoded(chunks: Iterable[bytes], raw: Raw = "none") -> tuple[list[Delta], MessagesDecoder]:
    decoder = MessagesDecoder(1_000_000, raw)
    deltas = [delta for chunk in chunks for delta in decoder.feed(chunk)]
    return deltas + decoder.close(), decoder


def _key(delta: Delta) -> object:
    """Errors are compared by their text."""
    return str(delta.error) if isinstance(delta, ErrorDelta) else delta


def _joined(deltas: list[Delta]) -> list[Any]:
    """The deltas as comparable values, texts that follow one another as one."""
    out: list[Any] = []
    for delta in deltas:
        if out and isinstance(delta, (TextDelta, ReasoningDelta)) and type(out[-1]) is type(delta):
            out[-1] = type(delta)(out[-1].text + delta.text)
        else:
            out.append(_key(delta))
    return out


def told(*events: dict[str, Any], raw: Raw = "none") -> list[Delta]:
    """The deltas of these events, which are the same however the bytes are cut.

    A body that is cut short tells the beginning of the same and never raises; only what waits for the end of a text is
    told where the body ends.
    """
    data = [json.dumps(event).encode() for event in events]
    body = b"".join(b"data: " + each + b"\n\n" for each in data)
    whole, _ = _decoded([body], raw)
    assert _joined(_decoded([body[at : at + 1] for at in range(len(body))], raw)[0]) == _joined(whole)
    lengths = [len(each) + len(b"data: \n\n") for each in data]
    cuts = {sum(lengths[:count]) + more for count in range(len(lengths) + 1) for more in (-9, -3, -1, 0)}
    for cut in sorted(cuts):
        shorter = _decoded([body[: max(0, cut)]], raw)[0]
        late = len(shorter)
        while late and isinstance(shorter[late - 1], CitationDelta):
            late -= 1
        joined, expected = _joined(shorter[:late]), _joined(whole)
        if joined and isinstance(joined[-1], (TextDelta, ReasoningDelta)):
            last, other = joined.pop(), expected[len(joined)]
            assert type(other) is type(last)
            assert other.text.startswith(last.text.rstrip("\ufffd"))
        assert joined == expected[: len(joined)]
    return whole


def text(index: int, *pieces: str) -> list[dict[str, Any]]:
    """A block of text."""
    return [
        start(index, type="text", text=""),
        *(piece(index, type="text_delta", text=one) for one in pieces),
        stop(index),
    ]


def server_call(index: int, name: str = "web_search", *arguments: str) -> list[dict[str, Any]]:
    return [
        start(index, type="server_tool_use", id=f"srv{index}", name=name, input={}, caller={"type": "direct"}),
        *(piece(index, type="input_json_delta", partial_json=one) for one in arguments or ("", '{"query": ', '"q"}')),
        stop(index),
    ]


RESULT = {"type": "web_search_tool_result", "tool_use_id": "srv1", "content": [{"url": "u", "encrypted_content": "e"}]}


# --- citations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {
                "type": "char_location",
                "cited_text": "The sky.",
                "document_index": 0,
                "document_title": "Sky",
                "file_id": None,
                "start_char_index": 3,
                "end_char_index": 11,
            },
            Citation(
                kind="document",
                title="Sky",
                cited_text="The sky.",
                location=FrozenDict(document_index=0, start_char_index=3, end_char_index=11),
            ),
        ),
        (
            {
                "type": "page_location",
                "cited_text": "Water",
                "document_index": 1,
                "document_title": None,
                "file_id": "file_1",
                "start_page_number": 5,
                "end_page_number": 6,
            },
            Citation(
                kind="document",
                id="file_1",
                cited_text="Water",
                location=FrozenDict(document_index=1, start_page_number=5, end_page_number=6),
            ),
        ),
        (
            {
                "type": "content_block_location",
                "cited_text": "c",
                "document_index": 2,
                "document_title": "T",
                "start_block_index": 0,
                "end_block_index": 1,
            },
            Citation(
                kind="document",
                title="T",
                cited_text="c",
                location=FrozenDict(document_index=2, start_block_index=0, end_block_index=1),
            ),
        ),
        (
            {
                "type": "web_search_result_location",
                "cited_text": "w",
                "url": "https://x/a",
                "title": "A",
                "encrypted_index": "sealed",
            },
            Citation(kind="url", url="https://x/a", title="A", cited_text="w"),
        ),
        (
            {
                "type": "search_result_location",
                "cited_text": "s",
                "source": "https://docs/1",
                "title": "D",
                "search_result_index": 0,
                "start_block_index": 1,
                "end_block_index": 2,
            },
            Citation(
                kind="search_result",
                url="https://docs/1",
                title="D",
                cited_text="s",
                location=FrozenDict(search_result_index=0, start_block_index=1, end_block_index=2),
            ),
        ),
        (
            {"type": "search_result_location", "cited_text": "s", "source": "handbook", "search_result_index": 3},
            Citation(
                kind="search_result", cited_text="s", location=FrozenDict(source="handbook", search_result_index=3)
            ),
        ),
        (
            {"type": "map_location", "url": "https://m", "place": "here", "cited_text": 5, "title": ["no"]},
            Citation(kind="url", url="https://m", location=FrozenDict(place="here")),
        ),
        (
            {"type": "page_location", "document_title": "a\ud83d", "note": "\udc00"},
            Citation(kind="document", title="a\ufffd", location=FrozenDict(note="\ufffd")),
        ),
    ],
)
def test_a_citation_has_its_source_and_where_in_it(given: dict[str, Any], expected: Citation) -> None:
    delta = piece(0, type="citations_delta", citation=given)
    told_of_it = CitationDelta(expected, is_of_block=True)
    assert told(start(0, type="text", text=""), delta, piece(0, type="text_delta", text="It is."), stop(0)) == [
        TextDelta("It is."),
        told_of_it,
    ]
    whole = start(0, type="text", text="It is.", citations=[given, given])
    assert told(whole, stop(0)) == [TextDelta("It is."), told_of_it, told_of_it]


URL = {"type": "web_search_result_location", "url": "https://x/a", "cited_text": "w"}
CITED = CitationDelta(Citation(kind="url", url="https://x/a", cited_text="w"), is_of_block=True)


def test_a_citation_is_told_after_all_the_text_that_it_is_for_and_the_border_is_no_joint() -> None:
    assert told(
        *text(0, "See ", "it: "),
        start(1, type="text", text="", citations=[]),
        piece(1, type="citations_delta", citation=URL),
        piece(1, type="text_delta", text="two"),
        piece(1, type="citations_delta", citation=URL),
        piece(1, type="text_delta", text=" words"),
        stop(1),
        *text(2, "."),
    ) == [
        TextDelta("See "),
        TextDelta("it: "),
        BlockStart("text", is_joint=False),
        TextDelta("two"),
        TextDelta(" words"),
        CITED,
        CITED,
        BlockStart("text", is_joint=False),
        TextDelta("."),
    ]


@pytest.mark.parametrize("ending", [[end("end_turn")], [STOP], [start(1, type="text", text="")], []])
def test_a_citation_of_a_text_without_its_end_is_told_all_the_same(ending: list[dict[str, Any]]) -> None:
    deltas = told(start(0, type="text", text="a", citations=[URL]), *ending)
    assert deltas[:2] == [TextDelta("a"), CITED]
    assert deltas.count(CITED) == 1


@pytest.mark.parametrize("broken", [None, 5, [], {}, {"type": "new"}, {"type": 5}, {"url": 5}])
def test_what_is_no_citation_is_counted(broken: object) -> None:
    deltas, decoder = _decoded([sse(start(0, type="text", text="a", citations=[broken]), stop(0))])
    assert (deltas, decoder.skipped) == ([TextDelta("a")], 1)
    deltas, decoder = _decoded([sse(start(0, type="text", text="a", citations=broken), stop(0))])
    assert (deltas, decoder.skipped) == ([TextDelta("a")], 0)


# --- parts ---------------------------------------------------------------------------------------------------------


def joints(*events: dict[str, Any]) -> list[Any]:
    """Texts and starts of blocks: ``"|"`` is a joint and ``"·"`` another border, each with the letter of its kind."""
    out: list[Any] = []
    for delta in told(*events):
        if isinstance(delta, BlockStart):
            out.append(("|" if delta.is_joint else "·") + delta.kind[0])
        elif isinstance(delta, (TextDelta, ReasoningDelta)):
            out.append(delta.text)
    return out


def thinking(index: int, *pieces: str) -> list[dict[str, Any]]:
    return [
        start(index, type="thinking", thinking="", signature=""),
        *(piece(index, type="thinking_delta", thinking=one) for one in pieces),
        piece(index, type="signature_delta", signature=f"s{index}"),
        stop(index),
    ]


RESULT_BLOCK = [start(2, **RESULT), stop(2)]


@pytest.mark.parametrize(
    "between",
    [
        [*server_call(1), *RESULT_BLOCK],
        RESULT_BLOCK,
        [start(1, type="tool_use", id="t", name="f", input={"x": 1}), stop(1)],
        thinking(1, "hm"),
        [start(1, type="redacted_thinking", data="r"), stop(1)],
        [start(1, type="compaction", content="c"), stop(1)],
        [start(1, type="something_new"), stop(1)],
    ],
)
def test_text_after_something_else_than_text_is_a_part_of_its_own(between: list[dict[str, Any]]) -> None:
    parts = [one for one in joints(*text(0, "Looking."), *between, *text(3, "Done.")) if one != "hm"]
    assert parts == ["Looking.", "|t", "Done."]


def test_no_part_begins_where_there_was_no_text_of_the_kind() -> None:
    assert joints(*thinking(0, "hm"), *text(1, "a")) == ["hm", "a"]
    assert joints(*text(0), *server_call(1), *text(2, "a")) == ["a"]
    assert joints(*text(0, ""), *server_call(1), *text(2, "a"), *thinking(3, "hm")) == ["a", "hm"]
    assert joints(*thinking(0), *thinking(1, "hm")) == ["hm"]
    assert joints(*thinking(0, ""), *thinking(1, "hm")) == ["hm"]


def test_a_part_is_of_all_kinds_and_text_in_a_later_one_still_begins_at_its_own_block() -> None:
    assert joints(
        *thinking(0, "a"), *text(1, "A"), *server_call(2), *thinking(3, "b"), *text(4, "B"), *text(5, "C")
    ) == ["a", "A", "|r", "b", "·t", "B", "·t", "C"]
    assert joints(*thinking(0, "a"), *text(1, "A"), *server_call(2), *text(3, "B"), *thinking(4, "b")) == [
        *("a", "A", "|t", "B", "b"),
    ]
    assert joints(*thinking(0, "a"), *thinking(1, "b"), *thinking(2, "c")) == ["a", "|r", "b", "|r", "c"]


def test_text_that_came_the_lenient_way_or_whole_counts_too() -> None:
    odd = {**piece(0, type="text_delta", text="a"), "index": None}
    assert joints(start(0, type="text"), odd, stop(0), *server_call(1), *text(2, "b")) == ["a", "|t", "b"]
    odd = {**piece(0, type="thinking_delta", thinking="a"), "index": None}
    assert joints(start(0, type="thinking"), odd, stop(0), *thinking(1, "b")) == ["a", "|r", "b"]
    content = [{"type": "text", "text": "a"}, RESULT, {"type": "text", "text": "b"}, {"type": "text", "text": "c"}]
    assert joints(head(content=content)) == ["a", "|t", "b", "·t", "c"]


def test_half_a_character_at_the_end_of_a_block_stays_before_the_next_part() -> None:
    deltas = told(start(0, type="text", text="a\ud83d"), stop(0), *RESULT_BLOCK, start(3, type="text", text="b"))
    assert [delta for delta in deltas if isinstance(delta, (TextDelta, BlockStart))] == [
        TextDelta("a"),
        TextDelta("\ufffd"),
        BlockStart("text"),
        TextDelta("b"),
    ]


# --- the provider's own tools --------------------------------------------------------------------------------------


def test_a_call_of_the_providers_own_tool_is_told_when_it_is_whole_and_its_result_with_its_name() -> None:
    call = {
        "type": "server_tool_use",
        "id": "srv1",
        "name": "web_search",
        "input": {"query": "q"},
        "caller": {"type": "direct"},
    }
    assert told(*server_call(1), *RESULT_BLOCK) == [
        ToolCallFragment(1, "srv1", "web_search", "", is_server=True),
        ToolCallFragment(1, None, None, '{"query": '),
        ToolCallFragment(1, None, None, '"q"}'),
        EventDelta(ServerToolCall(id="srv1", name="web_search", input={"query": "q"})),
        BlockDelta(call),
        EventDelta(ServerToolResult(id="srv1", name="web_search", output=RESULT["content"])),
        BlockDelta(RESULT),
    ]


def test_a_tool_of_an_mcp_server_has_its_own_name_and_its_server_goes_back() -> None:
    call = {"type": "mcp_tool_use", "id": "m1", "name": "ask", "server_name": "wiki", "input": {"a": "é"}}
    content = [{"type": "text", "text": "no"}]
    result = {"type": "mcp_tool_result", "tool_use_id": "m1", "is_error": True, "content": content}
    assert told(start(0, **call), stop(0), start(1, **result), stop(1)) == [
        ToolCallFragment(0, "m1", "ask", '{"a":"é"}', is_server=True),
        EventDelta(ServerToolCall(id="m1", name="ask", input={"a": "é"})),
        BlockDelta(call),
        EventDelta(ServerToolResult(id="m1", name="ask", output=content, is_error=True)),
        BlockDelta(result),
    ]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("web_search_tool_result", "web_search"),
        ("web_fetch_tool_result", "web_fetch"),
        ("code_execution_tool_result", "code_execution"),
        ("bash_code_execution_tool_result", "bash_code_execution"),
        ("text_editor_code_execution_tool_result", "text_editor_code_execution"),
        ("tool_search_tool_result", "tool_search"),
        ("advisor_tool_result", "advisor"),
        ("mcp_tool_result", "mcp"),
        ("next_years_tool_result", "next_years"),
    ],
)
def test_every_kind_of_result_is_told_and_goes_back(kind: str, name: str) -> None:
    for content, is_error in (({"type": "x_result", "n": 1}, False), ({"type": f"{kind}_error"}, True), ([], False)):
        block: dict[str, Any] = {"type": kind, "tool_use_id": "srv9", "content": content, "caller": {"type": "direct"}}
        assert told(start(0, **block), stop(0)) == [
            EventDelta(ServerToolResult(id="srv9", name=name, output=content, is_error=is_error)),
            BlockDelta(block),
        ]


@pytest.mark.parametrize(
    ("arguments", "given", "returned"),
    [
        ([""], {}, {}),
        (['{"q"'], '{"q"', {}),
        (["[1, ", "2]"], [1, 2], {}),
        (['"words"'], "words", {}),
        (["null"], {}, {}),
        (['{"q": "\\ud83d"}'], {"q": "\ufffd"}, {"q": "\ufffd"}),
        (['{"q": "\\ud83c', '\\udf0a"}'], {"q": "\U0001f30a"}, {"q": "\U0001f30a"}),
    ],
)
def test_odd_arguments_are_told_and_an_object_goes_back(arguments: list[str], given: object, returned: object) -> None:
    deltas = told(*server_call(1, "f", *arguments))
    (call,) = [delta.event for delta in deltas if isinstance(delta, EventDelta)]
    assert isinstance(call, ServerToolCall)
    assert call.input == given
    (block,) = [delta.data for delta in deltas if isinstance(delta, BlockDelta)]
    assert block["input"] == returned


def test_a_call_that_is_cut_off_is_not_told_as_whole() -> None:
    deltas = told(*server_call(1)[:-1], end("max_tokens"), STOP)
    assert not any(isinstance(delta, (EventDelta, BlockDelta)) for delta in deltas)


def test_a_result_ends_its_call_if_the_server_does_not_send_the_end_of_a_block() -> None:
    deltas = told(*server_call(1)[:-1], start(2, **RESULT))
    events = [delta.event for delta in deltas if isinstance(delta, EventDelta)]
    assert [(type(event), event.id, event.name) for event in events] == [  # type: ignore[union-attr]
        (ServerToolCall, "srv1", "web_search"),
        (ServerToolResult, "srv1", "web_search"),
    ]


def test_calls_without_an_id_are_numbered_and_not_given_back() -> None:
    nameless = [start(0, type="server_tool_use", name="f", input={}), stop(0)]
    deltas = [delta for delta in told(*nameless, *nameless) if not isinstance(delta, ToolCallFragment)]
    assert deltas == [
        EventDelta(ServerToolCall(id="server_0", name="f", input={})),
        EventDelta(ServerToolCall(id="server_1", name="f", input={})),
    ]


def test_a_call_of_the_clients_tool_by_the_models_program_is_given_back_with_its_caller() -> None:
    caller = {"type": "code_execution_20250825", "tool_id": "srv1"}
    begun = start(2, type="tool_use", id="t", name="roll", input={}, caller=caller)
    assert told(begun, piece(2, type="input_json_delta", partial_json='{"n": 1}'), stop(2)) == [
        ToolCallFragment(2, "t", "roll"),
        ToolCallFragment(2, arguments='{"n": 1}'),
        BlockDelta({"type": "tool_use", "id": "t", "name": "roll", "input": {"n": 1}, "caller": caller}),
    ]
    direct = start(2, type="tool_use", id="t", name="roll", input={"n": 1}, caller={"type": "direct"})
    assert told(direct, stop(2)) == [ToolCallFragment(2, "t", "roll", '{"n":1}')]


# --- blocks that go back -------------------------------------------------------------------------------------------


def test_reasoning_goes_back_signed_or_not_at_all_and_with_u_fffd_for_half_characters() -> None:
    assert told(
        start(0, type="thinking", thinking="h\ud83d", signature="early"),
        piece(0, type="thinking_delta", thinking="m"),
        stop(0),
        start(1, type="thinking", thinking="unsigned", signature=""),
        stop(1),
        start(2, type="redacted_thinking", data=""),
        stop(2),
    ) == [
        Thinking(),
        ReasoningDelta("h"),
        ReasoningDelta("\ufffdm"),
        ReasoningBlockDelta(ReasoningBlock(kind="thinking", text="h\ufffdm", signature="early")),
        BlockDelta({"type": "thinking", "thinking": "h\ufffdm", "signature": "early"}),
        BlockStart("reasoning"),
        Thinking(),
        ReasoningDelta("unsigned"),
        Thinking(),
        ReasoningBlockDelta(ReasoningBlock(kind="redacted_thinking")),
    ]


def test_a_compaction_is_put_together_and_goes_back() -> None:
    begun = start(0, type="compaction", content=None, encrypted_content=None)
    whole = piece(0, type="compaction_delta", content="Summary\ud83d", encrypted_content="sealed")
    assert told(begun, whole, stop(0), *text(1, "a")) == [
        BlockDelta({"type": "compaction", "content": "Summary\ufffd", "encrypted_content": "sealed"}),
        TextDelta("a"),
    ]
    halves = [piece(0, type="compaction_delta", content="S"), piece(0, type="compaction_delta", encrypted_content="e")]
    assert told(begun, *halves, stop(0)) == [
        BlockDelta({"type": "compaction", "content": "S", "encrypted_content": "e"})
    ]
    failed = start(0, type="compaction", content="")
    assert told(failed, stop(0)) == [BlockDelta({"type": "compaction", "content": None})]
    assert told(begun, whole) == []


def test_files_and_handovers_to_another_model_go_back_as_they_came() -> None:
    upload = {"type": "container_upload", "file_id": "file_1"}
    handover = {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}, "trigger": {"type": "refusal"}}
    events = [head(model="a"), start(0, **upload), stop(0), start(1, **handover), stop(1)]
    assert told(*events) == [BlockDelta(upload), BlockDelta(handover)]
    assert _decoded([sse(*events)])[1].model == "b"
    odd = start(0, type="fallback", to="b")
    assert told(head(model="a"), odd) == [BlockDelta({"type": "fallback", "to": "b"})]


@pytest.mark.parametrize("kind", ["web_search_tool_result", "server_tool_use"])
def test_a_block_of_any_depth_is_told_or_counted(kind: str) -> None:
    decoder = MessagesDecoder(10_000_000)
    skipped = []
    for depth in telling_depths():
        inner = nested(depth)
        block = f'{{"type":"{kind}","tool_use_id":"s","id":"s","name":"f","content":{inner},"input":{inner}}}'
        event = f'data: {{"type":"content_block_start","index":0,"content_block":{block}}}\n\n'
        before = decoder.skipped
        deltas = decoder.feed(event.encode() + sse(stop(0)))
        skipped.append(decoder.skipped - before)
        assert len([delta for delta in deltas if isinstance(delta, BlockDelta)]) + skipped[-1] == 1, depth
        for delta in deltas:
            if isinstance(delta, BlockDelta):
                json.dumps(delta.data)
    assert (skipped[0], skipped[-1]) == (0, 1)


# --- metadata ------------------------------------------------------------------------------------------------------


def metadata(*events: dict[str, Any]) -> list[Any]:
    return [delta.values for delta in told(*events) if isinstance(delta, MetadataDelta)]


def test_what_is_said_of_the_whole_answer_is_told_when_it_is_known() -> None:
    container = {"id": "c1", "expires_at": "2026-01-01T00:00:00Z"}
    edits = {"applied_edits": [{"type": "clear_tool_uses_20250919", "cleared_tool_uses": 2}]}
    begun = head(
        id="msg_1", container=None, stop_sequence=None, usage={"service_tier": "standard", "inference_geo": "us"}
    )
    ended: dict[str, Any] = {
        "type": "message_delta",
        "delta": {"stop_reason": "stop_sequence", "stop_sequence": "END", "container": container},
        "context_management": edits,
        "usage": {"output_tokens": 1, "service_tier": "standard", "iterations": [{"type": "message"}]},
    }
    assert metadata(begun, ended, STOP) == [
        {"response_id": "msg_1"},
        {"service_tier": "standard", "usage_details": {"inference_geo": "us"}},
        {"container": container, "stop_sequence": "END", "context_management": edits},
        {"usage_details": {"inference_geo": "us", "iterations": [{"type": "message"}]}},
    ]
    message = {
        **begun["message"],
        **ended["delta"],
        "context_management": edits,
        "usage": {"service_tier": "batch"},
        "diagnostics": {"cache_miss_reason": None},
    }
    (first, second) = metadata(message)
    assert first == {
        "response_id": "msg_1",
        "container": container,
        "stop_sequence": "END",
        "context_management": edits,
        "diagnostics": {"cache_miss_reason": None},
    }
    assert second == {"service_tier": "batch"}


def test_a_refusal_says_why() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "No.\ud83d", "recommended_model": None}
    event = {"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_details": details}, "usage": {}}
    assert told(event) == [
        MetadataDelta({"refusal_details": {**details, "explanation": "No.\ufffd"}}),
        FinishDelta("refusal", "refusal"),
    ]
    assert metadata(head(stop_details={"type": "pause"})) == [{"stop_details": {"type": "pause"}}]
    assert metadata(head(stop_details="no")) == []


def test_a_value_is_told_once_and_again_if_it_changes() -> None:
    events = [end("end_turn", service_tier="a"), end("end_turn", service_tier="a"), end(None, service_tier="b")]
    assert metadata(*events) == [{"service_tier": "a"}, {"service_tier": "b"}]
    renamed = {"type": "message_delta", "delta": {"id": "msg_2"}}
    assert metadata(head(id="msg_1"), renamed) == [{"response_id": "msg_1"}]


@pytest.mark.parametrize(
    ("value", "is_told"),
    [
        ("x" * 4_096, True),
        ("x" * 4_097, False),
        ({"id": "x" * 16_000}, True),
        ({"id": "x" * 16_384}, False),
        ({"é": [1, None, 2.5, "\ud83d"]}, True),
    ],
)
def test_a_value_that_is_too_long_is_counted(value: Any, is_told: bool) -> None:
    deltas, decoder = _decoded([sse(head(diagnostics=value))])
    assert (len(deltas), decoder.skipped) == (int(is_told), int(not is_told))


# --- the message ---------------------------------------------------------------------------------------------------


def test_a_message_inside_of_another_one_ends_the_stream_and_repeats_no_text() -> None:
    for second in (head(id="m2"), {**head()["message"], "content": [{"type": "text", "text": "lo"}]}):
        deltas = told(head(), *text(0, "Hel"), second, *text(0, "Hello"), end("end_turn"), STOP)
        assert deltas[0] == TextDelta("Hel")
        (error,) = deltas[1:]
        assert isinstance(error, ErrorDelta)
        assert isinstance(error.error, ProtocolError)
        assert not error.error.retryable
        assert "Hel" not in str(error.error)


def test_a_message_may_begin_late_and_what_is_none_begins_none() -> None:
    broken = {"type": "message_start", "message": None}
    assert told(*text(0, "a"), broken, head(), *text(1, "b")) == [
        TextDelta("a"),
        BlockStart("text", is_joint=False),
        TextDelta("b"),
    ]


def test_a_message_whose_start_has_content_goes_on_and_is_no_second_one() -> None:
    caller = {"type": "code_execution_20250825", "tool_id": "srv0"}
    call = {"type": "tool_use", "id": "t", "name": "roll", "input": {"n": 1}, "caller": caller}
    assert told(head(content=[call], stop_reason="tool_use"), STOP) == [
        ToolCallFragment(0, "t", "roll", '{"n":1}'),
        BlockDelta(call),
        FinishDelta("tool_calls", "tool_use"),
    ]


def test_a_paused_turn_keeps_its_own_word() -> None:
    deltas = told(head(), *server_call(0), end("pause_turn", output_tokens=1), STOP)
    assert FinishDelta("other", "pause_turn") in deltas


# --- raw -----------------------------------------------------------------------------------------------------------


def test_only_what_no_typed_event_or_field_covers_is_unknown() -> None:
    known = [head(id="m"), *thinking(0, "hm"), *text(1, "a"), *server_call(2), *RESULT_BLOCK, end("end_turn"), STOP]
    assert not any(
        isinstance(delta, EventDelta) and isinstance(delta.event, ProviderEvent)
        for delta in told(*known, raw="unknown")
    )
    hologram = start(0, type="hologram", x="\ud83d")
    late = piece(7, type="input_json_delta", partial_json="{}")
    odd = piece(0, type="wave_delta", x=1)
    new = {"type": "message_paused", "n": 1}
    deltas = told(hologram, late, piece(7, type="input_json_delta", partial_json=""), odd, new, raw="unknown")
    assert deltas == [
        EventDelta(ProviderEvent(type="hologram", payload=start(0, type="hologram", x="\ufffd"))),
        EventDelta(ProviderEvent(type="input_json_delta", payload=late)),
        EventDelta(ProviderEvent(type="wave_delta", payload=odd)),
        EventDelta(ProviderEvent(type="message_paused", payload=new)),
    ]
    assert told(hologram, late, odd, new) == []
    assert _decoded([sse(hologram, late, odd, new)])[1].skipped == 4


def test_empty_arguments_are_no_surprise() -> None:
    assert _decoded([sse(piece(7, type="input_json_delta", partial_json=""))])[1].skipped == 0


def test_half_a_character_in_the_type_of_a_result_is_replaced() -> None:
    kind = "new_\ud83d_tool_result"
    event = json.dumps({"type": "content_block_start", "index": 0, "content_block": {"type": kind, "tool_use_id": "s"}})
    deltas = MessagesDecoder(1_000_000).feed(f"data: {event}\n\n".encode())
    assert [delta.event.name for delta in deltas if isinstance(delta, EventDelta)] == ["new_\ufffd"]  # type: ignore[union-attr]
    msgspec.json.encode(deltas)


def test_half_a_character_anywhere_else_can_be_written_as_json() -> None:
    half = "\ud83d"
    blocks: list[dict[str, Any]] = [
        {"type": "server_tool_use", "id": half, "name": half, "input": {half: half}, "caller": {"type": half}},
        {"type": "web_search_tool_result", "tool_use_id": half, "content": [{half: half}]},
        {"type": "compaction", "content": half, half: half},
        {"type": "fallback", "to": {"model": half}},
        {"type": "text", "text": "a", "citations": [{"type": "page_location", half: half, "document_title": half}]},
    ]
    usage = {"service_tier": half, half: half}
    message = head(id=half, container={half: half}, stop_sequence=half, content=blocks, usage=usage)
    deltas, decoder = _decoded([sse(message)])
    msgspec.json.encode([deltas, decoder.model])
    assert decoder.skipped == 0


def test_half_a_character_at_the_end_of_a_cited_text_comes_before_the_citation() -> None:
    cited = piece(0, type="citations_delta", citation={"type": "web_search_result_location", "url": "https://x"})
    deltas = told(
        head(),
        start(0, type="text", text=""),
        cited,
        piece(0, type="text_delta", text="ab\ud83d"),
        stop(0),
        end("end_turn"),
    )
    citation = CitationDelta(Citation(kind="url", url="https://x"), is_of_block=True)
    assert [d for d in _joined(deltas) if isinstance(d, (TextDelta, CitationDelta))] == [
        TextDelta("ab\ufffd"),
        citation,
    ]


def thought(index: int) -> list[dict[str, Any]]:
    return [
        start(index, type="thinking", thinking="", signature=""),
        piece(index, type="thinking_delta", thinking="hm"),
        piece(index, type="signature_delta", signature="sig"),
    ]


def words(index: int) -> list[dict[str, Any]]:
    return [start(index, type="text", text=""), piece(index, type="text_delta", text="Hi"), stop(index)]


THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "sig"}
SEARCHED = {"type": "server_tool_use", "id": "srv1", "name": "web_search", "caller": {"type": "direct"}}
SEARCHED |= {"input": {"query": "q"}}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([*thought(0), *words(1)], [THOUGHT, "Hi"]),
        ([*words(0), *thought(1)], ["Hi", THOUGHT]),
        ([*server_call(1)[:-1], *words(2)], [SEARCHED, "Hi"]),
        ([*words(0), *server_call(1)[:-1]], ["Hi", SEARCHED]),
        ([*thought(0), *server_call(1)[:-1], *words(2)], [THOUGHT, SEARCHED, "Hi"]),
        ([*words(0), *server_call(1, "web_search", "")[:-1]], ["Hi", SEARCHED | {"input": {}}]),
    ],
)
def test_blocks_go_back_in_order_though_the_server_does_not_send_their_end(events: Any, expected: list[Any]) -> None:
    for reason in ("end_turn", "tool_use"):
        deltas = told(head(), *events, end(reason), STOP)
        assert [
            delta.data if isinstance(delta, BlockDelta) else delta.text
            for delta in deltas
            if isinstance(delta, (BlockDelta, TextDelta))
        ] == expected
        calls = [delta.event for delta in deltas if isinstance(delta, EventDelta)]
        assert [call.id for call in calls if isinstance(call, ServerToolCall)] == ["srv1"] * ("srv1" in str(events))


def test_a_block_of_a_message_that_broke_off_does_not_go_back() -> None:
    for events in (thought(0)[:-1], server_call(1)[:-2]):
        assert not [delta for delta in told(head(), *events, *words(2)) if isinstance(delta, BlockDelta)]
