"""Tools, the choice among them, and null, as each provider is told."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.adapters.providers.anthropic.request import messages_body
from penstock.adapters.providers.chat_items import items_to_messages
from penstock.adapters.providers.chat_parameters import to_chat_parameters
from penstock.adapters.providers.gemini.request import gemini_body
from penstock.adapters.providers.ollama.request import ollama_body
from penstock.adapters.providers.openai.chat_request import chat_body
from penstock.adapters.providers.openai.responses_request import responses_body
from penstock.errors import OptionError
from penstock.ports import ChatCall

CHOICE = {"tool_choice": "required", "parallel_tool_calls": False}


@pytest.mark.parametrize("tools", [None, [], [{"type": "web_search"}]])
def test_without_tools_there_is_no_choice_among_them(tools: Any) -> None:
    assert to_chat_parameters({"tools": tools, **CHOICE, "top_p": 1}) == {"top_p": 1}
    assert to_chat_parameters({**CHOICE, "top_p": 1}) == {"top_p": 1}
    if not tools:
        call = ChatCall(model="m", input="Hi", parameters={"tools": tools, **CHOICE})
        for make in (messages_body, gemini_body, ollama_body):
            assert not make(call).keys() & {"tool_choice", "toolConfig"}
    approval = {"type": "mcp_approval", "function": {"name": "x"}}
    sent = responses_body(ChatCall(model="m", input="Hi", parameters={"tools": [approval], **CHOICE}))
    assert not sent.keys() & {"tools", *CHOICE}


def allowed(*tools: Any, mode: Any = "required") -> Any:
    offered = [{"type": "function", "name": "f"}, {"type": "web_search"}]
    choice = {"type": "allowed_tools", "mode": mode, "tools": list(tools)}
    return to_chat_parameters({"tools": offered, "tool_choice": choice})["tool_choice"]


def test_tools_that_are_allowed_are_those_that_are_offered() -> None:
    function = {"type": "function", "name": "f"}
    chosen = {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]}
    assert allowed(function, {"type": "web_search"}) == {"type": "allowed_tools", "allowed_tools": chosen}
    assert allowed(function, mode=None)["allowed_tools"]["mode"] == "auto"
    assert allowed({"type": "web_search"}) == "none", "what is not allowed must not be called"


@pytest.mark.parametrize("tools", [5, True, "x", {}, None])
def test_tools_that_are_allowed_are_a_list(tools: Any) -> None:
    choice = {"type": "allowed_tools", "mode": "auto", "tools": tools}
    with pytest.raises(OptionError) as raised:
        to_chat_parameters({"tools": [{"type": "function", "name": "f"}], "tool_choice": choice})
    assert raised.value.field == "tool_choice.tools"


def test_what_is_no_tool_among_those_that_are_allowed_goes_on() -> None:
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [None, 5, "x"]}}
    sent = responses_body(ChatCall(model="m", input="Hi", parameters={"tools": [{}], "tool_choice": choice}))
    assert sent["tool_choice"] == {"type": "allowed_tools", "mode": "auto", "tools": [None, 5, "x"]}


# --- null ------------------------------------------------------------------------------------------------------------


def test_an_answer_with_fields_that_are_null_is_joined_with_what_follows() -> None:
    said = {"role": "assistant", "content": "Hm.", "refusal": None, "name": None}
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    (message,) = items_to_messages([said, call])
    assert (message["content"], len(message["tool_calls"]), "refusal" in message) == ("Hm.", 1, False)
    assert items_to_messages([{"role": "user", "content": "Hi", "name": None}]) == [{"role": "user", "content": "Hi"}]
    assert items_to_messages([{"role": "tool", "content": None}]) == [{"role": "tool", "content": None}]


def test_what_the_call_itself_sets_may_be_null_among_the_parameters() -> None:
    call = ChatCall(model="m", input="Hi", parameters={"stream": None, "model": None, "seed": None})
    assert (chat_body(call)["model"], chat_body(call)["stream"], chat_body(call)["seed"]) == ("m", True, None)
    for make in (responses_body, messages_body, gemini_body, ollama_body):
        assert make(call).get("model", "m") == "m"


@pytest.mark.parametrize("kind", [{"type": None}, {}])
def test_a_part_without_a_type_is_its_text(kind: dict[str, Any]) -> None:
    call = ChatCall(model="m", input=[{"role": "user", "content": [{**kind, "text": "Hi"}]}])
    assert messages_body(call)["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert gemini_body(call)["contents"] == [{"role": "user", "parts": [{"text": "Hi"}]}]
    assert ollama_body(call)["messages"] == [{"role": "user", "content": "Hi"}]
    other = ChatCall(model="m", input=[{"role": "user", "content": [{"image_url": "x"}]}])
    assert messages_body(other)["messages"][0]["content"] == [{"image_url": "x"}], "the provider says what is wrong"
