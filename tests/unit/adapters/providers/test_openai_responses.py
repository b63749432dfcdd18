"""OpenAI Responses: requests and events, and the deviations of other servers."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

import pytest

from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.adapters.providers.openai.responses_decoder import ResponsesDecoder
from penstock.adapters.providers.openai.responses_provider import OpenAiResponses
from penstock.config.options import RequestOptions
from penstock.errors import ApiError, OptionError, RateLimited
from penstock.events import Citation, ReasoningBlock, ServerToolCall, Usage
from penstock.ports import (
    BlockDelta,
    BlockStart,
    CanReplay,
    CanResume,
    ChatCall,
    CitationDelta,
    Delta,
    ErrorDelta,
    EventDelta,
    FinishDelta,
    KeepAlive,
    MetadataDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
    Secret,
    TextDelta,
    Thinking,
    ToolCallFragment,
    UsageDelta,
)
from tests.unit.adapters.providers.test_aborts import ends

KEY = Secret("sk-test")


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


def decode(*events: dict[str, Any]) -> list[Delta]:
    return ResponsesDecoder(1_000_000).feed(sse(*events))


def delta(kind: str, text: str, item: int = 0, **more: Any) -> dict[str, Any]:
    return event(f"response.{kind}.delta", output_index=item, delta=text, **more)


COMPLETED = event("response.completed", response={"model": "m", "usage": None})


def test_a_request_has_the_input_and_streams() -> None:
    provider = OpenAiResponses(Secret("sk-test"), "http://localhost/v1")
    call = ChatCall(model="m", input="Hi", parameters={"temperature": 1})
    request = provider.request(call)
    assert request.url == "http://localhost/v1/responses"
    assert json.loads(request.body) == {"model": "m", "input": "Hi", "stream": True, "temperature": 1}
    assert "sk-test" not in repr(request) + repr(provider)
    with pytest.raises(OptionError, match="input"):
        provider.request(ChatCall(model="m", input="Hi", parameters={"input": "x"}))


# --- requests: chat's form becomes the API's own ---------------------------------------------------------------------


def body_of(given: Any, *, resumable: bool = False, **parameters: Any) -> Any:
    call = ChatCall(model="m", input=given, parameters=parameters, resumable=resumable)
    return json.loads(OpenAiResponses(KEY).request(call).body)


def test_input_in_the_apis_own_form_passes_unchanged() -> None:
    assert body_of("Hi")["input"] == "Hi"
    own = [
        {"role": "developer", "content": "d"},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "u"}]},
        {"type": "message", "role": "assistant", "id": "msg_1", "content": [{"type": "output_text", "text": "b"}]},
        {"role": "assistant", "content": "c", "phase": "commentary"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "e"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        {"type": "item_reference", "id": "x"},
        "junk",
    ]
    assert body_of(own)["input"] == own


def test_chat_messages_become_items() -> None:
    image = {"url": "data:image/png;base64,AA==", "detail": "low"}
    given = [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "name": "n",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": image},
                {"type": "image_url", "image_url": {"url": "http://x/y.png"}},
                {"type": "file", "file": {"file_id": "f1"}},
            ],
        },
        {
            "role": "assistant",
            "content": "b",
            "reasoning_blocks": [
                {"kind": "reasoning", "text": "t", "signature": "enc", "id": "rs_1"},
                {"kind": "thinking", "text": "other", "signature": "theirs"},
                ReasoningBlock(kind="reasoning", signature="enc2"),
            ],
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}, "signature": "s"},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": {"y": 2}}},
                {"id": "c3", "type": "custom", "custom": {"name": "h", "input": "free"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "2"}]},
        {"role": "tool", "tool_call_id": "c3", "content": None},
    ]
    before = repr(given)
    assert body_of(given)["input"] == [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "a"},
                {"type": "input_image", "image_url": image["url"], "detail": "low"},
                {"type": "input_image", "image_url": "http://x/y.png", "detail": "auto"},
                {"type": "input_file", "file_id": "f1"},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "t"}],
            "encrypted_content": "enc",
        },
        {"type": "reasoning", "summary": [], "encrypted_content": "enc2"},
        {"role": "assistant", "content": "b"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x":1}'},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": '{"y":2}'},
        {"type": "custom_tool_call", "call_id": "c3", "name": "h", "input": "free"},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
        {"type": "custom_tool_call_output", "call_id": "c3", "output": ""},
    ]
    assert repr(given) == before


def test_an_assistants_message_keeps_what_it_said_in_output_parts() -> None:
    said = [{"role": "assistant", "content": [{"type": "text", "text": "a"}], "refusal": "no"}]
    parts = [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "no"}]
    assert body_of(said)["input"] == [{"role": "assistant", "content": parts}]
    refused = [{"role": "assistant", "content": None, "refusal": "no"}]
    assert body_of(refused)["input"] == [{"role": "assistant", "content": parts[1:]}]


def test_reasoning_is_given_back_only_where_it_can_be_read() -> None:
    block = {"kind": "reasoning", "text": "t", "id": "rs_1"}
    answer = {"role": "assistant", "content": "a", "reasoning_blocks": [block]}
    assert len(body_of([answer])["input"]) == 2
    assert len(body_of([answer], store=False)["input"]) == 1  # the API does not know this id
    sealed = {**answer, "reasoning_blocks": [{**block, "signature": "enc"}]}
    assert len(body_of([sealed], store=False)["input"]) == 2
    # Nothing followed the reasoning; the API refuses reasoning alone.
    assert body_of([{**sealed, "content": None}])["input"] == [{"role": "assistant", "content": ""}]


def test_tools_and_their_choice_become_flat() -> None:
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "x"}}
    custom = {"type": "custom", "custom": {"name": "g", "format": grammar}}
    own = [{"type": "web_search"}, {"type": "function", "name": "o", "parameters": None, "strict": None}]
    tools = [{"type": "function", "function": function}, {"type": "function", "function": {"name": "bare"}}, custom]
    assert body_of("Hi", tools=tools + own)["tools"] == [
        {"type": "function", **function},
        {"type": "function", "name": "bare", "parameters": {"type": "object", "properties": {}}, "strict": False},
        {"type": "custom", "name": "g", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
        *own,
    ]

    def choice(value: Any) -> Any:
        return body_of("Hi", tool_choice=value)["tool_choice"]

    assert choice({"type": "function", "function": {"name": "f"}}) == {"type": "function", "name": "f"}
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}
    assert choice({"type": "allowed_tools", "allowed_tools": allowed}) == {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "f"}],
    }
    for unchanged in ("auto", "required", {"type": "function", "name": "f"}, {"type": "web_search"}):
        assert choice(unchanged) == unchanged


def test_the_format_and_the_length_get_the_apis_names() -> None:
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True, "description": "d"}
    body = body_of(
        "Hi",
        response_format={"type": "json_schema", "json_schema": schema},
        text={"verbosity": "low"},
        max_tokens=5,
        temperature=0.5,
        reasoning={"effort": "low"},
    )
    assert body["text"] == {"verbosity": "low", "format": {"type": "json_schema", **schema}}
    assert body["max_output_tokens"] == 5
    assert (body["temperature"], body["reasoning"]) == (0.5, {"effort": "low"})
    assert "max_tokens" not in body
    assert body_of("Hi", response_format={"type": "json_object"})["text"] == {"format": {"type": "json_object"}}
    assert "text" not in body_of("Hi", response_format=None)
    assert body_of("Hi", max_completion_tokens=6)["max_output_tokens"] == 6
    for twice in (
        {"max_tokens": 5, "max_output_tokens": 5},
        {"response_format": {"type": "text"}, "text": {"format": {"type": "text"}}},
    ):
        with pytest.raises(OptionError, match=r"both given\. Pass one of them"):
            body_of("Hi", **twice)


def test_a_resumable_call_runs_in_the_background_unless_the_user_says_otherwise() -> None:
    body = body_of("Hi", resumable=True)
    assert (body["background"], body["store"]) == (True, True)
    body = body_of("Hi", resumable=True, store=False, background=False)
    assert (body["background"], body["store"]) == (False, False)
    assert "background" not in body_of("Hi")


# --- events ----------------------------------------------------------------------------------------------------------


def test_text_refusal_and_reasoning_are_told_apart() -> None:
    assert decode(
        delta("reasoning_summary_text", "s", summary_index=0),
        delta("reasoning_text", "r", content_index=0),
        delta("output_text", "a", 1, content_index=0),
        delta("refusal", "no", 1, content_index=1),
    ) == [
        ReasoningDelta("s"),
        BlockStart("reasoning"),
        ReasoningDelta("r"),
        TextDelta("a"),
        RefusalDelta("no"),
    ]


def test_what_comes_only_whole_is_told_and_what_was_told_is_not_repeated() -> None:
    message = {"type": "message", "content": [{"type": "output_text", "text": "ab"}]}
    done = event("response.output_text.done", output_index=0, content_index=0, text="ab")
    item = event("response.output_item.done", output_index=0, item=message)
    told = delta("output_text", "ab", content_index=0)
    for events in [(told, done, item), (told, item), (done, item), (item,), (done,)]:
        assert decode(*events) == [TextDelta("ab")]


def test_item_ids_that_change_with_every_event_do_not_matter() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": ""}
    args = "response.function_call_arguments"
    assert decode(
        event("response.output_item.added", output_index=3, item={**call, "id": "a"}),
        event(f"{args}.delta", output_index=3, item_id="b", delta='{"x"'),
        event(f"{args}.delta", output_index=3, item_id="c", delta=":1}"),
        event(f"{args}.done", output_index=3, item_id="d", arguments='{"x":1}'),
        event("response.output_item.done", output_index=3, item={**call, "id": "e", "arguments": '{"x":1}'}),
        COMPLETED,
    ) == [
        ToolCallFragment(3, "c1", "f", ""),
        ToolCallFragment(3, None, None, '{"x"'),
        ToolCallFragment(3, None, None, ":1}"),
        FinishDelta("tool_calls", "completed"),
    ]


def test_arguments_that_come_only_in_done_are_told_once() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": ""}
    whole = {**call, "arguments": "{}"}
    added = event("response.output_item.added", output_index=0, item=call)
    done = event("response.function_call_arguments.done", output_index=0, arguments="{}")
    item = event("response.output_item.done", output_index=0, item=whole)
    for events in [(added, done, item), (added, done), (added, item)]:
        assert decode(*events) == [ToolCallFragment(0, "c1", "f", ""), ToolCallFragment(0, None, None, "{}")]
    assert decode(item) == [ToolCallFragment(0, "c1", "f", "{}")]


@pytest.mark.parametrize("name", ["response.output_item.added", "response.output_item.done"])
def test_arguments_that_came_before_their_item_are_told_once(name: str) -> None:
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    told = decode(delta("function_call_arguments", "{}"), event(name, output_index=0, item=item))
    assert told == [ToolCallFragment(0, arguments="{}"), ToolCallFragment(0, "c", "f")]


def test_a_custom_tools_input_is_its_arguments() -> None:
    call = {"type": "custom_tool_call", "call_id": "c1", "name": "f", "input": ""}
    assert decode(
        event("response.output_item.added", output_index=0, item=call),
        delta("custom_tool_call_input", "SELECT"),
        event("response.custom_tool_call_input.done", output_index=0, input="SELECT"),
    ) == [ToolCallFragment(0, "c1", "f", "", type="custom"), ToolCallFragment(0, None, None, "SELECT")]


def test_completion_tells_usage_and_the_model_and_is_the_end() -> None:
    usage = {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 1},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 5,
    }
    decoder = ResponsesDecoder(1_000_000)
    body = sse(event("response.completed", response={"model": "m", "usage": usage}), delta("output_text", "late"))
    assert decoder.feed(body) == [
        UsageDelta(Usage(input_tokens=5, output_tokens=0, total_tokens=5, cached_tokens=1, reasoning_tokens=2)),
        FinishDelta("stop", "completed"),
    ]
    assert (decoder.done, decoder.finished, decoder.model) == (True, True, "m")
    assert decoder.feed(sse(delta("output_text", "later"))) == []
    assert decoder.close() == []


@pytest.mark.parametrize(
    ("details", "finish"),
    [
        ({"reason": "max_output_tokens"}, FinishDelta("length", "max_output_tokens")),
        ({"reason": "content_filter"}, FinishDelta("content_filter", "content_filter")),
        ({"reason": "new"}, FinishDelta("other", "new")),
        (None, FinishDelta("other", "incomplete")),
    ],
)
def test_an_incomplete_response_says_why(details: Any, finish: FinishDelta) -> None:
    (*told, last) = decode(event("response.incomplete", response={"incomplete_details": details}))
    assert last == finish
    assert told == ([MetadataDelta({"incomplete_details": details})] if details else [])


@pytest.mark.parametrize(
    ("kind", "response", "end"),
    [
        ("completed", {"status": "completed", "error": None}, "finish stop"),
        ("completed", {"status": "in_progress"}, "finish stop"),  # a server that does not keep its status up to date
        ("completed", {"status": 7}, "finish stop"),
        ("completed", {}, "finish stop"),
        ("completed", {"status": "incomplete"}, "finish other"),
        (
            "completed",
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "finish length",
        ),
        ("completed", {"status": "cancelled"}, "error cancelled"),
        ("completed", {"status": "failed", "error": {"code": "c", "message": "m"}}, "error c"),
        ("completed", {"status": "failed"}, "error None"),
        ("completed", {"status": "completed", "error": {"code": "c", "message": "m"}}, "error c"),
        ("completed", {"status": "ABORTED"}, "error ABORTED"),
        ("incomplete", {"status": "completed"}, "finish other"),
        ("incomplete", {"status": "cancelled", "incomplete_details": None}, "error cancelled"),
        ("incomplete", {"status": "failed", "error": {"code": "c", "message": "m"}}, "error c"),
        ("cancelled", {"status": "completed"}, "error cancelled"),
        ("failed", {"status": "completed"}, "error None"),
        ("failed", {"status": "cancelled", "error": {"code": "c", "message": "m"}}, "error c"),
    ],
)
def test_a_response_ends_as_its_type_or_its_status_says_whichever_leaves_more_undone(
    kind: str, response: dict[str, Any], end: str
) -> None:
    decoder = ResponsesDecoder(1_000_000)
    deltas = decoder.feed(sse(delta("output_text", "Hel"), event(f"response.{kind}", response=response)))
    assert ends(deltas) == [end]
    assert (decoder.done, decoder.finished) == (True, end.startswith("finish"))


def test_a_refused_response_finishes_with_refusal() -> None:
    assert decode(delta("refusal", "no"), COMPLETED)[-1] == FinishDelta("refusal", "completed")


def test_an_error_and_the_failed_response_behind_it_are_one_error() -> None:
    decoder = ResponsesDecoder(1_000_000)
    error = {"code": "rate_limit_exceeded", "message": "m"}
    deltas = decoder.feed(
        sse(
            event("error", error=error),
            event("response.failed", response={"error": error, "usage": {"input_tokens": 1}}),
        )
    )
    assert isinstance(deltas[0], ErrorDelta)
    assert isinstance(deltas[0].error, RateLimited)
    assert deltas[1:] == [UsageDelta(Usage(input_tokens=1))]
    assert decoder.done
    assert not decoder.finished


@pytest.mark.parametrize(
    "payload",
    [
        event("error", code="c", message="m", param=None),
        event("error", error={"code": "c", "message": "m"}),
        event("response.failed", response={"error": {"code": "c", "message": "m"}}),
        {"error": {"code": "c", "message": "m"}},
    ],
)
def test_errors_of_every_shape_are_told(payload: dict[str, Any]) -> None:
    (told,) = ResponsesDecoder(1_000_000).feed(f"data: {json.dumps(payload)}\n\n".encode())
    assert isinstance(told, ErrorDelta)
    assert isinstance(told.error, ApiError)
    assert (told.error.code, told.error.message) == ("c", "m")


def test_events_of_hosted_tools_are_signs_of_life_and_what_is_not_known_is_counted() -> None:
    decoder = ResponsesDecoder(1_000_000)
    assert decoder.feed(
        sse(
            event("response.created", response={"model": "m-1"}),
            event("response.in_progress", response={}),
            event("response.content_part.added", part={}),
            event("response.output_text.annotation.added", annotation={"type": "url_citation"}),
            event("response.output_item.added", output_index=0, item={"type": "web_search_call"}),
        )
    ) == [CitationDelta(Citation(kind="url"))]
    for kind in (
        "response.web_search_call.searching",
        "response.file_search_call.completed",
        "response.code_interpreter_call_code.delta",
        "response.image_generation_call.generating",
        "response.mcp_list_tools.in_progress",
        "response.mcp_call_arguments.delta",
        "response.shell_call_output_content.delta",
        "keepalive",
    ):
        assert decoder.feed(sse(event(kind, output_index=0, delta="x"), event(kind, output_index=0))) == [KeepAlive()]
    decoder.feed(sse(event("response.output_item.done", output_index=0, item={"type": "mcp_call", "arguments": "{}"})))
    assert (decoder.skipped, decoder.model) == (0, "m-1")
    decoder.feed(
        sse(
            event("response.something_new", delta={"a": 1}),
            event("response.output_item.done", output_index=1, item={"type": "computer_call"}),
            event("response.output_item.done", output_index=1, item=None),
        )
    )
    assert decoder.skipped == 3
    assert decoder.feed(sse(COMPLETED)) == [FinishDelta("stop", "completed")]


def test_junk_is_counted() -> None:
    decoder = ResponsesDecoder(1_000_000)
    assert decoder.feed(b'data: no json\n\ndata: [1]\n\ndata: {"type": 5}\n\ndata: {"type":"response.completed"') == []
    assert decoder.skipped == 3
    assert decoder.close() == []


def test_a_last_event_without_its_blank_line_counts_when_the_body_ends() -> None:
    decoder = ResponsesDecoder(1_000_000)
    assert decoder.feed(sse(COMPLETED)[:-2]) == []
    assert decoder.close() == [FinishDelta("stop", "completed")]
    assert decoder.done


def test_a_reasoning_item_announces_itself_and_gives_its_block_at_its_end() -> None:
    summary = [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]
    item = {"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "enc"}
    added = event("response.output_item.added", output_index=0, item={"type": "reasoning", "id": "rs_1", "summary": []})
    parts = [delta("reasoning_summary_text", text, summary_index=at) for at, text in enumerate("ab")]
    done = event("response.output_item.done", output_index=0, item=item)
    block = ReasoningBlockDelta(ReasoningBlock(kind="reasoning", text="ab", signature="enc", id="rs_1"))
    told = [ReasoningDelta("a"), BlockStart("reasoning"), ReasoningDelta("b"), block, BlockDelta(item)]
    assert decode(added, *parts, done) == [Thinking(), *told]
    assert decode(done) == told  # its text was not streamed
    in_the_end = event("response.completed", response={"output": [item]})
    assert decode(added, *parts, done, in_the_end) == [Thinking(), *told, FinishDelta("stop", "completed")]
    unnamed = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "r"}]}
    assert decode(event("response.output_item.done", output_index=0, item=unnamed)) == [
        ReasoningDelta("r"),
        BlockDelta(unnamed),
    ]


def test_searches_that_xai_runs_itself_are_nobodys_to_run() -> None:
    call = {"type": "custom_tool_call", "call_id": "xs_call_1", "name": "x_keyword_search", "input": ""}
    done = {**call, "input": "q"}
    assert decode(
        event("response.output_item.added", output_index=0, item=call),
        delta("custom_tool_call_input", "q"),
        event("response.output_item.done", output_index=0, item=done),
        delta("output_text", "a", 1, content_index=0),
        COMPLETED,
    ) == [
        ToolCallFragment(0, "xs_call_1", "x_keyword_search", "", is_server=True),
        ToolCallFragment(0, None, None, "q", is_server=True),
        EventDelta(ServerToolCall(id="xs_call_1", name="x_keyword_search", input="q")),
        BlockDelta(done),
        TextDelta("a"),
        FinishDelta("stop", "completed"),
    ]
    own = {**done, "call_id": "call_1"}
    (told,) = decode(event("response.output_item.done", output_index=0, item=own))
    assert told == ToolCallFragment(0, "call_1", "x_keyword_search", "q", type="custom")


WHOLE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "model": "m",
    "status": "completed",
    "error": None,
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "r"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "no"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    ],
    "usage": {"input_tokens": 1},
}
TOLD: list[Delta] = [
    MetadataDelta({"response_id": "resp_1"}),
    ReasoningDelta("r"),
    ReasoningBlockDelta(ReasoningBlock(kind="reasoning", text="r", id="rs_1")),
    BlockDelta(WHOLE["output"][0]),
    TextDelta("a"),
    RefusalDelta("no"),
    ToolCallFragment(2, "c", "f", "{}"),
    UsageDelta(Usage(input_tokens=1)),
]


def test_a_whole_response_instead_of_a_stream_is_read() -> None:
    for end, finish in (
        ({}, FinishDelta("tool_calls", "completed")),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            FinishDelta("length", "max_output_tokens"),
        ),
    ):
        decoder = ResponsesDecoder(1_000_000)
        assert decoder.feed(json.dumps({**WHOLE, **end}, indent=1).encode()) == []
        about, *told = decoder.close()
        details = {name: value for name, value in end.items() if name == "incomplete_details"}
        assert about == MetadataDelta({"response_id": "resp_1"} | details)
        assert told == [*TOLD[1:], finish]
        assert (decoder.done, decoder.finished, decoder.model) == (True, True, "m")
    (*told, error) = ResponsesDecoder(1_000_000).feed(
        b"data: " + json.dumps({**WHOLE, "status": "failed", "error": {"code": "c", "message": "m"}}).encode() + b"\n\n"
    )
    assert told == TOLD
    assert isinstance(error, ErrorDelta)
    running = ResponsesDecoder(1_000_000)
    running.feed(b"data: " + json.dumps({**WHOLE, "status": "queued"}).encode() + b"\n\n")
    assert (running.skipped, running.done) == (1, False)


def test_a_response_that_only_its_completion_tells_is_told() -> None:
    completed = event("response.completed", response=WHOLE)
    assert decode(completed) == [*TOLD, FinishDelta("tool_calls", "completed")]
    # Streamed content is not repeated, even if the whole item numbers it differently.
    assert decode(delta("output_text", "a", 9), completed) == [
        TextDelta("a"),
        MetadataDelta({"response_id": "resp_1"}),
        UsageDelta(Usage(input_tokens=1)),
        FinishDelta("stop", "completed"),
    ]


def test_a_character_cut_in_two_between_events_is_one_character() -> None:
    decoder = ResponsesDecoder(1_000_000)
    assert decoder.feed(sse(delta("output_text", "a\ud83d"))) == [TextDelta("a")]
    assert decoder.feed(sse(delta("output_text", "\ude00b"))) == [TextDelta("😀b")]
    assert decoder.feed(sse(delta("output_text", "\ud83d"))) == []
    assert decoder.feed(sse(COMPLETED)) == [TextDelta("\ufffd"), FinishDelta("stop", "completed")]
    item = {"type": "function_call", "call_id": "c\ud83d", "name": "f\ud83d", "arguments": ""}
    reasoning = {"type": "reasoning", "id": "i\ud83d", "summary": [{"text": "s\ud83d"}]}
    assert decode(
        event("response.output_item.added", output_index=0, item=item),
        event("response.output_item.done", output_index=1, item=reasoning),
    )[::2] == [
        ToolCallFragment(0, "c\ufffd", "f\ufffd", ""),
        ReasoningBlockDelta(ReasoningBlock(kind="reasoning", text="s\ufffd", id="i\ufffd")),
    ]
    decoder = ResponsesDecoder(1_000_000)
    assert decoder.feed(sse(delta("output_text", "\ud83d"))) == []
    assert decoder.close() == [TextDelta("\ufffd")]


@pytest.mark.parametrize(
    ("more", "skipped"),
    [({"logprobs": -0.5}, 1), ({"logprobs": [{}]}, 1), ({"sequence_number": "5"}, 0), ({"output_index": "x"}, 0)],
)
def test_fields_of_any_shape_do_not_lose_the_text(more: dict[str, Any], skipped: int) -> None:
    decoder = ResponsesDecoder(1_000_000)
    assert decoder.feed(sse({**delta("output_text", "a"), **more})) == [TextDelta("a")]
    assert decoder.skipped == skipped


# --- taken up again --------------------------------------------------------------------------------------------------


def background(*events: dict[str, Any], start: int = 0) -> bytes:
    return sse(*({**each, "sequence_number": start + at} for at, each in enumerate(events)))


CREATED = event("response.created", response={"id": "resp/1", "model": "m", "background": True})
PROVIDER = OpenAiResponses(KEY, "http://localhost/v1")


def test_a_broken_answer_is_taken_up_behind_the_last_event_that_was_told() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    events = [
        CREATED,
        event("response.output_item.added", output_index=0, item=call),
        delta("function_call_arguments", "{"),
        delta("function_call_arguments", "}"),
        event("response.function_call_arguments.done", output_index=0, arguments="{}"),
        COMPLETED,
    ]
    whole = background(*events)
    complete = ResponsesDecoder(1_000_000).feed(whole)
    ends = [at + 2 for at in range(len(whole)) if whole[at : at + 2] == b"\n\n"]
    for cut in range(ends[0], ends[-1] - 1):
        decoder: ResponsesDecoder = ResponsesDecoder(1_000_000)
        told = decoder.feed(whole[:cut])
        count = sum(end <= cut for end in ends)
        taken_up = PROVIDER.resume(decoder)
        assert taken_up is not None
        request, other = taken_up
        assert request.url == f"http://localhost/v1/responses/resp%2F1?stream=true&starting_after={count - 1}"
        assert told + other.feed(background(*events[count:], start=count)) == complete
        assert (other.done, other.finished, other.model) == (True, True, "m")


def test_the_request_to_go_on_is_a_get_with_the_same_key() -> None:
    decoder = PROVIDER.decoder(RequestOptions())
    assert isinstance(PROVIDER, CanResume)
    decoder.feed(background(CREATED))
    taken_up = PROVIDER.resume(decoder)
    assert taken_up is not None
    request, _ = taken_up
    assert (request.method, request.body, request.headers["Accept"]) == ("GET", b"", "text/event-stream")
    assert request.secret_headers["Authorization"].reveal() == "Bearer sk-test"


def test_a_response_in_the_background_is_kept_and_asked_for_from_its_first_event_by_its_id() -> None:
    assert isinstance(PROVIDER, CanReplay)
    about = {"response_id": "resp/1", "background": True}
    assert PROVIDER.kept_as(about) == "resp/1"
    for other in ({"response_id": "resp/1"}, {"background": True}, {**about, "background": "yes"}, {}):
        assert PROVIDER.kept_as(other) is None
    request = PROVIDER.replay("resp/1")
    assert request.url.endswith("/responses/resp%2F1?stream=true")
    assert (request.method, request.body, request.headers["Accept"]) == ("GET", b"", "text/event-stream")
    assert request.secret_headers["Authorization"].reveal() == "Bearer sk-test"


def test_events_that_a_server_repeats_are_not_told_twice() -> None:
    events = [CREATED, delta("output_text", "Hello"), delta("output_text", "!"), COMPLETED]
    decoder = ResponsesDecoder(1_000_000)
    about = MetadataDelta({"response_id": "resp/1", "background": True})
    assert decoder.feed(background(*events[:2])) == [about, TextDelta("Hello")]
    other = decoder.resumed()
    assert other.feed(background(*events)) == [TextDelta("!"), FinishDelta("stop", "completed")]


def test_what_a_resumed_decoder_learns_does_not_change_the_one_before() -> None:
    decoder = ResponsesDecoder(1_000_000)
    decoder.feed(background(CREATED, delta("output_text", "a\ud83d", content_index=0)))
    for _ in range(2):  # as if the second connection broke too
        other = decoder.resumed()
        assert other.feed(background(delta("output_text", "\ude00", content_index=0), start=2)) == [TextDelta("😀")]
        assert other.resume_point == ("resp/1", 2)
    assert decoder.resume_point == ("resp/1", 1)
    decoder = ResponsesDecoder(1_000_000)
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    decoder.feed(background(CREATED, event("response.output_item.added", output_index=0, item=call)))
    whole = background(event("response.function_call_arguments.done", output_index=0, arguments="{}"), start=2)
    for _ in range(2):
        assert decoder.resumed().feed(whole) == [ToolCallFragment(0, None, None, "{}")]


def test_each_of_two_decoders_counts_what_it_does_not_understand_and_keeps_no_other_alive() -> None:
    unknown = event("response.hologram", output_index=0)
    decoder = ResponsesDecoder(1_000_000, raw="unknown")
    decoder.feed(background(CREATED, unknown))
    other = decoder.resumed()
    (passed_on,) = other.feed(background(event("response.output_text.annotation.added", annotation=1), start=3))
    assert isinstance(passed_on, EventDelta)
    assert (decoder.skipped, other.skipped) == (1, 2)
    gc.disable()
    try:
        refs = [weakref.ref(decoder), weakref.ref(other)]
        del decoder
        assert refs[0]() is None
        del other
        assert refs[1]() is None
    finally:
        gc.enable()


def test_half_a_character_waits_for_its_other_half_behind_the_break() -> None:
    decoder = ResponsesDecoder(1_000_000)
    decoder.feed(background(CREATED, delta("output_text", "\ud83d")))
    assert decoder.close() == []
    assert decoder.resumed().feed(background(delta("output_text", "\ude00"), start=2)) == [TextDelta("😀")]


def test_an_event_that_only_lacked_its_blank_line_counts_as_told() -> None:
    decoder = ResponsesDecoder(1_000_000)
    decoder.feed(background(CREATED, delta("output_text", "a"))[:-2])
    assert decoder.resume_point == ("resp/1", 0)
    assert decoder.close() == [TextDelta("a")]
    assert decoder.resume_point == ("resp/1", 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        sse(CREATED),
        background(event("response.created", response={"id": "r", "background": False})),
        background(event("response.created", response={"background": True})),
        background(CREATED, COMPLETED),
        background(CREATED, event("error", code="c", message="m")),
    ],
)
def test_what_has_not_begun_in_the_background_or_is_over_cannot_be_taken_up(body: bytes) -> None:
    decoder = ResponsesDecoder(1_000_000)
    decoder.feed(body)
    assert PROVIDER.resume(decoder) is None
    assert PROVIDER.resume(ChatDecoder(1_000_000)) is None
