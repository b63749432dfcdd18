"""Anthropic's own client for Python reads the frames and the errors, over a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import pytest

from penstock.events import (
    Citation,
    Event,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamStarted,
    ToolCallCompleted,
    ToolExecutionStarted,
    ToolProgress,
    Usage,
)
from penstock.gateway.answers.anthropic import answer
from penstock.gateway.problems import Problem
from penstock.gateway.projections.anthropic import AnthropicProjection, error_body
from penstock.gateway.projections.frames import encode
from tests.unit.gateway.chat_made import call, calling, completed, failed, fed, opened, reset, token
from tests.unit.gateway.chat_served import served, with_heartbeats

USER: Any = [{"role": "user", "content": "Hi"}]


def frames_of(*events: Event) -> list[bytes]:
    projection = AnthropicProjection(opened())
    return with_heartbeats([frame.data for frame in fed(projection, *events)], AnthropicProjection.heartbeat)


def events_of(*events: Event) -> list[Any]:
    """The events as the client gives them."""
    with (
        served(frames_of(*events)) as url,
        anthropic.Anthropic(api_key="k", base_url=url, max_retries=0) as client,
        client.messages.create(model="m", max_tokens=9, messages=USER, stream=True) as stream,
    ):
        return list(stream)


def message_of(*events: Event) -> Any:
    """The message that the client's helper puts together."""
    with (
        served(frames_of(*events)) as url,
        anthropic.Anthropic(api_key="k", base_url=url, max_retries=0) as client,
        client.messages.stream(model="m", max_tokens=9, messages=USER) as stream,
    ):
        return stream.get_final_message()


def test_text_and_usage() -> None:
    usage = Usage(input_tokens=3, output_tokens=2, cached_tokens=1)
    message = message_of(token("Hel"), token("lo"), completed("Hello", usage=usage, provider="anthropic"))
    assert [block.text for block in message.content] == ["Hello"]
    assert (message.id, message.model, message.role) == ("msg_s1", "m", "assistant")
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    counts = message.usage
    assert (counts.input_tokens, counts.output_tokens, counts.cache_read_input_tokens) == (3, 2, 1)


def test_the_asynchronous_client_reads_the_same() -> None:
    async def read(url: str) -> str:
        async with (
            anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0) as client,
            client.messages.stream(model="m", max_tokens=9, messages=USER) as stream,
        ):
            return "".join([text async for text in stream.text_stream])

    with served(frames_of(token("Hel"), token("lo"), completed("Hello"))) as url:
        assert asyncio.run(read(url)) == "Hello"


def test_thinking_with_its_signature_and_calls_come_back_as_the_next_request_needs_them() -> None:
    one, two, none = call(), call("g", '{"a":[1]}', id="call_2"), call("h", "", id="call_3")
    calls = [*calling(one, 0), *calling(none, 1), *calling(two, 2)]
    events = [
        token("hm", "reasoning"),
        ReasoningBlockClosed(index=0, kind="thinking", signature="c2ln", provider="anthropic"),
        ReasoningBlockClosed(index=1, kind="redacted_thinking", signature="ZGF0YQ==", provider="anthropic"),
        token("I call."),
        *calls,
        *(ToolCallCompleted(index=place, call=each) for place, each in enumerate((one, none, two))),
    ]
    end = completed("I call.", reasoning="hm", tool_calls=(one, none, two), finish_reason="tool_calls")
    message = message_of(*events, end)
    assert message.to_dict()["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZGF0YQ=="},
        {"type": "text", "text": "I call."},
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "call_3", "name": "h", "input": {}},
        {"type": "tool_use", "id": "call_2", "name": "g", "input": {"a": [1]}},
    ]
    assert message.stop_reason == "tool_use"


def test_text_amid_the_arguments_of_a_call() -> None:
    one = call()
    started, first, second = calling(one)
    message = message_of(started, first, token("a"), second, ToolCallCompleted(index=0, call=one), completed("a"))
    assert [block.type for block in message.content] == ["tool_use", "text"]
    assert message.content[0].input == {"x": 1}


def test_a_tool_of_anthropics_and_citations() -> None:
    results = [{"type": "web_search_result", "url": "https://a.example/", "title": "A", "encrypted_content": "e"}]
    events: list[Event] = [
        ServerToolCall(id="srvtoolu_1", name="web_search", input={"q": 1}),
        ServerToolResult(id="srvtoolu_1", name="web_search", output=results),
        token("a"),
        Citation(kind="url", url="https://a.example/", title="A", cited_text="w"),
        token("b"),
    ]
    message = message_of(*events, completed("ab"))
    assert [block.type for block in message.content] == [
        "server_tool_use",
        "web_search_tool_result",
        "text",
        "text",
    ]
    assert message.content[0].input == {"q": 1}
    assert message.content[1].content[0].url == "https://a.example/"
    assert [each.url for each in message.content[2].citations] == ["https://a.example/"]
    assert message.content[3].citations is None


def test_a_refusal_is_text_with_its_stop_reason() -> None:
    message = message_of(token("no", "refusal"), completed(refusal="no", finish_reason="refusal"))
    assert (message.content[0].text, message.stop_reason) == ("no", "refusal")


def test_a_tool_that_reports_progress_keeps_the_connection_alive() -> None:
    events: list[Event] = [
        StreamStarted(model="m"),
        ToolExecutionStarted(round=1, calls=(call(),)),
        ToolProgress(call_id="call_1", name="f", progress=1),
        token("a"),
    ]
    names = [event.type for event in events_of(*events, completed("a"))]
    assert names == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


@pytest.mark.parametrize(
    ("ending", "code"), [(failed("a"), "stream_interrupted"), (reset(), "stream_restarted")], ids=["failed", "reset"]
)
def test_an_error_amid_the_answer_is_raised(ending: Event, code: str) -> None:
    with pytest.raises(anthropic.APIStatusError) as raised:
        events_of(token("a"), ending)
    body: Any = raised.value.body
    assert (body["error"]["type"], body["error"]["code"]) == ("api_error", code)


def test_an_error_before_the_answer_is_a_response() -> None:
    problem = Problem(status=503, type="server_error", code="provider_unavailable", message="try later")
    with (
        served([], status=b"529 Overloaded", body=encode(error_body(problem, "req_1"))) as url,
        anthropic.Anthropic(api_key="k", base_url=url, max_retries=0) as client,
        pytest.raises(anthropic.APIStatusError) as raised,
    ):
        client.messages.create(model="m", max_tokens=9, messages=USER, stream=True)
    body: Any = raised.value.body
    assert (raised.value.status_code, body["error"]["type"], body["request_id"]) == (529, "overloaded_error", "req_1")


def test_a_whole_answer() -> None:
    end = completed(
        "Hi", tool_calls=(call(),), finish_reason="tool_calls", usage=Usage(input_tokens=1, output_tokens=2)
    )
    with (
        served([], status=b"200 OK", body=encode(answer(end, opened()))) as url,
        anthropic.Anthropic(api_key="k", base_url=url, max_retries=0) as client,
    ):
        whole = client.messages.create(model="m", max_tokens=9, messages=USER)
    assert [block.type for block in whole.content] == ["text", "tool_use"]
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (1, 2)
