"""Conversations that are legal in chat's form, but that some providers refuse unless they are changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.adapters.providers.anthropic.provider import AnthropicMessages
from penstock.adapters.providers.gemini.provider import Gemini
from penstock.adapters.providers.ollama.provider import OllamaChat
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.adapters.providers.openai.responses_provider import OpenAiResponses
from penstock.ports import ChatCall, Provider, Secret

KEY = Secret("sk-odd-0123456789")
CHAT, RESPONSES, ANTHROPIC, GEMINI, OLLAMA = (
    OpenAiChat(KEY),
    OpenAiResponses(KEY),
    AnthropicMessages(KEY),
    Gemini(KEY),
    OllamaChat(),
)
ALL_PROVIDERS = (CHAT, RESPONSES, ANTHROPIC, GEMINI, OLLAMA)
HELLO = {"role": "user", "content": "Hello"}


def body(provider: Provider, *messages: dict[str, Any], **parameters: Any) -> Any:
    call = ChatCall(model="m", input=list(messages) or [HELLO], parameters=parameters)
    return json.loads(provider.request(call).body)


def call(call_id: str, **more: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}, **more}


@pytest.mark.parametrize("provider", ALL_PROVIDERS, ids=lambda provider: provider.name)
def test_a_call_that_a_provider_ran_itself_is_given_to_nobody(provider: Provider) -> None:
    asked = {"role": "assistant", "content": "a", "tool_calls": [call("srv_1", is_server=True), call("own_1")]}
    answered = {"role": "tool", "tool_call_id": "own_1", "content": "1"}
    with_it = provider.request(ChatCall(model="m", input=[HELLO, asked, answered])).body
    without = {**asked, "tool_calls": [call("own_1")]}
    assert with_it == provider.request(ChatCall(model="m", input=[HELLO, without, answered])).body
    alone = {"role": "assistant", "content": "a", "tool_calls": [call("srv_1", is_server=True)]}
    plain = {"role": "assistant", "content": "a"}
    assert body(provider, HELLO, alone, HELLO) == body(provider, HELLO, plain, HELLO)


def test_openai_gets_no_field_that_it_does_not_know_and_arguments_as_text() -> None:
    asked = {**call("c"), "function": {"name": "f", "arguments": {"x": 1}}}
    answered = {"role": "tool", "tool_call_id": "c", "content": "1", "is_error": True}
    messages = body(CHAT, HELLO, {"role": "assistant", "content": None, "tool_calls": [asked]}, answered)["messages"]
    assert messages[1]["tool_calls"] == [call("c")]
    assert messages[2] == {"role": "tool", "tool_call_id": "c", "content": "1"}
    assert asked["function"] == {"name": "f", "arguments": {"x": 1}}


@pytest.mark.parametrize(
    "nothing",
    [
        {"content": ""},
        {"content": None},
        {"content": " \n"},
        {"content": [{"type": "text", "text": ""}]},
        {"content": None, "tool_calls": []},
        {"content": "", "reasoning_blocks": [{"kind": "thinking", "text": "t", "signature": "s"}]},
    ],
)
def test_anthropic_is_told_of_no_answer_that_says_nothing(nothing: dict[str, Any]) -> None:
    again = {"role": "user", "content": "Hello?"}
    assert body(ANTHROPIC, HELLO, {"role": "assistant", **nothing}, again)["messages"] == [HELLO, again]


def test_anthropic_gets_no_text_of_blanks_only_beside_a_call() -> None:
    asked = {"role": "assistant", "content": "\n\n", "tool_calls": [call("c")]}
    answered = {"role": "tool", "tool_call_id": "c", "content": "1"}
    said = body(ANTHROPIC, HELLO, asked, answered)["messages"][1]["content"]
    assert said == [{"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}}]


def test_anthropic_gets_an_answers_beginning_without_blanks_at_its_end() -> None:
    def last(content: Any) -> Any:
        return body(ANTHROPIC, HELLO, {"role": "assistant", "content": content})["messages"][-1]["content"]

    assert last("Answer: ") == "Answer:"
    assert last([{"type": "text", "text": "a \n"}, {"type": "text", "text": "b \n"}]) == [
        {"type": "text", "text": "a \n"},
        {"type": "text", "text": "b"},
    ]
    middle = body(ANTHROPIC, HELLO, {"role": "assistant", "content": "Answer: "}, HELLO)["messages"]
    assert middle[1]["content"] == "Answer: "
    assert body(ANTHROPIC, {"role": "user", "content": "Answer: "})["messages"][-1]["content"] == "Answer: "


@pytest.mark.parametrize("provider", [RESPONSES, ANTHROPIC, GEMINI, OLLAMA], ids=lambda provider: provider.name)
def test_a_parameter_that_is_none_is_left_out_where_a_null_would_be_refused(provider: Provider) -> None:
    names = ("temperature", "top_p", "stop", "tools", "tool_choice", "response_format", "max_tokens", "logprobs", "n")
    assert body(provider, **dict.fromkeys(names)) == body(provider)


@pytest.mark.parametrize("provider", [RESPONSES, ANTHROPIC, GEMINI], ids=lambda provider: provider.name)
def test_chats_way_to_ask_for_usage_is_not_told_to_those_who_tell_it_unasked(provider: Provider) -> None:
    assert body(provider, stream_options={"include_usage": True}) == body(provider)


@pytest.mark.parametrize("provider", [RESPONSES, ANTHROPIC, GEMINI, OLLAMA], ids=lambda provider: provider.name)
def test_the_newer_name_of_max_tokens_is_known_too(provider: Provider) -> None:
    assert body(provider, max_completion_tokens=5) == body(provider, max_tokens=5)
    assert body(provider, max_completion_tokens=5, max_tokens=7) == body(provider, max_tokens=5)
    assert body(provider, max_tokens=7, max_completion_tokens=5) == body(provider, max_tokens=5)


def test_gemini_need_not_be_told_that_calls_may_be_parallel() -> None:
    assert body(GEMINI, parallel_tool_calls=True) == body(GEMINI)


@pytest.mark.parametrize("provider", ALL_PROVIDERS, ids=lambda provider: provider.name)
def test_deeply_nested_arguments_and_results_do_not_stop_a_conversation(provider: Provider) -> None:
    for levels in (150, *range(940, 1_010)):
        deep = '{"a":' * levels + "1" + "}" * levels
        asking = {
            "role": "assistant",
            "content": None,
            "tool_calls": [call("c", function={"name": "f", "arguments": deep})],
        }
        messages = [HELLO, asking, {"role": "tool", "tool_call_id": "c", "content": deep}]
        sent = provider.request(ChatCall(model="m", input=messages)).body.replace(b"\\", b"").count(deep.encode())
        assert sent == 2 or (levels > 200 and sent == 1)
