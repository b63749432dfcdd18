"""Bodies of chat completions as calls, and what providers make of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.providers.anthropic.provider import AnthropicMessages
from penstock.adapters.providers.gemini.provider import Gemini
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.adapters.providers.openai.responses_provider import OpenAiResponses
from penstock.config.providers import Dialect
from penstock.events import ReasoningBlock, ReasoningBlockClosed
from penstock.gateway.answers.chat import answer
from penstock.gateway.problems import RequestRefused
from penstock.gateway.projections.chat import ChatProjection
from penstock.gateway.requests.asked import Asked
from penstock.gateway.requests.chat import parse
from penstock.ports import ChatCall, Provider, Secret
from tests.unit.gateway.chat_made import call, completed, datas, fed, opened, sent, token

HI = {"role": "user", "content": "Hi"}
OURS = ("model", "messages", "stream", "stream_options", "penstock")
KEY = Secret("sk-test-0123456789")
PROVIDERS: dict[Dialect, Provider] = {
    "openai-chat": OpenAiChat(KEY, "http://127.0.0.1/v1"),
    "openai-responses": OpenAiResponses(KEY, "http://127.0.0.1/v1"),
    "anthropic": AnthropicMessages(KEY, "http://127.0.0.1"),
    "gemini": Gemini(KEY, "http://127.0.0.1"),
}


def asked(dialect: Dialect = "openai-chat", **body: Any) -> Asked:
    return parse({"model": "m", "messages": [HI], **body}, dialect)


def request_of(one: Asked, dialect: Dialect, provider: str) -> dict[str, Any]:
    """The body that a provider is sent."""
    parameters = {name: value for name, value in one.parameters.items() if name != "extra_body"}
    call = ChatCall(model=one.model, input=one.input, parameters=parameters, provider=provider)
    body: dict[str, Any] = json.loads(PROVIDERS[dialect].request(call).body)
    return body


def test_every_field_goes_on_known_or_not() -> None:
    body = {
        "model": "m",
        "messages": [{**HI, "name": "Ann", "odd": 1}],
        "temperature": None,
        "n": 2,
        "functions": [],
        "web_search_options": {},
        "user": "u",
        "something_new": {"a": [1]},
    }
    one = parse(body)
    assert (one.api, one.model, one.input, one.is_streamed) == ("chat", "m", body["messages"], False)
    assert one.parameters == {name: value for name, value in body.items() if name not in ("model", "messages")}


@given(
    st.dictionaries(
        st.text(max_size=8).filter(
            lambda name: name not in ("model", "messages", "stream", "stream_options", "penstock")
        ),
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2),
        max_size=5,
    )
)
def test_no_field_is_lost(fields: dict[str, Any]) -> None:
    own = {"timeout", "max_retries", "extra_headers", "extra_query", "extra_body"}
    parameters = dict(parse({"model": "m", "messages": [], **fields}).parameters)
    given_apart = parameters.pop("extra_body", {})
    assert parameters | given_apart == fields
    assert set(given_apart) <= own


def test_names_that_are_options_of_ours_are_the_models_business() -> None:
    one = asked(timeout=3, extra_body={"a": 1}, top_k=5)
    assert one.parameters == {"top_k": 5, "extra_body": {"timeout": 3, "extra_body": {"a": 1}}}


def test_the_usage_is_always_asked_for_whatever_the_client_wants_to_see() -> None:
    assert "stream_options" not in asked(stream_options=None).parameters
    told = asked(stream_options={"include_usage": False, "include_obfuscation": True}).parameters["stream_options"]
    assert told == {"include_usage": True, "include_obfuscation": True}
    given_to = asked("openai-responses", stream_options={"include_usage": True, "include_obfuscation": False})
    assert given_to.parameters["stream_options"] == {"include_obfuscation": False}
    assert "stream_options" not in asked("gemini", stream_options={"include_usage": True}).parameters


def test_the_gateways_own_object_is_taken_out() -> None:
    own = {
        "provider": "openai",
        "stream_id": "mine",
        "on_orphan": 30,
        "metadata": {"a": 1},
        "options": {"batch_size": 1},
        "request_options": {"max_retries": 0},
        "approval": "wait",
    }
    one = asked(stream=True, penstock=own)
    assert (one.provider, one.stream_id, one.on_orphan, one.metadata) == ("openai", "mine", 30.0, {"a": 1})
    assert (one.options, one.request_options, one.waits_for_approval) == ({"batch_size": 1}, {"max_retries": 0}, True)
    assert one.is_streamed
    assert "penstock" not in one.parameters
    assert asked(penstock={"approval": "deny", "provider": None, "on_orphan": "continue"}).on_orphan == "continue"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 3}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [HI, 3]}, "messages[1]"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"penstock": "x"}, "penstock"),
        ({"penstock": {"odd": 1}}, "penstock.odd"),
        ({"penstock": {"provider": 1}}, "penstock.provider"),
        ({"penstock": {"options": []}}, "penstock.options"),
        ({"penstock": {"approval": "ask"}}, "penstock.approval"),
        ({"penstock": {"on_orphan": -1}}, "penstock.on_orphan"),
        ({"penstock": {"on_orphan": True}}, "penstock.on_orphan"),
    ],
)
def test_a_field_that_is_not_allowed_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        asked(**fields)
    problem = refused.value.problem
    assert (problem.status, problem.type, problem.param) == (400, "invalid_request_error", param)
    assert param in problem.message
    assert "Hi" not in problem.message


def test_the_body_is_not_changed() -> None:
    extra = {"google": {"thought_signature": "c2ln"}}
    entry = {"type": "reasoning.text", "signature": "s", "penstock": {"kind": "thinking", "provider": "anthropic"}}
    message = {"role": "assistant", "tool_calls": [{"id": "a", "extra_content": extra}], "reasoning_details": [entry]}
    before = json.dumps(message)
    parse({"model": "m", "messages": [message]})
    assert json.dumps(message) == before


def test_a_calls_signature_is_found_by_gemini() -> None:
    one = {
        "id": "a",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
        "extra_content": {"google": {"thought_signature": "c2ln"}},
    }
    messages = [HI, {"role": "assistant", "tool_calls": [one]}, {"role": "tool", "tool_call_id": "a", "content": "1"}]
    body = request_of(asked("gemini", messages=messages), "gemini", "gemini")
    assert body["contents"][1]["parts"][0]["thoughtSignature"] == "c2ln"
    same = request_of(asked(messages=messages), "openai-chat", "openai")
    assert same["messages"][1]["tool_calls"] == [one]


def test_fields_of_answers_go_back_to_chat_completions_only() -> None:
    said = {"role": "assistant", "content": "a", "reasoning_content": "hm", "annotations": []}
    assert asked(messages=[said]).input == [said]
    assert asked("anthropic", messages=[said]).input == [{"role": "assistant", "content": "a"}]


# --- sealed reasoning, there and back ---------------------------------------------------------------------------------

THINKING = [
    ReasoningBlock(kind="thinking", text="hm", signature="c2lnMQ==", provider="anthropic"),
    ReasoningBlock(kind="redacted_thinking", signature="ZGF0YQ==", provider="anthropic"),
    ReasoningBlock(kind="thinking", text="so", signature="c2lnMg==", provider="anthropic"),
]


def streamed_message(blocks: list[ReasoningBlock]) -> dict[str, Any]:
    """The message that a client has put together from the frames."""
    events: list[Any] = []
    for place, block in enumerate(blocks):
        if block.text:
            events.append(token(block.text, "reasoning"))
        fields = {"kind": block.kind, "signature": block.signature, "id": block.id, "provider": block.provider}
        events.append(ReasoningBlockClosed(index=place, **fields))  # type: ignore[arg-type]
    message: dict[str, Any] = {"role": "assistant", "content": "a", "reasoning_content": "", "reasoning_details": []}
    for chunk in datas(sent(fed(ChatProjection(opened()), *events, token("a")))):
        delta = chunk["choices"][0]["delta"]
        message["reasoning_content"] += delta.get("reasoning_content", "")
        message["reasoning_details"] += delta.get("reasoning_details", [])
    return message


def whole_message(blocks: list[ReasoningBlock]) -> dict[str, Any]:
    end = completed("a", reasoning="".join(block.text for block in blocks), reasoning_blocks=tuple(blocks))
    message: dict[str, Any] = answer(end, opened())["choices"][0]["message"]
    return message


MAKERS = pytest.mark.parametrize("made", [streamed_message, whole_message])


@MAKERS
def test_signed_thinking_goes_back_to_anthropic(made: Any) -> None:
    messages = [HI, made(THINKING), HI]
    body = request_of(asked("anthropic", messages=messages), "anthropic", "anthropic")
    assert body["messages"][1] == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "c2lnMQ=="},
            {"type": "redacted_thinking", "data": "ZGF0YQ=="},
            {"type": "thinking", "thinking": "so", "signature": "c2lnMg=="},
            {"type": "text", "text": "a"},
        ],
    }


@MAKERS
def test_encrypted_reasoning_goes_back_to_the_responses_api(made: Any) -> None:
    block = ReasoningBlock(kind="reasoning", text="hm", signature="ZW5j", id="rs_1", provider="openai-responses")
    messages = [HI, made([block]), HI]
    body = request_of(asked("openai-responses", messages=messages), "openai-responses", "openai-responses")
    assert body["input"][1] == {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "ZW5j",
    }


@MAKERS
def test_sealed_entries_go_back_to_the_chat_provider_that_made_them_and_to_no_other(made: Any) -> None:
    block = ReasoningBlock(kind="reasoning.text", text="hm", signature="c2ln", provider="openrouter")
    messages = [HI, made([block]), HI]
    body = request_of(asked(messages=messages), "openai-chat", "openrouter")
    (entry,) = body["messages"][1]["reasoning_details"]
    assert entry == {"type": "reasoning.text", "text": "hm", "signature": "c2ln", "index": 0}
    other = request_of(asked(messages=messages), "openai-chat", "other")
    assert "reasoning_details" not in other["messages"][1]


def test_entries_that_are_not_ours_stay_as_they_are() -> None:
    entry = {"type": "reasoning.encrypted", "data": "x", "id": "rs_1"}
    said = {"role": "assistant", "content": "a", "reasoning_details": [entry, "odd"]}
    assert asked(messages=[said]).input == [said]


def test_an_answers_message_can_be_sent_back_as_it_is() -> None:
    one = call()
    message = answer(completed("a", tool_calls=(one,), finish_reason="tool_calls"), opened())["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": one.id, "content": "1"}
    for dialect in PROVIDERS:
        body = request_of(asked(dialect, messages=[HI, message, result]), dialect, dialect)
        times = 2 if dialect == "gemini" else 1  # there, the result has the name too
        assert msgspec.json.encode(body).count(b'"name":"f"') == times


def test_a_signature_that_is_null_leaves_the_one_in_the_extra_content() -> None:
    extra = {"google": {"thought_signature": "SIG"}}
    made = {"id": "c", "signature": None, "extra_content": extra, "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [made]}
    (sent,) = parse({"model": "m", "messages": [message]}, "gemini").input
    assert sent["tool_calls"][0]["signature"] == "SIG"
