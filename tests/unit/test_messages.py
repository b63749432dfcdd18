"""Messages are checked for every provider: one error that names the position and the field, and shows no content."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

import penstock
from penstock.actors.call.record import CallRecord
from penstock.errors import OptionError
from penstock.ports import ChatCall, ProviderRequest
from penstock.testing import ScriptedProvider, SimulatedSystem

SECRET = "what the user said"
USER = {"role": "user", "content": SECRET}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "1"}
TOOL_USE = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}
TOOL_RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "1"}]}


class OwnProvider(ScriptedProvider):
    """A user's own provider, which checks nothing and writes JSON by itself."""

    def __init__(self) -> None:
        super().__init__(["Hi"])
        self.calls: list[ChatCall] = []

    def request(self, call: ChatCall) -> ProviderRequest:
        self.calls.append(call)
        body = json.dumps([call.input, dict(call.parameters)], ensure_ascii=False, default=str)
        return ProviderRequest(url=f"http://own/{call.model}?{json.dumps(dict(call.query))}", body=body.encode())


@pytest.fixture
def system() -> Iterator[penstock.System]:
    with SimulatedSystem(seed=1) as system:
        yield system


PROVIDERS: dict[str, Any] = {
    "own": lambda: {"provider": OwnProvider()},
    "loopback": lambda: {"provider": "loopback", "base_url": "http://127.0.0.1:9/v1"},
    **{
        name: lambda name=name: {"provider": name, "api_key": "k"}
        for name in ("openai", "anthropic", "gemini", "ollama", "openai-responses")
    },
}

WRONG: list[tuple[list[Any], str, str]] = [
    ([], "messages", "at least one message"),
    ([SECRET], "messages[0]", "a dict"),
    ([USER, 7], "messages[1]", "a dict"),
    ([{"content": SECRET}], "messages[0].role", "user | assistant"),
    ([USER, {"role": "robot", "content": SECRET}], "messages[1].role", "user | assistant"),
    ([{"role": "asistant", "content": SECRET}], "messages[0].role", "did you mean assistant?"),
    ([{"role": SECRET, "content": SECRET}], "messages[0].role", "user | assistant"),
    ([{"role": ["user"], "content": SECRET}], "messages[0].role", "user | assistant"),
    ([{"role": "user"}], "messages[0].content", "a text"),
    ([USER, {"role": "assistant"}], "messages[1].content", "a text"),
    ([{"role": "user", "content": None}], "messages[0].content", "a text"),
    ([{"role": "system", "content": None}, USER], "messages[0].content", "a text"),
    ([{"role": "user", "content": 7}], "messages[0].content", "a text"),
    ([{"role": "user", "content": True}], "messages[0].content", "a text"),
    ([{"role": "user", "content": b"bytes"}], "messages[0].content", "a text"),
    (
        [{"role": "user", "content": [{"type": "text", "text": SECRET}, None]}],
        "messages[0].content[1]",
        "a content part",
    ),
    ([USER, RESULT], "messages[1].tool_call_id", "the id of an earlier call"),
    ([USER, ASKED, RESULT | {"tool_call_id": SECRET}], "messages[2].tool_call_id", "the id of an earlier call"),
    ([USER, RESULT, ASKED], "messages[1].tool_call_id", "the id of an earlier call"),
    ([USER, {"role": "tool", "content": "1"}], "messages[1].tool_call_id", "the id of an earlier call"),
    ([USER, TOOL_RESULT], "messages[1].content[0].tool_use_id", "the id of an earlier call"),
    ([{"role": "user", "content": [{"type": "x", "x": {"y": float("nan")}}]}], "messages[0].content[0].x.y", "JSON"),
    ([{**USER, "x": [1.0, float("-inf")]}], "messages[0].x[1]", "JSON"),
    ([{**USER, "x": {float("nan"): 1}}], "messages[0].x", "JSON"),
]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("messages", "field", "allowed"), WRONG)
def test_wrong_messages_are_refused_alike_for_every_provider(
    system: penstock.System, provider: str, messages: list[Any], field: str, allowed: str
) -> None:
    with pytest.raises(OptionError) as caught:
        system.chat("m", messages, **PROVIDERS[provider]())
    assert (caught.value.field, str(caught.value).split(":")[0]) == (field, field)
    assert allowed in caught.value.allowed
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


ITEMS: list[tuple[list[Any], str]] = [
    ([], "input"),
    ([SECRET], "input[0]"),
    ([USER, {"role": "robot", "content": SECRET}], "input[1].role"),
    ([{"type": "message", "role": "user"}], "input[0].content"),
    ([USER, RESULT], "input[1].tool_call_id"),
    (
        [{"role": "user", "content": [{"type": "input_text", "text": SECRET, "x": float("inf")}]}],
        "input[0].content[0].x",
    ),
]


@pytest.mark.parametrize("wrong", [USER, b"bytes", 7, True])
def test_the_input_of_a_response_is_a_text_or_a_list(system: penstock.System, wrong: Any) -> None:
    with pytest.raises(OptionError, match=r"^input: got a value of type") as caught:
        system.respond(wrong, "m", provider=OwnProvider())
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("items", "field"), ITEMS)
def test_messages_among_the_items_of_a_response_are_checked_too(
    system: penstock.System, provider: str, items: list[Any], field: str
) -> None:
    with pytest.raises(OptionError) as caught:
        system.respond(items, "m", **PROVIDERS[provider]())
    assert caught.value.field == field
    assert SECRET not in str(caught.value)


