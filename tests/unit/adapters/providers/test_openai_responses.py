"""OpenAI Responses: requests and events, with what other servers make of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.adapters.providers.openai_responses import OpenAiResponses, ResponsesDecoder
from penstock.errors import ApiError, OptionError, RateLimited
from penstock.events import Usage
from penstock.ports import (
    ChatCall,
    Delta,
    ErrorDelta,
    FinishDelta,
    ReasoningDelta,
    RefusalDelta,
    Secret,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)


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


def test_text_refusal_and_reasoning_are_told_apart() -> None:
    assert decode(
        delta("reasoning_summary_text", "s", summary_index=0),
        delta("reasoning_text", "r", content_index=0),
        delta("output_text", "a", 1, content_index=0),
        delta("refusal", "no", 1, content_index=1),
    ) == [ReasoningDelta("s"), ReasoningDelta("r"), TextDelta("a"), RefusalDelta("no")]


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


def test_a_custom_tools_input_is_its_arguments() -> None:
    call = {"type": "custom_tool_call", "call_id": "c1", "name": "f", "input": ""}
    assert decode(
        event("response.output_item.added", output_index=0, item=call),
        delta("custom_tool_call_input", "SELECT"),
        event("response.custom_tool_call_input.done", output_index=0, input="SELECT"),
    ) == [ToolCallFragment(0, "c1", "f", ""), ToolCallFragment(0, None, None, "SELECT")]


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
    assert decode(event("response.incomplete", response={"incomplete_details": details})) == [finish]


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


def test_events_of_hosted_tools_are_counted_and_those_that_say_nothing_are_not() -> None:
    decoder = ResponsesDecoder(1_000_000)
    decoder.feed(
        sse(
            event("response.created", response={"model": "m-1"}),
            event("response.in_progress", response={}),
            event("response.content_part.added", part={}),
            event("response.web_search_call.searching", output_index=0),
            event("response.something_new", delta={"a": 1}),
        )
    )
    assert (decoder.skipped, decoder.model) == (2, "m-1")


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
