"""What goes back to the Responses API with the next request: items, in their places among text and calls."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import pytest

from penstock.adapters.providers.openai.responses_provider import OpenAiResponses
from penstock.events import ProviderBlock, StreamCompleted
from penstock.ports import ChatCall, Secret
from penstock.testing import Collector, ScriptedProvider, SimulatedSystem
from tests.unit.adapters.providers.responses_bodies import added, completed, decode, delta, done, event

REASONING: dict[str, Any] = {"type": "reasoning", "id": "r1", "summary": [], "encrypted_content": "e1"}
SEARCH = {"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search", "query": "q"}}
COMPACTION: dict[str, Any] = {"type": "compaction", "id": "k", "encrypted_content": "sealed"}


def block(data: dict[str, Any], at: int = 0, calls: int = 0, provider: str = "p") -> dict[str, Any]:
    return {"provider": provider, "data": data, "at": at, "calls": calls}


def sent(message: dict[str, Any], provider: str = "p", **parameters: Any) -> list[dict[str, Any]]:
    before = copy.deepcopy(message)
    call = ChatCall(model="m", input=[message], provider=provider, parameters=parameters)
    items = json.loads(OpenAiResponses(Secret("sk-test")).request(call).body)["input"]
    assert message == before
    assert isinstance(items, list)
    return items


def said(content: Any, *blocks: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "provider_blocks": list(blocks), **fields}


def text(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SENT_CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}


def test_items_stand_in_their_places_among_text_and_calls() -> None:
    message = said(
        "Looking.Done.",
        block(REASONING),
        block(SEARCH, at=8),
        ProviderBlock(provider="p", data=COMPACTION, at=13, calls=1),
        tool_calls=[CALL, {**CALL, "id": "c2"}],
    )
    assert sent(message) == [
        REASONING,
        text("Looking."),
        SEARCH,
        text("Done."),
        SENT_CALL,
        COMPACTION,
        {**SENT_CALL, "call_id": "c2"},
    ]


def test_items_of_another_provider_stay_out_and_so_does_reasoning_that_it_signed() -> None:
    signed = [{"kind": "reasoning", "text": "", "signature": "e1", "id": "r1", "provider": "p"}]
    assert sent(said("Hi", block(SEARCH)), "other") == [text("Hi")]
    assert sent(said("Hi", reasoning_blocks=signed), "other") == [text("Hi")]
    assert sent(said("Hi", reasoning_blocks=signed)) == [REASONING, text("Hi")]
    # The blocks have the reasoning already.
    assert sent(said("Hi", block(REASONING), reasoning_blocks=signed)) == [REASONING, text("Hi")]
    # Another provider's blocks say nothing of our reasoning.
    assert sent(said("Hi", block(SEARCH, provider="other"), reasoning_blocks=signed)) == [REASONING, text("Hi")]


def test_blocks_of_other_dialects_are_no_items() -> None:
    for kind in ("reasoning.encrypted", "tool_call.extra_content", "", 5, None):
        assert sent(said("Hi", block({"type": kind, "data": "x"}))) == [text("Hi")]
    assert sent(said("Hi", block({"executableCode": {}}))) == [text("Hi")]


@pytest.mark.parametrize(
    ("item", "is_sent_if_stored", "is_sent_otherwise"),
    [
        (REASONING, True, True),
        ({"type": "reasoning", "id": "r", "summary": []}, True, False),
        ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]}, False, False),
        ({"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "r"}]}, True, True),
        ({"type": "image_generation_call", "id": "ig"}, True, False),
        ({"type": "image_generation_call", "id": "ig", "result": "QQ=="}, True, True),
        (SEARCH, True, True),
    ],
)
def test_what_the_api_refers_to_by_an_id_goes_back_only_if_it_stores_responses(
    item: dict[str, Any], is_sent_if_stored: bool, is_sent_otherwise: bool
) -> None:
    assert sent(said("Hi", block(item))) == [*([item] if is_sent_if_stored else []), text("Hi")]
    assert sent(said("Hi", block(item)), store=False) == [*([item] if is_sent_otherwise else []), text("Hi")]


def test_reasoning_that_nothing_follows_stays_out() -> None:
    assert sent(said("Hi", block(REASONING, at=2))) == [text("Hi")]
    assert sent(said(None, block(REASONING), block(REASONING))) == [text("")]
    assert sent(said(None, block(REASONING), block(SEARCH))) == [REASONING, SEARCH]


def test_calls_and_results_go_back_in_pairs() -> None:
    call: dict[str, Any] = {"type": "shell_call", "call_id": "s", "action": {"commands": []}}
    hosted: dict[str, Any] = {**call, "environment": {"type": "container_reference", "container_id": "c"}}
    output: dict[str, Any] = {"type": "shell_call_output", "call_id": "s", "output": []}
    search: dict[str, Any] = {"type": "tool_search_call", "call_id": None, "execution": "server", "arguments": {}}
    found: dict[str, Any] = {"type": "tool_search_output", "call_id": None, "execution": "server", "tools": []}
    for pair in ((call, output), (hosted, output), (search, found)):
        assert sent(said("Hi", *map(block, pair))) == [*pair, text("Hi")]
    assert sent(said("Hi", block(output))) == [text("Hi")]
    assert sent(said("Hi", block(call))) == [text("Hi")]  # a call without its result
    assert sent(said("Hi", block(hosted))) == [hosted, text("Hi")]
    xai = {"type": "custom_tool_call", "call_id": "xs_1", "name": "x_user_search", "input": "q"}
    assert sent(said("Hi", block(xai))) == [xai, text("Hi")]


def test_content_in_parts_stays_whole_unless_an_item_stands_inside() -> None:
    parts = [{"type": "text", "text": "Looking."}, {"type": "text", "text": "Done."}]
    outputs = [{"type": "output_text", "text": "Looking."}, {"type": "output_text", "text": "Done."}]
    assert sent(said(parts, block(SEARCH))) == [SEARCH, text(outputs)]
    assert sent(said(parts, block(SEARCH, at=8))) == [text("Looking."), SEARCH, text("Done.")]
    other = {"type": "output_audio", "data": "x"}
    assert sent(said([*parts, other], block(SEARCH, at=8))) == [
        text("Looking."),
        SEARCH,
        text("Done."),
        text([other]),
    ]
    assert sent(said([other], block(SEARCH), tool_calls=[CALL])) == [SEARCH, text([other]), SENT_CALL]


def test_a_refusal_follows_the_text() -> None:
    no = {"type": "refusal", "refusal": "no"}
    assert sent(said("ab", block(SEARCH, at=1), refusal="no")) == [text("a"), SEARCH, text("b"), text([no])]
    assert sent(said("ab", block(SEARCH), refusal="no")) == [SEARCH, text([{"type": "output_text", "text": "ab"}, no])]
    assert sent(said(None, block(SEARCH), refusal="no")) == [SEARCH, text([no])]


def test_fields_of_the_message_stand_in_each_of_its_pieces() -> None:
    message = said("ab", block(SEARCH, at=1), phase="commentary", name="n")
    assert sent(message) == [
        {**text("a"), "phase": "commentary"},
        SEARCH,
        {**text("b"), "phase": "commentary"},
    ]


def test_an_answer_goes_through_a_stream_and_back_into_the_request() -> None:
    shell = {
        "type": "shell_call",
        "id": "sh",
        "call_id": "c2",
        "action": {"commands": ["ls"]},
        "environment": {"type": "local"},
        "status": "completed",
    }
    second = {**REASONING, "id": "r2", "encrypted_content": "e2"}
    function = {"type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": '{"x":1}'}
    items = [REASONING, None, SEARCH, second, None, function, shell]
    words = {1: "Looking.", 4: "Done."}
    body = [done(at, **item) if item else delta(words[at], at) for at, item in enumerate(items)]
    deltas = decode(added(1, "message"), *body, completed(id="resp"))
    with SimulatedSystem() as system:
        stream = system.chat("m", "Hello", provider=ScriptedProvider(list(deltas), name="p"))
        end = Collector(stream).wait_for_terminal()
    assert isinstance(end, StreamCompleted)
    assert (end.text, end.finish_reason) == ("Looking.Done.", "tool_calls")
    assert [(part.start, part.end) for part in end.parts if part.kind == "text"] == [(0, 8), (8, 13)]
    assert [(call.type, call.arguments) for call in end.tool_calls] == [
        ("function", {"x": 1}),
        ("shell", {"commands": ["ls"]}),
    ]
    assert [tool.name for tool in end.server_tools] == ["web_search"]
    assert end.provider_metadata == {"response_id": "resp"}
    calls = [
        {"id": call.id, "type": call.type, "function": {"name": call.name, "arguments": call.arguments_raw}}
        for call in end.tool_calls
    ]
    message = said(end.text, *map(msgspec.to_builtins, end.provider_blocks), tool_calls=calls)
    sent_call = {name: value for name, value in function.items() if name != "id"}
    assert sent(message) == [
        REASONING,
        text("Looking."),
        SEARCH,
        second,
        text("Done."),
        sent_call,
        shell,
    ]
    assert "e1" not in json.dumps(sent(message, "other"))


def test_whole_arguments_that_replace_pieces_are_the_calls() -> None:
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    wrong = event("function_call_arguments.delta", output_index=0, delta='{"path":"/"}')
    deltas = decode(
        added(0, **item),
        wrong,
        event("function_call_arguments.done", output_index=0, arguments='{"path":"/tmp"}'),
        completed(),
        skipped=1,
    )
    with SimulatedSystem() as system:
        stream = system.chat("m", "Hello", provider=ScriptedProvider(list(deltas), name="p"))
        end = Collector(stream).wait_for_terminal()
    assert isinstance(end, StreamCompleted)
    (call,) = end.tool_calls
    assert (call.arguments, call.arguments_raw) == ({"path": "/tmp"}, '{"path":"/tmp"}')