FINE: list[list[Mapping[str, Any]]] = [
    [{"role": "developer", "content": "d"}, USER],
    [{"role": "user", "content": []}],
    [{"role": "user", "content": ["text", {"type": "image_url", "image_url": {"url": "https://x"}}]}],
    [{"role": "user", "content": {"type": "text", "text": "a"}}],
    [{"role": "user", "content": ""}],
    [USER, {"role": "assistant", "content": None}, USER],
    [USER, {"role": "assistant", "content": ""}],
    [USER, {"role": "assistant", "tool_calls": [CALL]}, RESULT],
    [USER, ASKED, RESULT | {"content": None}],
    [USER, {"role": "assistant", "reasoning_blocks": [{"kind": "thinking", "signature": "s"}]}, USER],
    [USER, {"role": "assistant", "refusal": "no"}, USER],
    [USER, {"role": "assistant", "audio": {"id": "a"}}, USER],
    [
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": None},
    ],
    [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}, {"role": "tool", "content": "1"}],
    [USER, {"role": "tool", "tool_name": "f", "content": "1"}],
    [
        {"parts": [{"text": "a"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f"}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]},
    ],
    [USER, {"role": "model", "content": "a"}, USER],
    [USER, TOOL_USE, TOOL_RESULT],
    [USER, ASKED, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "1"}]}],
    [USER, ASKED, RESULT, USER, ASKED, RESULT],
]


@pytest.mark.parametrize("messages", FINE)
def test_every_form_that_a_provider_accepts_passes_unchanged(system: penstock.System, messages: list[Any]) -> None:
    provider = OwnProvider()
    assert system.chat("m", messages, provider=provider).result(timeout=5).text == "Hi"
    assert provider.calls[0].input == messages


@pytest.mark.parametrize(
    ("items", "parameters"),
    [
        ([{"type": "item_reference", "id": "i"}, RESULT], {}),
        ([{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}, RESULT], {}),
        ([{"type": "function_call_output", "call_id": "c", "output": "1"}], {}),
        ([{"type": "reasoning", "summary": []}, {"type": "message", "role": "user", "content": "a"}], {}),
        ([RESULT], {"previous_response_id": "r"}),
        ([], {"prompt": {"id": "p"}}),
        ("text", {}),
    ],
)
def test_items_of_the_responses_api_pass_unchanged(system: penstock.System, items: Any, parameters: Any) -> None:
    provider = OwnProvider()
    assert system.respond(items, "m", provider=provider, **parameters).result(timeout=5).text == "Hi"
    assert provider.calls[0].input == items


# --- lone surrogates -------------------------------------------------------------------------------------------------

BROKEN = "caf\udce9"
MENDED = "caf\ufffd"


@pytest.mark.parametrize("verb", ["chat", "respond", "client", "agent"])
def test_a_lone_surrogate_anywhere_in_a_request_is_mended(system: penstock.System, verb: str) -> None:
    provider = OwnProvider()
    parameters: dict[str, Any] = {
        "user": BROKEN,
        "prediction": {BROKEN: (BROKEN, "\ud83d\ude00")},
        "extra_body": {"note": BROKEN},
        "extra_query": {"q": BROKEN},
    }
    content = [{"type": "text", "text": BROKEN, BROKEN: ["x", {"y": BROKEN}]}]
    messages = [{"role": "user", "content": content}]
    match verb:
        case "chat":
            stream = system.chat("m", messages, provider=provider, **parameters)
        case "respond":
            stream = system.respond(messages, "m", provider=provider, **parameters)
        case "client":
            stream = system.provider(provider).stream_chat_completion(messages, model="m", **parameters)
        case _:
            agent = system.agent(model="m", provider=provider, system_prompt=BROKEN, **parameters)
            stream = agent.stream_chat(content)
    assert stream.result(timeout=5).text == "Hi"
    (call,) = provider.calls
    mended = [{"type": "text", "text": MENDED, MENDED: ["x", {"y": MENDED}]}]
    assert call.input[-1] == {"role": "user", "content": mended}
    assert (verb == "agent") == (call.input[0] == {"role": "system", "content": MENDED})
    assert call.parameters == {"user": MENDED, "prediction": {MENDED: [MENDED, "😀"]}, "note": MENDED}
    assert call.query == {"q": MENDED}
    assert messages[0]["content"] == [{"type": "text", "text": BROKEN, BROKEN: ["x", {"y": BROKEN}]}], "the user's own"


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name != "own"])
def test_every_provider_can_send_what_was_mended(system: penstock.System, provider: str) -> None:
    for text in (BROKEN, [{"role": "user", "content": BROKEN}]):
        stream = system.chat("m", text, user=BROKEN, extra_query={"q": BROKEN}, **PROVIDERS[provider]())
        call = stream._record.feed
        assert isinstance(call, CallRecord)
        assert MENDED in str(json.loads(call.request.body))
        assert urlencode({"q": MENDED}) in call.request.url
        stream.cancel()


def test_messages_without_surrogates_are_not_copied(system: penstock.System) -> None:
    provider = OwnProvider()
    message = {"role": "user", "content": [{"type": "text", "text": "café 😀"}]}
    system.chat("m", [message], provider=provider).result(timeout=5)
    assert provider.calls[0].input[0] is message
