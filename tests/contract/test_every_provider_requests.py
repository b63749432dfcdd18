"""What every provider receives: the body, the headers, and the key in its place only."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest

import penstock
from penstock.actors.call.record import CallRecord
from penstock.adapters.loopback.faults import ErrorFrame, Status
from penstock.adapters.loopback.script import Answer, Replies, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.testing import Collector
from tests.contract.providers import (
    ANTHROPIC,
    EVERY,
    GEMINI,
    KEY,
    OLLAMA,
    ONCE,
    OPENAI,
    RESPONSES,
    WIRES,
    House,
    Wire,
    completed,
    failed,
    house,
    serving,
)
from tests.integration.raw_server import Peer, RawServer

CALLING = Answer(
    "Let me see.",
    reasoning="hm, so",
    signature="c2lnbmVk",
    tool_calls=(
        ScriptedCall("look_up", '{"city":"Zürich"}', id="call_a", signature="Y2FsbA=="),
        ScriptedCall("now", "{}", id="call_b"),
    ),
)
MODELS: dict[str, Replies] = {
    "m": Answer("Good."),
    "calls": CALLING,
    "thinks": CALLING.replace(tool_calls=()),
    "echoes": Status(401, message=f"Bad key: {KEY}"),
    "echoes-later": Answer("a b", faults=(ErrorFrame(1, message=f"Bad key: {KEY}"),)),
}


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackProvider]:
    with serving(MODELS) as running:
        yield running


@pytest.fixture
def here(server: LoopbackProvider) -> Iterator[House]:
    with house(server) as made:
        yield made


def sent(here: House, wire: Wire, messages: Any, model: str = "m", **parameters: Any) -> dict[str, Any]:
    """The body of the request."""
    completed(here.watch(wire, model, messages, **parameters))
    body: dict[str, Any] = here.server.requests[-1].body
    return body


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
LOOK_UP = {"name": "look_up", "description": "Looks a city up.", "parameters": SCHEMA}
TOOLS = [{"type": "function", "function": LOOK_UP}, {"type": "function", "function": {"name": "now"}}]
ARGUMENTS = '{"city":"Zürich"}'
PIXEL = "iVBORw0KGgo="
CALLED = [
    {"id": "call_a", "type": "function", "function": {"name": "look_up", "arguments": ARGUMENTS}},
    {"id": "call_b", "type": "function", "function": {"name": "now", "arguments": "{}"}},
]
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Where is 水?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        ],
    },
    {"role": "assistant", "content": "Let me see.", "tool_calls": CALLED},
    {"role": "tool", "tool_call_id": "call_a", "content": "No 水 here."},
    {"role": "tool", "tool_call_id": "call_b", "content": '{"hour":12}'},
    {"role": "user", "content": "Sure?"},
]

# --- the conversation ----------------------------------------------------------------------------------------------

CONVERSATIONS: Mapping[Wire, Mapping[str, Any]] = {
    OPENAI: {
        "model": "m",
        "messages": TALK,
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    RESPONSES: {
        "model": "m",
        "stream": True,
        "input": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Where is 水?"},
                    {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"},
                ],
            },
            {"role": "assistant", "content": "Let me see."},
            {"type": "function_call", "call_id": "call_a", "name": "look_up", "arguments": ARGUMENTS},
            {"type": "function_call", "call_id": "call_b", "name": "now", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_a", "output": "No 水 here."},
            {"type": "function_call_output", "call_id": "call_b", "output": '{"hour":12}'},
            {"role": "user", "content": "Sure?"},
        ],
    },
    ANTHROPIC: {
        "model": "m",
        "stream": True,
        "max_tokens": 4096,
        "system": "Be brief.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Where is 水?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "call_a", "name": "look_up", "input": {"city": "Zürich"}},
                    {"type": "tool_use", "id": "call_b", "name": "now", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_a", "content": "No 水 here."},
                    {"type": "tool_result", "tool_use_id": "call_b", "content": '{"hour":12}'},
                ],
            },
            {"role": "user", "content": "Sure?"},
        ],
    },
    OLLAMA: {
        "model": "m",
        "stream": True,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Where is 水?", "images": [PIXEL]},
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {"id": "call_a", "function": {"name": "look_up", "arguments": {"city": "Zürich"}}},
                    {"id": "call_b", "function": {"name": "now", "arguments": {}}},
                ],
            },
            {"role": "tool", "tool_call_id": "call_a", "tool_name": "look_up", "content": "No 水 here."},
            {"role": "tool", "tool_call_id": "call_b", "tool_name": "now", "content": '{"hour":12}'},
            {"role": "user", "content": "Sure?"},
        ],
    },
    GEMINI: {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {
                "role": "user",
                "parts": [{"text": "Where is 水?"}, {"inlineData": {"mimeType": "image/png", "data": PIXEL}}],
            },
            {
                "role": "model",
                "parts": [
                    {"text": "Let me see."},
                    {"functionCall": {"id": "call_a", "name": "look_up", "args": {"city": "Zürich"}}},
                    {"functionCall": {"id": "call_b", "name": "now", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {
                        "functionResponse": {
                            "id": "call_a",
                            "name": "look_up",
                            "response": {"output": "No 水 here."},
                        }
                    },
                    {"functionResponse": {"id": "call_b", "name": "now", "response": {"hour": 12}}},
                ],
            },
            {"role": "user", "parts": [{"text": "Sure?"}]},
        ],
    },
}


@EVERY
def test_a_conversation_in_chats_form_is_sent_in_the_providers_own(here: House, wire: Wire) -> None:
    assert sent(here, wire, TALK) == CONVERSATIONS[wire]


# --- parameters ----------------------------------------------------------------------------------------------------

FORM = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
COMMON: dict[str, Any] = {
    "max_tokens": 100,
    "temperature": 0.5,
    "top_p": 0.9,
    "stop": ["END"],
    "response_format": FORM,
}
PARAMETERS: Mapping[Wire, Mapping[str, Any]] = {
    OPENAI: {**COMMON, "stream_options": {"include_usage": True}},
    RESPONSES: {
        "max_output_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
        "text": {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}},
    },
    ANTHROPIC: {
        "max_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    },
    OLLAMA: {
        "options": {"num_predict": 100, "temperature": 0.5, "top_p": 0.9, "stop": ["END"]},
        "format": SCHEMA,
    },
    GEMINI: {
        "generationConfig": {
            "maxOutputTokens": 100,
            "temperature": 0.5,
            "topP": 0.9,
            "stopSequences": ["END"],
            "responseMimeType": "application/json",
            "responseJsonSchema": SCHEMA,
        }
    },
}
SAID = {"model", "messages", "input", "contents", "stream"}


def parameters_in(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in SAID}


@EVERY
def test_common_parameters_have_the_providers_names(here: House, wire: Wire) -> None:
    assert parameters_in(sent(here, wire, "Hello", **COMMON)) == PARAMETERS[wire]


OWN: Mapping[Wire, dict[str, Any]] = {
    OPENAI: {"reasoning_effort": "low", "seed": 7, "logprobs": True, "service_tier": "flex", "x_own": {"a": [1, None]}},
    RESPONSES: {"reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"], "x_own": {"a": [1, None]}},
    ANTHROPIC: {
        "max_tokens": 9000,
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "metadata_of_ours": {"user_id": "u"},
        "top_k": 5,
    },
    OLLAMA: {"keep_alive": "10m", "think": True, "x_own": {"a": [1, None]}},
    GEMINI: {
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "generationConfig": {"thinkingConfig": {"includeThoughts": True}},
        "cachedContent": "cachedContents/1",
    },
}


@EVERY
def test_parameters_of_its_own_pass_as_they_are(here: House, wire: Wire) -> None:
    told = parameters_in(sent(here, wire, "Hello", **OWN[wire]))
    more = {"stream_options": {"include_usage": True}} if wire is OPENAI else {}
    assert told == {**OWN[wire], **more}


def test_ollamas_options_are_given_one_by_one(here: House) -> None:
    given: dict[str, Any] = {"num_ctx": 8192, "repeat_penalty": 1.1, "seed": 7, "temperature": 0.0}
    assert parameters_in(sent(here, OLLAMA, "Hello", **given)) == {"options": given}
    with pytest.raises(penstock.OptionError, match="options: got 'dict'"):  # the stream's options
        here.ask(OLLAMA, "m", options={"num_ctx": 8192})


# --- tools ---------------------------------------------------------------------------------------------------------

NONE = {"type": "object", "properties": {}}
DECLARED: Mapping[Wire, Any] = {
    OPENAI: TOOLS,
    RESPONSES: [
        {"type": "function", "strict": False, **LOOK_UP},
        {"type": "function", "strict": False, "name": "now", "parameters": NONE},
    ],
    ANTHROPIC: [
        {"name": "look_up", "description": "Looks a city up.", "input_schema": SCHEMA},
        {"name": "now", "input_schema": NONE},
    ],
    OLLAMA: TOOLS,
    GEMINI: [
        {
            "functionDeclarations": [
                {"name": "look_up", "description": "Looks a city up.", "parametersJsonSchema": SCHEMA},
                {"name": "now"},
            ]
        }
    ],
}
NAMED = {"type": "function", "function": {"name": "now"}}
CHOICES: Mapping[Wire, tuple[Any, Any, Any, Any]] = {
    OPENAI: ("auto", "none", "required", NAMED),
    RESPONSES: ("auto", "none", "required", {"type": "function", "name": "now"}),
    ANTHROPIC: ({"type": "auto"}, {"type": "none"}, {"type": "any"}, {"type": "tool", "name": "now"}),
    OLLAMA: (None, None, "required", NAMED),
    GEMINI: (
        {"mode": "AUTO"},
        {"mode": "NONE"},
        {"mode": "ANY"},
        {"mode": "ANY", "allowedFunctionNames": ["now"]},
    ),
}


@EVERY
def test_tools_and_the_choice_among_them_are_sent_in_the_providers_form(here: House, wire: Wire) -> None:
    for wanted, expected in zip(("auto", "none", "required", NAMED), CHOICES[wire], strict=True):
        body = sent(here, wire, "Hello", tools=TOOLS, tool_choice=wanted)
        left_out = wire is OLLAMA and wanted == "none"  # it has no such choice
        assert body.get("tools") == (None if left_out else DECLARED[wire])
        told = body["toolConfig"]["functionCallingConfig"] if wire is GEMINI else body.get("tool_choice")
        assert told == expected


# --- given back ----------------------------------------------------------------------------------------------------


def said_again(end: penstock.StreamCompleted) -> dict[str, Any]:
    """The assistant's message of an answer, as it is in the next request."""
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments_raw or "{}"},
            "signature": call.signature,
        }
        for call in end.tool_calls
    ]
    blocks = [msgspec.to_builtins(block) for block in end.reasoning_blocks]
    message = {"role": "assistant", "content": end.text, "reasoning_blocks": blocks}
    return message | ({"tool_calls": calls} if calls else {})


