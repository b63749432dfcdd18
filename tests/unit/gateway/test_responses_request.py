"""Requests to ``POST /v1/responses``, and what continues an earlier response."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.providers.anthropic.provider import AnthropicMessages
from penstock.adapters.providers.chat_calls import to_chat_call
from penstock.adapters.providers.openai.responses_request import responses_body
from penstock.events import ProviderBlock, ReasoningBlock, ReasoningBlockClosed, StreamCancelled, ToolCall, ToolResult
from penstock.gateway.problems import RequestRefused
from penstock.gateway.requests.responses import Terms, continued, parse, previous_not_found, terms
from penstock.ports import ChatCall, Secret
from penstock.ports.messages import check_items
from tests.unit.gateway.responses_kit import SID, Projected, call_of, completed, done, started, text

USER = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}


def test_every_field_is_kept_and_ours_are_taken_out() -> None:
    body = {
        "model": "gpt",
        "input": [USER],
        "instructions": "Be brief.",
        "stream": True,
        "store": False,
        "temperature": 0.5,
        "tools": [{"type": "web_search"}],
        "odd_field": {"a": 1},
        "timeout": 5,
        "extra_body": {"b": 2},
        "penstock": {
            "provider": "openai",
            "stream_id": "s1",
            "on_orphan": 30,
            "metadata": {"a": "b"},
            "options": {"batch_size": 2},
            "request_options": {"max_retries": 0},
            "approval": "wait",
        },
    }
    asked = parse(body)
    assert (asked.api, asked.model, asked.input, asked.is_streamed) == ("responses", "gpt", [USER], True)
    assert asked.parameters == {
        "instructions": "Be brief.",
        "store": False,
        "temperature": 0.5,
        "tools": [{"type": "web_search"}],
        "odd_field": {"a": 1},
        "extra_body": {"timeout": 5, "extra_body": {"b": 2}},
    }
    assert (asked.provider, asked.stream_id, asked.on_orphan) == ("openai", "s1", 30.0)
    assert (asked.metadata, asked.options) == ({"a": "b"}, {"batch_size": 2})
    assert (asked.request_options, asked.waits_for_approval) == ({"max_retries": 0}, True)


def test_a_plain_request_has_the_defaults_of_the_api() -> None:
    asked = parse({"model": "gpt", "input": "Hi"})
    assert (asked.input, asked.is_streamed, asked.on_orphan, asked.stream_id) == ("Hi", False, None, None)
    assert asked.parameters == {}
    assert terms({"model": "gpt", "input": "Hi"}) == Terms()


def test_a_request_in_the_background_runs_on_without_readers() -> None:
    body = {"model": "gpt", "input": "Hi", "background": True, "store": False, "previous_response_id": "resp_0"}
    assert parse(body).on_orphan == "continue"
    assert parse({**body, "penstock": {"on_orphan": "cancel"}}).on_orphan == "cancel"
    assert terms(body) == Terms(previous_response_id="resp_0", is_stored=False, is_background=True)
    assert parse(body).parameters == {"store": False}


@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "prompt"])
def test_a_request_that_continues_something_needs_no_input(name: str) -> None:
    assert parse({"model": "m", name: "x"}).input == []


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"input": "Hi"}, "model", "model: got null, allowed: the name of a model."),
        ({"model": "", "input": "Hi"}, "model", "model: got an empty text"),
        ({"model": 5, "input": "Hi"}, "model", "model: got a number"),
        ({"model": "m"}, "input", "input: got null, allowed: a text, or a list of items."),
        ({"model": "m", "input": {"role": "user"}}, "input", "input: got an object"),
        ({"model": "m", "input": [USER, "secret"]}, "input[1]", "input[1]: got a text, allowed: an item."),
        ({"model": "m", "input": "Hi", "stream": "yes"}, "stream", "stream: got a text, allowed: true or false."),
        ({"model": "m", "input": "Hi", "store": 1}, "store", "store: got a number"),
        ({"model": "m", "input": "Hi", "tools": {}}, "tools", "tools: got an object"),
        ({"model": "m", "input": "Hi", "text": "json"}, "text", "text: got a text, allowed: an object."),
        ({"model": "m", "input": "Hi", "metadata": []}, "metadata", "metadata: got a list"),
        ({"model": "m", "input": "Hi", "penstock": []}, "penstock", "penstock: got a list"),
        (
            {"model": "m", "input": "Hi", "penstock": {"provider": 1}},
            "penstock.provider",
            "got a number",
        ),
        ({"model": "m", "input": "Hi", "penstock": {"on_orphan": "x"}}, "penstock.on_orphan", "a number of seconds"),
        ({"model": "m", "input": "Hi", "penstock": {"on_orphan": -1}}, "penstock.on_orphan", "got a number"),
        ({"model": "m", "input": "Hi", "penstock": {"on_orphan": True}}, "penstock.on_orphan", "got true or false"),
        (
            {"model": "m", "input": "Hi", "penstock": {"approval": "ask"}},
            "penstock.approval",
            '"wait" or "deny"',
        ),
    ],
)
def test_what_is_wrong_is_named_without_its_content(body: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(body)
    problem = caught.value.problem
    assert (problem.status, problem.type, problem.param) == (400, "invalid_request_error", param)
    assert words in problem.message
    assert "secret" not in problem.message


def test_a_body_that_is_no_object_is_refused() -> None:
    with pytest.raises(RequestRefused, match=r"^The body is a list\. It must be an object\.$"):
        parse([])  # type: ignore[arg-type]


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["model", "input", "stream", "store", "tools", "penstock", "metadata", "timeout", "x"])


@given(st.dictionaries(FIELDS, JSON, max_size=6))
def test_any_body_is_read_or_refused(body: dict[str, Any]) -> None:
    try:
        read: Any = parse({"model": "m", "input": "Hi", **body})
    except RequestRefused as refused:
        read = refused.problem
    assert read.model if hasattr(read, "model") else read.status == 400


def test_a_previous_response_that_is_not_known_has_its_own_code() -> None:
    problem = previous_not_found().problem
    assert (problem.status, problem.code, problem.param) == (
        400,
        "previous_response_not_found",
        "previous_response_id",
    )


# --- items that come back ---------------------------------------------------------------------------------------------


def test_items_of_openai_get_their_ids_back_and_lose_those_that_were_made_here() -> None:
    block = ReasoningBlockClosed(index=0, kind="reasoning", signature="seal", id="rs_9", provider="openai")
    seen = Projected([text("Hm", "reasoning"), block, text("Hello"), started(), completed(call_of()), done("Hello")])
    output = {"type": "function_call_output", "call_id": "c1", "output": "2"}
    asked = parse({"model": "m", "input": [USER, *seen.output, output]})
    body = responses_body(ChatCall(model="m", provider="openai", input=asked.input))
    reasoning, message, call = body["input"][1:4]
    assert reasoning == {
        "id": "rs_9",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "Hm"}],
        "encrypted_content": "seal",
    }
    assert "id" not in message
    assert "id" not in call
    assert (call["call_id"], body["input"][4]) == ("c1", output)


def test_the_signature_of_a_call_comes_back_with_it() -> None:
    seen = Projected([started(), completed(call_of(signature="sig")), done("")])
    output = {"type": "function_call_output", "call_id": "c1", "output": "2"}
    asked = parse({"model": "m", "input": [USER, *seen.output, output]})
    chat = to_chat_call(ChatCall(model="m", provider="gemini", input=asked.input))
    assert chat.input[1]["tool_calls"][0]["signature"] == "sig"
    body = responses_body(ChatCall(model="m", provider="openai", input=asked.input))
    assert body["input"][1] == {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"x":1}'}


def test_ids_of_openais_own_stay() -> None:
    item = {"type": "reasoning", "id": "rs_0a1b", "summary": []}
    assert parse({"model": "m", "input": [USER, item]}).input[1] == item


def test_signed_thinking_of_another_provider_comes_back_to_it_and_to_no_other() -> None:
    block = ReasoningBlockClosed(index=0, kind="thinking", signature="sig", provider="anthropic")
    seen = Projected([text("Hm", "reasoning"), block, started(), completed(call_of()), done("")])
    output = {"type": "function_call_output", "call_id": "c1", "output": "2"}
    asked = parse({"model": "m", "input": [USER, *seen.output, output], "max_output_tokens": 5000})
    call = ChatCall(model="m", provider="anthropic", input=asked.input, parameters=asked.parameters)
    body = json.loads(AnthropicMessages(Secret("k")).request(to_chat_call(call)).body)
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": "sig"},
        {"type": "tool_use", "id": "c1", "name": "add", "input": {"x": 1}},
    ]
    body = responses_body(ChatCall(model="m", provider="openai", input=asked.input))
    assert [item.get("type") for item in body["input"][1:]] == ["function_call", "function_call_output"]
    assert "sig" not in json.dumps(body)
    check_items(asked.input)


# --- responses that are continued -------------------------------------------------------------------------------------


def test_a_continued_conversation_has_the_input_the_answer_and_what_is_new() -> None:
    block = ProviderBlock(provider="openai", data={"type": "reasoning", "id": "rs_9", "summary": []}, at=0)
    items = continued(done("Hello", provider_blocks=(block,)), "Hi", {"input": "And now?"})
    assert items == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello", "provider_blocks": [msgspec.to_builtins(block)]},
        {"role": "user", "content": "And now?"},
    ]
    check_items(items)
    body = responses_body(ChatCall(model="m", provider="openai", input=items))
    assert [item.get("type", item.get("role")) for item in body["input"]] == [
        "user",
        "reasoning",
        "assistant",
        "user",
    ]


def test_calls_come_with_the_results_that_the_client_sends() -> None:
    calls = (call_of(), call_of(identifier="s1", name="web_search", is_server=True))
    end = done("", tool_calls=calls, finish_reason="tool_calls")
    output = {"type": "function_call_output", "call_id": "c1", "output": "2"}
    items = continued(end, [USER], {"input": [output]})
    assert items[1]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"x":1}'}}
    ]
    assert items[2] == output
    check_items(items)
    chat = to_chat_call(ChatCall(model="m", provider="anthropic", input=items))
    assert [message["role"] for message in chat.input] == ["user", "assistant", "tool"]


def test_calls_that_an_agent_has_run_come_with_their_results_or_not_at_all() -> None:
    end = done("Two", tool_calls=(call_of(),), finish_reason="stop")
    without = continued(end, "Hi", {"input": "More"})
    assert [message.get("tool_calls") for message in without] == [None, None, None]
    items = continued(end, "Hi", {"input": "More"}, [ToolResult(call_id="c1", name="add", content="2")])
    assert [message["role"] for message in items] == ["user", "assistant", "tool", "assistant", "user"]
    check_items(items)


def test_custom_calls_signatures_and_reasoning_blocks_are_kept() -> None:
    custom = ToolCall(id="c2", name="run", arguments="ls", arguments_raw="ls", type="custom")
    signed = call_of(signature="sig")
    block = ReasoningBlock(kind="thought", signature="s", provider="gemini")
    end = done("", tool_calls=(custom, signed), finish_reason="tool_calls", reasoning_blocks=(block,))
    (message,) = continued(end, "", {"input": ""})
    assert message["tool_calls"][0] == {"id": "c2", "type": "custom", "custom": {"name": "run", "input": "ls"}}
    assert message["tool_calls"][1]["signature"] == "sig"
    assert message["reasoning_blocks"][0]["provider"] == "gemini"


def test_a_response_that_was_cut_off_is_continued_with_what_came() -> None:
    cut = StreamCancelled(stream_id=SID, seq=1, partial="Hel", reason="steered")
    assert continued(cut, "Hi", {"input": "Stop"})[1] == {"role": "assistant", "content": "Hel"}
    nothing = StreamCancelled(stream_id=SID, seq=1, reason="steered")
    assert [item["role"] for item in continued(nothing, "Hi", {"input": "Stop"})] == ["user", "user"]
