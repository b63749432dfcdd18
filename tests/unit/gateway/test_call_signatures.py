"""Signatures of calls, there and back through a client of each protocol: only the provider that made one gets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from penstock.adapters.providers.catalogue import Catalogue
from penstock.adapters.providers.chat_calls import to_chat_call
from penstock.config.providers import Dialect
from penstock.config.settings import Settings
from penstock.events import ToolCall, ToolCallCompleted, ToolCallStarted
from penstock.gateway.answers.anthropic import answer as anthropic_answer
from penstock.gateway.answers.chat import answer as chat_answer
from penstock.gateway.projections.agui import AguiProjection
from penstock.gateway.projections.chat import ChatProjection
from penstock.gateway.projections.ui import UiProjection
from penstock.gateway.requests import agui, anthropic, chat, responses, ui
from penstock.gateway.requests.asked import Asked
from penstock.ports import ChatCall
from tests.unit.gateway.chat_made import completed, datas, fed, opened, sent
from tests.unit.gateway.reading import data_of
from tests.unit.gateway.responses_kit import Projected, done

HI: dict[str, Any] = {"role": "user", "content": "Hi"}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "2"}
DIALECTS: dict[str, Dialect] = {
    "openai": "openai-chat",
    "openrouter": "openai-chat",
    "openai-responses": "openai-responses",
    "anthropic": "anthropic",
    "gemini": "gemini",
    "ollama": "ollama",
}


def events(call: ToolCall) -> list[Any]:
    return [ToolCallStarted(id=call.id, name=call.name, index=0), ToolCallCompleted(index=0, call=call)]


def by_chat(call: ToolCall, dialect: Dialect) -> Asked:
    end = completed(tool_calls=(call,), finish_reason="tool_calls")
    said = chat_answer(end, opened())["choices"][0]["message"]
    return chat.parse({"model": "m", "messages": [HI, said, RESULT]}, dialect)


def by_chat_streamed(call: ToolCall, dialect: Dialect) -> Asked:
    deltas = [chunk["choices"][0]["delta"] for chunk in datas(sent(fed(ChatProjection(opened()), *events(call))))]
    first, last = [one for delta in deltas for one in delta.get("tool_calls", ())]
    made = first | {"function": first["function"] | last["function"], "extra_content": last["extra_content"]}
    said = {"role": "assistant", "content": None, "tool_calls": [made]}
    return chat.parse({"model": "m", "messages": [HI, said, RESULT]}, dialect)


def by_responses(call: ToolCall, dialect: Dialect) -> Asked:
    output = {"type": "function_call_output", "call_id": "c1", "output": "2"}
    seen = Projected([*events(call), done()])
    return responses.parse({"model": "m", "input": [HI, *seen.output, output]})


def by_stored_response(call: ToolCall, dialect: Dialect) -> Asked:
    output = {"type": "function_call_output", "call_id": "c1", "output": "2"}
    end = done(tool_calls=(call,), finish_reason="tool_calls")
    body = {"model": "m", "input": [output]}
    asked = responses.parse(body)
    return msgspec.structs.replace(asked, input=responses.continued(end, [HI], body))


def by_messages(call: ToolCall, dialect: Dialect) -> Asked:
    end = completed(tool_calls=(call,), finish_reason="tool_calls")
    said = {"role": "assistant", "content": anthropic_answer(end, opened())["content"]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "2"}]}
    return anthropic.parse({"model": "m", "max_tokens": 9, "messages": [HI, said, result]}, dialect)


def by_ui(call: ToolCall, dialect: Dialect) -> Asked:
    chunks = data_of(b"".join(frame.data for frame in fed(UiProjection(opened()), *events(call))))
    told = next(chunk for chunk in chunks if chunk["type"] == "tool-input-available")
    part = {"type": "tool-f", "toolCallId": "c1", "state": "output-available", "input": told["input"], "output": "2"}
    said = {"id": "a", "role": "assistant", "parts": [part | {"callProviderMetadata": told["providerMetadata"]}]}
    asked = {"id": "u", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}
    return ui.parse({"id": "c", "model": "m", "messages": [asked, said]}, dialect)


def by_agui(call: ToolCall, dialect: Dialect) -> Asked:
    told = data_of(b"".join(frame.data for frame in fed(AguiProjection(opened()), *events(call))))
    end = next(event for event in told if event["type"] == "TOOL_CALL_END")
    signed = next(event for event in told if event["type"] == "REASONING_ENCRYPTED_VALUE")
    function = {"name": "f", "arguments": "{}"}
    made = {"id": "c1", "type": "function", "function": function, "encryptedValue": signed["encryptedValue"]}
    about = {"metadata": end["metadata"]} if "metadata" in end else {}
    said = {"id": "a", "role": "assistant", "toolCalls": [made | about]}
    result = {"id": "t", "role": "tool", "toolCallId": "c1", "content": "2"}
    body = {"threadId": "t", "runId": "r", "forwardedProps": {"model": "m"}}
    return agui.parse(body | {"messages": [HI | {"id": "u"}, said, result]}, dialect)


PROTOCOLS: dict[str, Callable[[ToolCall, Dialect], Asked]] = {
    "chat": by_chat,
    "chat, streamed": by_chat_streamed,
    "Responses": by_responses,
    "Responses, stored": by_stored_response,
    "Messages": by_messages,
    "UI": by_ui,
    "AG-UI": by_agui,
}


def gets(protocol: str, maker: str, to: str) -> bool:
    """Whether the provider is to be sent the signature: its maker, where both it and the protocol can say it."""
    if protocol == "Messages" or maker != to:
        return False
    return to == "gemini" or protocol.startswith("chat")  # chat completions have it in a field that chat clients return


@pytest.mark.parametrize("to", DIALECTS)
@pytest.mark.parametrize("maker", ["gemini", "vertex", "openrouter"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_only_the_provider_that_signed_a_call_gets_the_signature_back(protocol: str, maker: str, to: str) -> None:
    call = ToolCall(id="c1", name="f", arguments={}, arguments_raw="{}", signature="SEALED", signed_by=maker)
    url = "http://127.0.0.1/v1" if to == "openrouter" else None
    found = Catalogue(Settings(), {}).find(to, "gemini-3-pro", url, "key")
    asked = PROTOCOLS[protocol](call, DIALECTS[to])
    request = ChatCall(model=found.model, input=asked.input, parameters=asked.parameters, provider=found.name)
    if asked.api == "responses" and DIALECTS[to] != "openai-responses":
        request = to_chat_call(request)
    body = found.provider.request(request).body
    assert (b"SEALED" in body) == gets(protocol, maker, to)
    assert b"signed_by" not in body
    assert maker == to or f'"{maker}"'.encode() not in body
    assert json.loads(body)


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "Messages"])
def test_a_signature_of_an_unknown_maker_goes_back_as_before(protocol: str) -> None:
    call = ToolCall(id="c1", name="f", arguments={}, arguments_raw="{}", signature="SEALED")
    found = Catalogue(Settings(), {}).find("gemini", "gemini-3-pro", None, "key")
    asked = PROTOCOLS[protocol](call, "gemini")
    request = ChatCall(model=found.model, input=asked.input, parameters=asked.parameters, provider=found.name)
    body = found.provider.request(to_chat_call(request) if asked.api == "responses" else request).body
    assert b"SEALED" in body