GIVEN_BACK: Mapping[Wire, Any] = {
    OPENAI: {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": CALLED,
    },
    RESPONSES: {
        "type": "reasoning",
        "id": "rs_loopback_#",
        "summary": [{"type": "summary_text", "text": "hm, so"}],
        "encrypted_content": "c2lnbmVk",
    },
    ANTHROPIC: {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm, so", "signature": "c2lnbmVk"},
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "call_a", "name": "look_up", "input": {"city": "Zürich"}},
            {"type": "tool_use", "id": "call_b", "name": "now", "input": {}},
        ],
    },
    OLLAMA: {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [
            {"id": "call_a", "function": {"name": "look_up", "arguments": {"city": "Zürich"}}},
            {"id": "call_b", "function": {"name": "now", "arguments": {}}},
        ],
    },
    GEMINI: {
        "role": "model",
        "parts": [
            {"text": "Let me see."},
            {
                "functionCall": {"id": "call_a", "name": "look_up", "args": {"city": "Zürich"}},
                "thoughtSignature": "Y2FsbA==",
            },
            {"functionCall": {"id": "call_b", "name": "now", "args": {}}},
        ],
    },
}


@EVERY
def test_an_answer_is_given_back_with_what_its_provider_signed(here: House, wire: Wire) -> None:
    first = completed(here.watch(wire, "calls", "Hello", tools=TOOLS))
    number = here.server.requests[-1].number
    results = [{"role": "tool", "tool_call_id": call.id, "content": "ok"} for call in first.tool_calls]
    body = sent(here, wire, [{"role": "user", "content": "Hello"}, said_again(first), *results])
    said = body.get("messages") or body.get("contents") or body["input"]
    expected = GIVEN_BACK[wire]
    if wire is RESPONSES:
        expected = {**expected, "id": f"rs_loopback_{number}"}
        assert [item.get("type") for item in said[1:5]] == ["reasoning", None, "function_call", "function_call"]
    assert said[1] == expected


