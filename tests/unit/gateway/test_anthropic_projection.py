"""Anthropic's events, row by row of the projection table."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.events import (
    AnswerPart,
    Citation,
    Event,
    Logprobs,
    MediaPart,
    ProviderEvent,
    ReasoningBlock,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamStarted,
    TokenLogprob,
    ToolApprovalRequested,
    ToolCallCompleted,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
    Usage,
)
from penstock.gateway.answers.anthropic_parts import unseal
from penstock.gateway.problems import Problem
from penstock.gateway.projections.anthropic import AnthropicProjection, anthropic_status, error_body
from penstock.gateway.projections.frames import joined
from tests.unit.gateway.chat_made import (
    call,
    calling,
    cancelled,
    completed,
    datas,
    failed,
    fed,
    opened,
    reset,
    sent,
    snapshot,
    token,
)


def told(*events: Event, **more: Any) -> list[Any]:
    return datas(sent(fed(AnthropicProjection(opened(**more)), *events)))


def seen(*events: Event, **more: Any) -> list[str]:
    """The events in short: ``+0 text``, ``0 text_delta Hi``, ``-0``, and the types of the others."""
    return [_short(event) for event in told(*events, **more)]


def _short(event: dict[str, Any]) -> str:
    match event["type"]:
        case "content_block_start":
            return f"+{event['index']} {event['content_block']['type']}"
        case "content_block_stop":
            return f"-{event['index']}"
        case "content_block_delta":
            delta = dict(event["delta"])
            kind = delta.pop("type")
            (value,) = delta.values()
            return f"{event['index']} {kind} {value if isinstance(value, str) else value['type']}"
        case "message_delta":
            return f"message_delta {event['delta']['stop_reason']}"
        case "error":
            return f"error {event['error']['type']} {event['error']['code']}"
    return str(event["type"])


START = "message_start"
END = ["message_delta end_turn", "message_stop"]


# --- text -------------------------------------------------------------------------------------------------------------


def test_the_frames_of_a_text_byte_by_byte() -> None:
    usage = Usage(input_tokens=3, output_tokens=2)
    frames = fed(AnthropicProjection(opened()), token("Hi"), completed("Hi", usage=usage, provider="anthropic"))
    assert [frame.data for frame in frames] == [
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_s1","type":"message",'
        b'"role":"assistant","content":[],"model":"m","stop_reason":null,"stop_sequence":null,'
        b'"usage":{"input_tokens":0,"output_tokens":0}}}\n\n',
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"text","text":""}}\n\n',
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"Hi"}}\n\n',
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n',
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn",'
        b'"stop_sequence":null},"usage":{"input_tokens":3,"output_tokens":2}}\n\n',
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ]


def test_a_block_ends_where_the_kind_or_the_part_changes_and_a_refusal_is_text() -> None:
    events = token("hm", "reasoning"), token("a"), token("b"), token("c", part=1), token("no", "refusal", part=1)
    assert seen(*events, completed("abc", reasoning="hm", refusal="no", finish_reason="refusal")) == [
        START,
        "+0 thinking",
        "0 thinking_delta hm",
        "-0",
        "+1 text",
        "1 text_delta a",
        "1 text_delta b",
        "-1",
        "+2 text",
        "2 text_delta c",
        "2 text_delta no",
        "-2",
        "message_delta refusal",
        "message_stop",
    ]


def test_neighbouring_pieces_of_a_block_become_one_delta() -> None:
    projection = AnthropicProjection(opened())
    frames = fed(projection, token("a"), token("b"), token("c", "reasoning"), token("d", "reasoning"))
    assert [_short(event) for event in datas(joined(frames[2:], projection))] == [
        "0 text_delta ab",
        "-0",
        "+1 thinking",
        "1 thinking_delta cd",
    ]


def test_empty_text_makes_no_frame() -> None:
    assert fed(AnthropicProjection(opened()), token("")) == []


def test_an_agents_start_begins_the_message() -> None:
    (start,) = told(StreamStarted(model="x"), model="")
    assert start["message"]["model"] == "x"


def test_the_heartbeat_is_an_event_of_the_protocol() -> None:
    assert AnthropicProjection.heartbeat == b'event: ping\ndata: {"type": "ping"}\n\n'


# --- reasoning --------------------------------------------------------------------------------------------------------


def test_the_signature_comes_directly_before_the_end_of_its_block() -> None:
    block = ReasoningBlockClosed(index=0, kind="thinking", signature="c2ln", provider="anthropic")
    assert seen(token("hm", "reasoning"), block, token("so", "reasoning"), block, token("a"))[1:] == [
        "+0 thinking",
        "0 thinking_delta hm",
        "0 signature_delta c2ln",
        "-0",
        "+1 thinking",
        "1 thinking_delta so",
        "1 signature_delta c2ln",
        "-1",
        "+2 text",
        "2 text_delta a",
    ]


def test_reasoning_that_is_sealed_whole_is_a_block_of_its_own() -> None:
    found = told(ReasoningBlockClosed(index=0, kind="redacted_thinking", signature="ZGF0YQ=="), token("a"))
    assert found[1]["content_block"] == {"type": "redacted_thinking", "data": "ZGF0YQ=="}
    assert seen(ReasoningBlockClosed(index=0, kind="thinking", signature="c2ln")) == [
        START,
        "+0 thinking",
        "0 signature_delta c2ln",
        "-0",
    ]


def test_the_signature_of_another_provider_is_wrapped_so_that_it_goes_back_to_that_one() -> None:
    block = ReasoningBlockClosed(index=0, kind="reasoning", signature="ZW5j", id="rs_1", provider="openai-responses")
    signature = told(token("hm", "reasoning"), block)[3]["delta"]["signature"]
    assert unseal(signature, "hm") == ReasoningBlock(
        kind="reasoning", text="hm", signature="ZW5j", id="rs_1", provider="openai-responses"
    )
    assert unseal("c2ln", "") is None
    assert unseal("penstock.!", "") is None


def test_a_block_without_a_signature_makes_no_frame() -> None:
    assert seen(ReasoningBlockClosed(index=0, kind="thinking")) == []


# --- calls ------------------------------------------------------------------------------------------------------------


def test_a_call_is_a_block_that_grows() -> None:
    one = call()
    end = completed(tool_calls=(one,), finish_reason="tool_calls")
    events = [token("a"), *calling(one), ToolCallCompleted(index=0, call=one)]
    assert told(*events)[4]["content_block"] == {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}
    assert seen(*events, end)[1:] == [
        "+0 text",
        "0 text_delta a",
        "-0",
        "+1 tool_use",
        '1 input_json_delta {"x"',
        "1 input_json_delta :1}",
        "-1",
        "message_delta tool_use",
        "message_stop",
    ]


def test_the_blocks_of_calls_follow_one_another_even_if_their_pieces_come_mixed() -> None:
    one, two = call(arguments='{"a":"}"}'), call(id="call_2")
    first, second = calling(one, 0), calling(two, 1)
    assert seen(first[0], second[0], second[1], first[1], second[2], first[2], token("a"))[1:] == [
        "+0 tool_use",
        '0 input_json_delta {"a":',
        '0 input_json_delta "}"}',
        "-0",
        "+1 tool_use",
        '1 input_json_delta {"x":1}',
        "-1",
        "+2 text",
        "2 text_delta a",
    ]


def test_a_call_without_arguments_holds_the_next_one_back_until_it_is_known_to_be_complete() -> None:
    none, one = call(arguments=""), call(id="call_2")
    events = [*calling(none, 0), *calling(one, 1, pieces=1)]
    assert seen(*events)[1:] == ["+0 tool_use"]
    assert seen(*events, ToolCallCompleted(index=0, call=none), ToolCallCompleted(index=1, call=one))[1:] == [
        "+0 tool_use",
        "-0",
        "+1 tool_use",
        '1 input_json_delta {"x":1}',
        "-1",
    ]


def test_text_amid_a_calls_arguments_does_not_cut_the_call() -> None:
    one = call()
    started, first, second = calling(one)
    found = seen(started, first, token("a"), second, ToolCallCompleted(index=0, call=one), completed("a"))
    assert found[1:] == [
        "+0 tool_use",
        '0 input_json_delta {"x"',
        "+1 text",
        "1 text_delta a",
        "0 input_json_delta :1}",
        "-0",
        "-1",
        "message_delta tool_use",
        "message_stop",
    ]


def test_the_calls_and_results_of_an_agents_turn_are_invisible() -> None:
    one = call()
    events = [
        StreamStarted(model="m"),
        token("Let me look."),
        *calling(one),
        ToolCallCompleted(index=0, call=one),
        ToolApprovalRequested(call=one),
        ToolExecutionStarted(round=1, calls=(one,)),
        ToolProgress(call_id=one.id, name="f", progress=0.5),
        ToolResult(call_id=one.id, name="f", content="1"),
        token("One.", part=1),
    ]
    end = completed("Let me look.One.", tool_calls=(one,), raw_finish_reason="end_turn")
    assert seen(*events, end)[1:] == [
        "+0 text",
        "0 text_delta Let me look.",
        "ping",
        "-0",
        "+1 text",
        "1 text_delta One.",
        "-1",
        *END,
    ]


# --- Anthropic's own tools and citations ------------------------------------------------------------------------------


def test_a_tool_of_anthropics_is_told_in_its_own_form() -> None:
    ran = call("web_search", '{"q":1}', id="srvtoolu_1", is_server=True)
    results = [{"type": "web_search_result", "url": "https://a.example/", "title": "A", "encrypted_content": "e"}]
    found = told(
        *calling(ran, pieces=1),
        ServerToolCall(id=ran.id, name=ran.name, input={"q": 1}),
        ServerToolResult(id=ran.id, name=ran.name, output=results),
        token("a"),
        ToolCallCompleted(index=0, call=ran),
    )
    assert [_short(event) for event in found[1:]] == [
        "+0 server_tool_use",
        '0 input_json_delta {"q":1}',
        "-0",
        "+1 web_search_tool_result",
        "-1",
        "+2 text",
        "2 text_delta a",
    ]
    block = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": results}
    assert found[4]["content_block"] == block


@pytest.mark.parametrize(
    ("name", "id", "output", "kind"),
    [
        ("echo", "mcptoolu_1", [{"type": "text", "text": "x"}], "mcp_tool_result"),
        ("tool_search_tool_bm25", "srvtoolu_1", {"type": "tool_search_tool_search_result"}, "tool_search_tool_result"),
        ("web_search", "srvtoolu_1", {"type": "web_search_tool_result_error"}, "web_search_tool_result"),
        ("bash_code_execution", "srvtoolu_1", {"type": "x"}, "bash_code_execution_tool_result"),
    ],
)
def test_the_type_of_a_result_follows_from_its_tool(name: str, id: str, output: Any, kind: str) -> None:
    assert seen(ServerToolResult(id=id, name=name, output=output))[1:] == [f"+0 {kind}", "-0"]


def test_a_call_of_an_mcp_server_and_one_that_was_not_told_in_pieces() -> None:
    found = told(ServerToolCall(id="mcptoolu_1", name="echo", input={"a": 1}))
    assert [_short(event) for event in found[1:]] == ["+0 mcp_tool_use", '0 input_json_delta {"a":1}', "-0"]


def test_the_tools_of_other_providers_are_left_out() -> None:
    events: list[Event] = [
        ServerToolCall(id="ws_1", name="web_search", input={}),
        ServerToolResult(id="ws_1", name="web_search", output=[]),
        MediaPart(kind="image", data="QQ=="),
        Logprobs(tokens=(TokenLogprob(token="a", logprob=-1.0),)),
        ProviderEvent(type="t", payload={}),
    ]
    assert seen(*events) == []
    ran = call("x_search", id="xs_call_1", is_server=True)
    assert seen(*calling(ran), ToolCallCompleted(index=0, call=ran)) == []


@pytest.mark.parametrize(
    ("citation", "body"),
    [
        (
            Citation(
                kind="document",
                title="D",
                cited_text="w",
                location={"document_index": 0, "start_char_index": 1, "end_char_index": 2},
            ),
            {
                "type": "char_location",
                "cited_text": "w",
                "document_index": 0,
                "start_char_index": 1,
                "end_char_index": 2,
                "document_title": "D",
            },
        ),
        (
            Citation(kind="document", location={"document_index": 0, "start_page_number": 1, "end_page_number": 2}),
            {
                "type": "page_location",
                "cited_text": "",
                "document_index": 0,
                "start_page_number": 1,
                "end_page_number": 2,
                "document_title": None,
            },
        ),
        (
            Citation(kind="document", id="f", location={"document_index": 0, "start_block_index": 1}),
            {
                "type": "content_block_location",
                "cited_text": "",
                "document_index": 0,
                "start_block_index": 1,
                "document_title": None,
                "file_id": "f",
            },
        ),
        (
            Citation(kind="search_result", url="https://a.example/", title="A", location={"search_result_index": 0}),
            {
                "type": "search_result_location",
                "cited_text": "",
                "search_result_index": 0,
                "source": "https://a.example/",
                "title": "A",
            },
        ),
        (
            Citation(kind="url", url="https://a.example/", title="A", cited_text="w"),
            {
                "type": "web_search_result_location",
                "cited_text": "w",
                "encrypted_index": "",
                "title": "A",
                "url": "https://a.example/",
            },
        ),
        (
            Citation(kind="file", id="file_1", title="F"),
            {
                "type": "web_search_result_location",
                "cited_text": "",
                "encrypted_index": "",
                "title": "F",
                "url": "",
            },
        ),
    ],
)
def test_a_citation_in_its_form(citation: Citation, body: dict[str, Any]) -> None:
    found = told(token("a"), citation)
    assert found[-1]["delta"] == {"type": "citations_delta", "citation": body}
    assert found[-1]["index"] == 0


def test_text_after_citations_is_a_block_of_its_own() -> None:
    cited = Citation(kind="url", url="https://a.example/")
    assert seen(token("a"), cited, cited, token("b"), completed("ab", citations=(cited, cited)))[1:] == [
        "+0 text",
        "0 text_delta a",
        "0 citations_delta web_search_result_location",
        "0 citations_delta web_search_result_location",
        "-0",
        "+1 text",
        "1 text_delta b",
        "-1",
        *END,
    ]


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "raw", "word"),
    [
        ("stop", "stop", "end_turn"),
        ("length", "length", "max_tokens"),
        ("content_filter", "x", "refusal"),
        ("refusal", "x", "refusal"),
        ("other", "x", "end_turn"),
        ("other", "compaction", "compaction"),
        ("other", "pause_turn", "pause_turn"),
        ("length", "model_context_window_exceeded", "model_context_window_exceeded"),
        ("tool_calls", "tool_use", "end_turn"),  # without a call for the client
    ],
)
def test_the_stop_reason_in_anthropics_words(reason: Any, raw: str, word: str) -> None:
    found = seen(token("a"), completed("a", finish_reason=reason, raw_finish_reason=raw))
    assert found[-2:] == [f"message_delta {word}", "message_stop"]


def test_an_unknown_reason_is_told_in_the_providers_word() -> None:
    unknown = completed("a", finish_reason="other", raw_finish_reason="MALFORMED_FUNCTION_CALL")
    assert told(token("a"), unknown)[-2]["delta"]["native_finish_reason"] == "MALFORMED_FUNCTION_CALL"
    for reason, raw in (("other", "pause_turn"), ("stop", "x")):
        end = completed("a", finish_reason=reason, raw_finish_reason=raw)
        assert "native_finish_reason" not in told(token("a"), end)[-2]["delta"]


def test_the_stop_sequence_that_matched_is_told() -> None:
    end = told(token("a"), completed("a", provider_metadata={"stop_sequence": "!"}))[-2]
    assert end["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "!"}


def test_the_counts_of_another_provider_do_not_include_the_cache() -> None:
    usage = Usage(
        input_tokens=10,
        output_tokens=5,
        cached_tokens=4,
        cache_write_tokens=1,
        cache_write_1h_tokens=1,
        reasoning_tokens=2,
        server_tool_requests={"web_search": 3},
        service_tier="standard",
    )
    end = told(completed("", usage=usage, provider="openai"))[-2]
    assert end["usage"] == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 1,
        "cache_read_input_tokens": 4,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 1},
        "output_tokens": 5,
        "output_tokens_details": {"thinking_tokens": 2},
        "server_tool_use": {"web_search_requests": 3},
        "service_tier": "standard",
    }
    same = told(completed("", usage=usage, provider="anthropic"))[-2]
    assert same["usage"]["input_tokens"] == 10


def test_the_counts_of_gemini_are_put_together() -> None:
    usage = Usage(input_tokens=10, output_tokens=5, reasoning_tokens=2, tool_input_tokens=3)
    counts = told(completed("", usage=usage, provider="gemini"))[-2]["usage"]
    assert (counts["input_tokens"], counts["output_tokens"]) == (13, 7)


def test_an_unknown_usage_has_the_one_count_that_clients_require() -> None:
    assert told(completed(""))[-2]["usage"] == {"output_tokens": 0}


def test_an_answer_that_breaks_off_ends_in_an_error_and_never_in_its_stop() -> None:
    assert seen(token("a"), failed("ab", undelivered=1))[3:] == ["error api_error stream_interrupted"]
    assert seen(token("a"), cancelled("a"))[3:] == ["error api_error stream_cancelled"]
    assert seen(failed()) == ["error api_error stream_interrupted"]


def test_a_reader_that_is_cut_off_gets_an_error() -> None:
    projection = AnthropicProjection(opened())
    problem = Problem(status=200, type="server_error", code="draining", message="restarting")
    assert projection.cut(problem) == (
        b'event: error\ndata: {"type":"error",'
        b'"error":{"type":"api_error","message":"restarting","code":"draining"}}\n\n'
    )


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "invalid_request_error", (400, "invalid_request_error")),
        (401, "authentication_error", (401, "authentication_error")),
        (403, "permission_error", (403, "permission_error")),
        (404, "not_found_error", (404, "not_found_error")),
        (409, "invalid_request_error", (400, "invalid_request_error")),
        (413, "invalid_request_error", (413, "request_too_large")),
        (429, "rate_limit_error", (429, "rate_limit_error")),
        (499, "server_error", (500, "api_error")),
        (500, "server_error", (500, "api_error")),
        (502, "server_error", (500, "api_error")),
        (503, "server_error", (529, "overloaded_error")),
        (504, "server_error", (500, "api_error")),
    ],
)
def test_errors_have_anthropics_types_and_statuses(status: int, kind: str, expected: tuple[int, str]) -> None:
    problem = Problem(status=status, type=kind, code="c", message="m")
    body = error_body(problem, "req_1")
    assert (anthropic_status(problem), body["error"]["type"]) == expected
    assert body == {
        "type": "error",
        "error": {"type": expected[1], "message": "m", "code": "c"},
        "request_id": "req_1",
    }


# --- resets and snapshots ---------------------------------------------------------------------------------------------


def test_a_reset_before_any_block_is_silent_and_an_error_after_one() -> None:
    assert seen(StreamStarted(), reset(), token("a"))[1:] == ["+0 text", "0 text_delta a"]
    assert seen(token("a"), reset(), token("b"), completed("b"))[3:] == ["error api_error stream_restarted"]
    assert seen(*calling(call()), reset())[-1] == "error api_error stream_restarted"


def full_snapshot() -> Any:
    block = ReasoningBlockClosed(index=0, kind="thinking", signature="c2ln", provider="anthropic")
    tool = ServerToolCall(id="srvtoolu_1", name="web_search", input={"q": 1})
    result = ServerToolResult(id="srvtoolu_1", name="web_search", output=[])
    return snapshot(
        "ab",
        reasoning="hm",
        tool_calls=(call(),),
        parts=(AnswerPart(index=1, kind="text", start=0, end=2),),
        answer_events=(block, tool, result, Citation(kind="url", url="https://a.example/")),
    )


def test_a_first_snapshot_is_one_delta_for_each_block() -> None:
    assert seen(full_snapshot(), token("c", part=1)) == [
        START,
        "+0 thinking",
        "0 thinking_delta hm",
        "0 signature_delta c2ln",
        "-0",
        "+1 server_tool_use",
        '1 input_json_delta {"q":1}',
        "-1",
        "+2 web_search_tool_result",
        "-2",
        "+3 text",
        "3 text_delta ab",
        "3 citations_delta web_search_result_location",
        "-3",
        "+4 tool_use",
        '4 input_json_delta {"x":1}',
        "-4",
        "+5 text",
        "5 text_delta c",
    ]


def test_a_later_snapshot_tells_only_what_lies_beyond() -> None:
    block = ReasoningBlockClosed(index=0, kind="thinking", signature="c2ln", provider="anthropic")
    tool = ServerToolCall(id="srvtoolu_1", name="web_search", input={"q": 1})
    before: list[Event] = [token("hm", "reasoning"), block, tool, token("a", part=1)]
    assert seen(*before, full_snapshot())[len(seen(*before)) :] == [
        "-2",
        "+3 web_search_tool_result",
        "-3",
        "+4 text",
        "4 text_delta b",
        "4 citations_delta web_search_result_location",
        "-4",
        "+5 tool_use",
        '5 input_json_delta {"x":1}',
        "-5",
    ]


def test_each_signature_of_a_snapshot_belongs_to_its_own_part() -> None:
    spans = ("reasoning", 0, 2), ("text", 0, 1), ("reasoning", 2, 4), ("text", 1, 2)
    parts = tuple(
        AnswerPart(index=place // 2, kind=kind, start=start, end=end)  # type: ignore[arg-type]
        for place, (kind, start, end) in enumerate(spans)
    )
    events = tuple(
        ReasoningBlockClosed(index=place, kind=kind, signature=signature)
        for place, (kind, signature) in enumerate(
            (("thinking", "c2lnMQ=="), ("redacted_thinking", "ZGF0YQ=="), ("thinking", "c2lnMg=="))
        )
    )
    assert seen(snapshot("ab", reasoning="hmso", parts=parts, answer_events=events))[1:] == [
        "+0 thinking",
        "0 thinking_delta hm",
        "0 signature_delta c2lnMQ==",
        "-0",
        "+1 text",
        "1 text_delta a",
        "-1",
        "+2 redacted_thinking",
        "-2",
        "+3 thinking",
        "3 thinking_delta so",
        "3 signature_delta c2lnMg==",
        "-3",
        "+4 text",
        "4 text_delta b",
    ]


def test_results_of_tools_that_were_sent_are_not_repeated() -> None:
    events: list[Any] = [
        ServerToolCall(id="srvtoolu_1", name="web_search", input={"q": 1}),
        ServerToolResult(id="srvtoolu_1", name="web_search", output=[]),
    ]
    before = seen(*events)
    assert seen(*events, snapshot(answer_events=tuple(events))) == before
    assert seen(*events, completed(server_tools=tuple(events))) == [*before, *END]


def test_a_turn_whose_start_was_missed_is_known_by_its_tools_execution() -> None:
    one = call()
    executed = ToolExecutionStarted(round=1, calls=(one,))
    assert seen(executed, *calling(one), ToolCallCompleted(index=0, call=one)) == []


def test_a_snapshot_that_repeats_everything_makes_no_frame_and_one_of_another_text_is_a_reset() -> None:
    assert len(seen(token("ab"), snapshot("ab"))) == 3
    assert seen(token("x"), snapshot("ab"))[-1] == "error api_error stream_restarted"


def test_pieces_that_were_missed_come_with_the_calls_end() -> None:
    one = call(arguments='{"x":[1,2,3]}')
    started, first, _, third = calling(one, pieces=3)
    found = told(started, first, snapshot(), third, ToolCallCompleted(index=0, call=one))
    pieces = [event["delta"]["partial_json"] for event in found if event["type"] == "content_block_delta"]
    assert "".join(pieces) == one.arguments_raw


def test_an_end_alone_tells_the_whole_answer() -> None:
    end = completed(
        "ab",
        reasoning="hm",
        tool_calls=(call(),),
        finish_reason="tool_calls",
        citations=(Citation(kind="url"),),
        reasoning_blocks=(ReasoningBlock(kind="thinking", text="hm", signature="c2ln"),),
    )
    assert seen(end) == [
        START,
        "+0 thinking",
        "0 thinking_delta hm",
        "0 signature_delta c2ln",
        "-0",
        "+1 text",
        "1 text_delta ab",
        "1 citations_delta web_search_result_location",
        "-1",
        "+2 tool_use",
        '2 input_json_delta {"x":1}',
        "-2",
        "message_delta tool_use",
        "message_stop",
    ]