def test_gemini_gets_the_signature_of_a_text_back_with_the_text(here: House) -> None:
    first = completed(here.watch(GEMINI, "thinks", "Hello"))
    body = sent(here, GEMINI, [{"role": "user", "content": "Hello"}, said_again(first)])
    assert body["contents"][1]["parts"] == [{"text": "Let me see.", "thoughtSignature": "c2lnbmVk"}]


@EVERY
def test_what_others_signed_is_not_sent(here: House, wire: Wire) -> None:
    for other in WIRES:
        if other is not wire:
            first = completed(here.watch(other, "calls", "Hello", tools=TOOLS))
            body = sent(here, wire, [{"role": "user", "content": "Hello"}, said_again(first)])
            told = json.dumps(body)
            assert "c2lnbmVk" not in told, other.name
            assert "Y2FsbA" not in told, other.name
            assert "reasoning_blocks" not in told


# --- the key -------------------------------------------------------------------------------------------------------


@EVERY
def test_the_key_is_in_its_header_and_nowhere_else(wire: Wire) -> None:
    told: list[bytes] = []

    def serve(peer: Peer) -> None:
        told.append(peer.read_request())
        peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with RawServer(serve) as raw, penstock.System(penstock.Settings(request=ONCE)) as system:
        url = f"http://localhost:{raw.port}" + ("/v1" if wire.name.startswith("openai") else "")
        stream = system.chat("m", "Hello", provider=wire.name, base_url=url, api_key=KEY)
        failed(Collector(stream))
    [request] = told
    assert request.count(KEY.encode()) == 1
    head = request.partition(b"\r\n\r\n")[0].decode()
    asked, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    before = "Bearer " if wire.key_header == "authorization" else ""
    assert headers[wire.key_header] == before + KEY
    assert asked.startswith(f"POST {wire.path.format('m')}")
    assert headers["content-type"] == "application/json"
    assert headers["accept"] == ("application/x-ndjson" if wire is OLLAMA else "text/event-stream")
    assert headers.get("anthropic-version") == ("2023-06-01" if wire is ANTHROPIC else None)


@EVERY
def test_the_key_is_shown_nowhere_though_the_provider_echoes_it(
    here: House, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    shown: list[str] = []
    with caplog.at_level(logging.DEBUG):
        for model in ("m", "echoes", "echoes-later"):
            stream = here.ask(wire, model, "Hello")
            events = list(stream)
            shown += [repr(events), repr(stream), repr(stream.statistics()), str(here.system.tree())]
            shown += [repr(penstock.to_dict(event)) for event in events]
            shown += [repr(here.system.get_stream_info(stream.stream_id)), repr(here.system.statistics())]
            source = stream._record.feed
            assert isinstance(source, CallRecord)
            shown += [repr(source), repr(source.provider), repr(source.request), repr(vars(source))]
            shown.append(repr(here.system.provider(wire.name)))
            end = events[-1]
            if isinstance(end, penstock.StreamFailed):
                assert "Bad key: " in str(end.error)
                shown += [str(end.error), repr(end.error), repr(vars(end.error))]
            assert isinstance(end, penstock.StreamCompleted if model == "m" else penstock.StreamFailed)
    assert KEY not in "".join(shown) + caplog.text + repr(here.server.requests)


@EVERY
def test_a_wrong_key_and_none_are_refused(server: LoopbackProvider, wire: Wire) -> None:
    with house(server) as here:
        wrong = here.watch(wire, "m", "Hello", base_url=wire.url(server), api_key="sk-wrong-0123456789")
        assert isinstance(failed(wrong).error, penstock.AuthenticationError)
    with penstock.System(penstock.Settings(request=ONCE)) as system:
        none = system.chat("m", "Hello", provider=wire.name, base_url=wire.url(server))
        assert isinstance(failed(Collector(none)).error, penstock.AuthenticationError)
