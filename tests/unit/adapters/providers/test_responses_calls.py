"""Calls of a Responses answer that the client must act on, from the answer to the next request, and their results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from penstock.adapters.providers.openai.responses_decoder import ResponsesDecoder
from penstock.adapters.providers.openai.responses_provider import OpenAiResponses
from penstock.events import ProviderEvent, ServerToolCall, ServerToolResult
from penstock.ports import BlockDelta, ChatCall, Delta, EventDelta, FinishDelta, Secret, ToolCallFragment
from tests.unit.adapters.providers.responses_bodies import LIMIT, added, completed, decode, delta, done, event, sse

CALLED = FinishDelta("tool_calls", "completed")
STOP = FinishDelta("stop", "completed")
EXEC = {"type": "exec", "command": ["ls"], "env": {}}
SHELL = {"commands": ["ls"], "max_output_length": 100}
PATCH = {"type": "delete_file", "path": "a"}
CLICK = {"type": "click", "x": 1, "y": 2, "button": "left"}
CHECKS = [{"id": "sc", "code": "malicious", "message": "m"}]

# Items, each with the type, the id, the name and the arguments of its call.
ITEMS: list[tuple[dict[str, Any], tuple[str, str, str, Any]]] = [
    (
        {"type": "local_shell_call", "id": "lsh", "call_id": "c", "action": EXEC, "status": "completed"},
        ("local_shell", "c", "local_shell", EXEC),
    ),
    (
        {"type": "shell_call", "id": "sh", "call_id": "c", "action": SHELL, "environment": {"type": "local"}},
        ("shell", "c", "shell", SHELL),
    ),
    (
        {"type": "shell_call", "id": "sh", "call_id": "c", "action": SHELL, "environment": None},
        ("shell", "c", "shell", SHELL),
    ),
    (
        {"type": "apply_patch_call", "id": "ap", "call_id": "c", "operation": PATCH, "status": "completed"},
        ("apply_patch", "c", "apply_patch", PATCH),
    ),
    (
        {"type": "computer_call", "id": "cu", "call_id": "c", "action": CLICK, "pending_safety_checks": []},
        ("computer", "c", "computer", CLICK),
    ),
    (
        {"type": "computer_call", "id": "cu", "call_id": "c", "actions": [CLICK], "pending_safety_checks": CHECKS},
        ("computer", "c", "computer", {"actions": [CLICK], "pending_safety_checks": CHECKS}),
    ),
    (
        {"type": "mcp_approval_request", "id": "mcpr", "name": "ask", "server_label": "s", "arguments": '{"q":1}'},
        ("mcp_approval", "mcpr", "ask", {"name": "ask", "server_label": "s", "arguments": {"q": 1}}),
    ),
    (
        {"type": "tool_search_call", "id": "ts", "call_id": "c", "execution": "client", "arguments": {"goal": "g"}},
        ("tool_search", "c", "tool_search", {"goal": "g"}),
    ),
]


def calls(deltas: list[Delta]) -> list[ToolCallFragment]:
    return [told for told in deltas if isinstance(told, ToolCallFragment)]


def blocks(deltas: list[Delta]) -> list[dict[str, Any]]:
    return [dict(told.data) for told in deltas if isinstance(told, BlockDelta)]


def input_of(*messages: Mapping[str, Any], provider: str = "p", **parameters: Any) -> list[dict[str, Any]]:
    call = ChatCall(model="m", input=messages, provider=provider, parameters=parameters)
    items = json.loads(OpenAiResponses(Secret("sk-test")).request(call).body)["input"]
    assert isinstance(items, list)
    return items


def asking(*asked: Mapping[str, Any], returned: Sequence[Mapping[str, Any]] = (), calls: int = 1) -> dict[str, Any]:
    sealed = [{"provider": "p", "data": data, "at": 0, "calls": calls} for data in returned]
    return {"role": "assistant", "content": None, "tool_calls": list(asked), "provider_blocks": sealed}


def call_of(kind: str, call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    return {"id": call_id, "type": kind, "function": {"name": name, "arguments": json.dumps(arguments)}}


# --- from the answer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("item", "expected"), ITEMS)
def test_an_item_that_the_client_must_act_on_is_a_call(
    item: dict[str, Any], expected: tuple[str, str, str, Any]
) -> None:
    kind, call_id, name, arguments = expected
    started = event("output_item.added", output_index=0, item={**item, "status": "in_progress"})
    whole = event("output_item.done", output_index=0, item=item)
    told = decode(started, whole, whole, completed(output=[item]))
    assert told[-1] == CALLED
    (call,) = calls(told)
    assert (call.index, call.id, call.name, call.type, call.is_server) == (0, call_id, name, kind, False)
    assert json.loads(call.arguments) == arguments
    assert blocks(told) == [item]
    assert decode(completed(output=[item])) == told


@pytest.mark.parametrize("item", [item for item, _ in ITEMS])
def test_an_item_that_does_not_say_what_to_do_is_counted_and_no_call(item: dict[str, Any]) -> None:
    kept = {name: item[name] for name in ("type", "id", "call_id", "execution", "environment") if name in item}
    wrongs: tuple[Any, ...] = (None, {}, "rm", [1])
    for wrong in wrongs:
        fields = {"action": wrong, "operation": wrong}
        if item["type"] != "mcp_approval_request":
            fields["arguments"] = wrong
        body = done(0, **kept, **fields)
        assert decode(body, completed(), skipped=1) == [STOP]
        (raw, _) = decode(body, completed(), skipped=1, raw="unknown")
        assert raw == EventDelta(ProviderEvent(type=item["type"], payload=body["item"]))


def test_a_custom_call_is_free_text() -> None:
    item = {"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": ""}
    told = decode(
        added(0, **item),
        event("custom_tool_call_input.delta", output_index=0, delta="SELECT "),
        event("custom_tool_call_input.delta", output_index=0, delta="1"),
        event("custom_tool_call_input.done", output_index=0, input="SELECT 1"),
        done(0, **{**item, "input": "SELECT 1"}),
        completed(),
    )
    assert told == [
        ToolCallFragment(0, "c", "sql", "", type="custom"),
        ToolCallFragment(0, arguments="SELECT "),
        ToolCallFragment(0, arguments="1"),
        CALLED,
    ]


def test_a_shell_call_without_an_environment_was_not_for_the_client_if_its_output_comes() -> None:
    call = {"type": "shell_call", "id": "s", "call_id": "c", "action": SHELL}
    output = {"type": "shell_call_output", "id": "o", "call_id": "c", "output": [{"stdout": "x"}]}
    told = decode(
        *(event("output_item.done", output_index=at, item=item) for at, item in enumerate((call, output))), completed()
    )
    assert calls(told)[1:] == [ToolCallFragment(0, is_server=True)]
    assert [one.event for one in told if isinstance(one, EventDelta)] == [
        ServerToolCall(id="c", name="shell", input=SHELL),
        ServerToolResult(id="c", name="shell", output=[{"stdout": "x"}]),
    ]
    assert blocks(told) == [call, output]
    assert told[-1] == STOP


@pytest.mark.parametrize("missing", ["", "null", "None", None, 5])
def test_names_and_ids_that_say_nothing_are_missing(missing: Any) -> None:
    item = {"type": "function_call", "id": "fc", "call_id": missing, "name": missing, "arguments": "{}"}
    assert decode(done(0, **item)) == [ToolCallFragment(0, "fc", None, "{}")]
    assert decode(done(0, **{**item, "id": missing})) == [ToolCallFragment(0, None, None, "{}")]
    assert decode(done(0, "web_search_call", id=missing)) == [
        EventDelta(ServerToolCall(id="server_0", name="web_search")),
        BlockDelta({"type": "web_search_call", "id": missing}),
    ]


@pytest.mark.parametrize(
    ("fields", "is_returned"),
    [
        ({}, False),
        ({"caller": {"type": "direct"}, "namespace": None}, False),
        ({"caller": {"type": "program", "caller_id": "pc"}}, True),
        ({"namespace": "crm"}, True),
        ({"async": True}, True),
    ],
)
@pytest.mark.parametrize(("kind", "field"), [("function_call", "arguments"), ("custom_tool_call", "input")])
def test_a_call_with_more_than_chat_messages_can_hold_goes_back_as_it_came(
    kind: str, field: str, fields: dict[str, Any], is_returned: bool
) -> None:
    item = {"type": kind, "id": "i", "call_id": "c", "name": "f", field: "{}", **fields}
    told = decode(done(0, **item), completed())
    assert blocks(told) == ([item] if is_returned else [])
    chat = call_of("function" if kind == "function_call" else "custom", "c", "f", {})
    plain = {"type": kind, "call_id": "c", "name": "f", field: "{}"}
    sent = input_of(asking(chat, returned=blocks(told)), {"role": "tool", "tool_call_id": "c", "content": "1"})
    assert sent[0] == (item if is_returned else plain)
    assert sent[1].get("caller") == (fields.get("caller") if is_returned else None)


# --- whole arguments that differ from their pieces -------------------------------------------------------------------

ADDED = added(0, "function_call", call_id="c", name="f", arguments="")


def pieces(*texts: str) -> list[dict[str, Any]]:
    return [event("function_call_arguments.delta", output_index=0, delta=text) for text in texts]


@pytest.mark.parametrize("closing", ["function_call_arguments.done", "output_item.done"])
@pytest.mark.parametrize(
    ("came", "whole", "more", "skipped"),
    [
        ('{"a":1}', '{"a":1}', [], 0),
        ('{"a"', '{"a":1}', [ToolCallFragment(0, arguments=":1}")], 0),
        ('{"a": 1}', '{"a":1}', [], 0),  # the same in other words
        ('{"a":1}', '{"a":2}', [ToolCallFragment(0, arguments='{"a":2}', replaces=True)], 1),
        ('{"a":1}{"a":1}', '{"a":1}', [ToolCallFragment(0, arguments='{"a":1}', replaces=True)], 1),
        ('{"a":1}', "", [], 0),
    ],
)
def test_the_whole_arguments_count(closing: str, came: str, whole: str, more: list[Delta], skipped: int) -> None:
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": whole}
    close = event(
        closing, output_index=0, **({"item": item} if closing == "output_item.done" else {"arguments": whole})
    )
    told = decode(ADDED, *pieces(came[:3], came[3:]), close, done(0, **item), completed(), skipped=skipped)
    assert told[3:-1] == more
    assert told[-1] == CALLED


def test_a_piece_before_a_replacement_that_ends_in_half_a_character_is_dropped_with_it() -> None:
    decoder = ResponsesDecoder(LIMIT)
    body = sse(ADDED, *pieces('{"a":"\ud83d'))
    close = event("function_call_arguments.done", output_index=0, arguments='{"a":2}')
    deltas = decoder.feed(body) + decoder.feed(sse(close, completed()))
    assert deltas[-2:] == [ToolCallFragment(0, arguments='{"a":2}', replaces=True), CALLED]


# --- to the request --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("item", "expected"), ITEMS)
def test_a_call_goes_back_as_the_item_that_it_was(item: dict[str, Any], expected: tuple[str, str, str, Any]) -> None:
    exact = input_of(asking(call_of(*expected), returned=[item]))
    assert exact == [item]
    # Of another provider, or of a conversation without blocks: made of the call alone.
    (made,) = input_of(asking(call_of(*expected), returned=[item]), provider="other")
    ours = {"call_id", "id", "status", "environment"}
    same = {name: value for name, value in item.items() if name not in ours}
    assert {name: value for name, value in made.items() if name not in ours} == same
    assert made.get("call_id", made.get("id")) == expected[1]
    assert (made,) == tuple(input_of(asking(call_of(*expected))))


def test_a_call_keeps_the_id_that_the_history_gave_it() -> None:
    item = {"type": "local_shell_call", "id": "l", "call_id": "c", "action": EXEC, "status": "completed"}
    first, second = (call_of("local_shell", call_id, "local_shell", {"type": "exec"}) for call_id in ("x", "c_2"))
    assert input_of(asking(first, second, returned=[item], calls=2))[1] == {**item, "call_id": "c_2"}
    untouched = {"type": "exec", "command": [], "env": {}}
    for other in (call_of("local_shell", "d", "local_shell", {}), call_of("shell", "c", "shell", {})):
        (made,) = input_of(asking(other, returned=[item]))
        assert made != item
        assert made["action"] == (untouched if made["type"] == "local_shell_call" else {"commands": []})


def test_arguments_that_are_no_object_make_an_empty_action() -> None:
    call = {"id": "c", "type": "shell", "function": {"name": "shell", "arguments": "{"}}
    assert input_of(asking(call)) == [
        {"type": "shell_call", "call_id": "c", "action": {"commands": []}, "status": "completed"}
    ]


RESULTS: list[tuple[str, Any, dict[str, Any], dict[str, Any]]] = [
    ("local_shell", {}, {"content": "out"}, {"type": "local_shell_call_output", "output": "out"}),
    (
        "shell",
        SHELL,
        {"content": "out"},
        {
            "type": "shell_call_output",
            "max_output_length": 100,
            "output": [{"stdout": "out", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
        },
    ),
    (
        "shell",
        {},
        {"content": "no", "is_error": True},
        {
            "type": "shell_call_output",
            "output": [{"stdout": "", "stderr": "no", "outcome": {"type": "exit", "exit_code": 1}}],
        },
    ),
    (
        "shell",
        SHELL,
        {"content": '{"output":[{"stdout":"a","outcome":{"type":"timeout"}},{"stderr":"b"}],"max_output_length":5}'},
        {
            "type": "shell_call_output",
            "max_output_length": 5,
            "output": [
                {"stdout": "a", "stderr": "", "outcome": {"type": "timeout"}},
                {"stdout": "", "stderr": "b", "outcome": {"type": "exit", "exit_code": 0}},
            ],
        },
    ),
    (
        "shell",
        {},
        {"content": '{"stdout":"a"}'},
        {
            "type": "shell_call_output",
            "output": [{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
        },
    ),
    (
        "shell",
        {},
        {"content": "[1]"},
        {
            "type": "shell_call_output",
            "output": [{"stdout": "[1]", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
        },
    ),
    (
        "apply_patch",
        PATCH,
        {"content": "done"},
        {"type": "apply_patch_call_output", "status": "completed", "output": "done"},
    ),
    (
        "apply_patch",
        PATCH,
        {"content": "no", "is_error": True},
        {"type": "apply_patch_call_output", "status": "failed", "output": "no"},
    ),
    (
        "apply_patch",
        PATCH,
        {"content": '{"status":"failed","output":"no"}'},
        {"type": "apply_patch_call_output", "status": "failed", "output": "no"},
    ),
    (
        "computer",
        CLICK,
        {"content": "data:image/png;base64,QQ=="},
        {
            "type": "computer_call_output",
            "output": {"type": "computer_screenshot", "image_url": "data:image/png;base64,QQ=="},
        },
    ),
    (
        "computer",
        CLICK,
        {"content": [{"type": "image_url", "image_url": {"url": "https://x"}}]},
        {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "https://x"}},
    ),
    (
        "computer",
        CLICK,
        {"content": json.dumps({"output": {"file_id": "f"}, "acknowledged_safety_checks": CHECKS})},
        {
            "type": "computer_call_output",
            "output": {"type": "computer_screenshot", "file_id": "f"},
            "acknowledged_safety_checks": CHECKS,
        },
    ),
    (
        "tool_search",
        {},
        {"content": '{"tools":[{"type":"function","name":"f"}]}'},
        {
            "type": "tool_search_output",
            "execution": "client",
            "status": "completed",
            "tools": [{"type": "function", "name": "f"}],
        },
    ),
    (
        "tool_search",
        {},
        {"content": "there is no such tool"},
        {"type": "tool_search_output", "execution": "client", "status": "completed", "tools": []},
    ),
    ("custom", {}, {"content": "x"}, {"type": "custom_tool_call_output", "output": "x"}),
    ("function", {}, {"content": "x"}, {"type": "function_call_output", "output": "x"}),
]


@pytest.mark.parametrize(("kind", "arguments", "message", "expected"), RESULTS)
def test_a_result_has_the_form_of_its_call(
    kind: str, arguments: Any, message: dict[str, Any], expected: dict[str, Any]
) -> None:
    (_, sent) = input_of(asking(call_of(kind, "c", kind, arguments)), {"role": "tool", "tool_call_id": "c", **message})
    assert sent == {"call_id": "c", **expected}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("true", {"approve": True}),
        ("false", {"approve": False}),
        ('{"approve":true}', {"approve": True}),
        ('{"approve":false,"reason":"too dear"}', {"approve": False, "reason": "too dear"}),
        ("yes", {"approve": False, "reason": "yes"}),
        ('{"approve":1}', {"approve": False, "reason": '{"approve":1}'}),
        ("There is no tool named ask.", {"approve": False, "reason": "There is no tool named ask."}),
        (None, {"approve": False}),
    ],
)
def test_only_a_clear_yes_approves(content: Any, expected: dict[str, Any]) -> None:
    call = call_of("mcp_approval", "mcpr", "ask", {})
    (_, sent) = input_of(asking(call), {"role": "tool", "tool_call_id": "mcpr", "content": content})
    assert sent == {"type": "mcp_approval_response", "approval_request_id": "mcpr", **expected}


def test_a_screenshot_that_could_not_be_taken_is_an_empty_one_and_what_went_wrong() -> None:
    call = call_of("computer", "c", "computer", CLICK)
    for content, rest in (("There is no tool.", [{"role": "user", "content": "There is no tool."}]), (None, [])):
        (_, output, *more) = input_of(asking(call), {"role": "tool", "tool_call_id": "c", "content": content})
        assert output["type"] == "computer_call_output"
        assert output["output"]["image_url"].startswith("data:image/png;base64,")
        assert more == rest


def test_a_tool_that_answers_approvals_is_none_of_the_request() -> None:
    mcp = {"type": "mcp", "server_label": "s"}
    call = ChatCall(model="m", input="Hi", parameters={"tools": [{"type": "mcp_approval"}, mcp, {"type": "shell"}]})
    body = json.loads(OpenAiResponses(Secret("sk-test")).request(call).body)
    assert body["tools"] == [mcp, {"type": "shell"}]


def test_a_result_without_a_known_call_is_that_of_a_function() -> None:
    assert input_of({"role": "tool", "tool_call_id": "c", "content": "x"}) == [
        {"type": "function_call_output", "call_id": "c", "output": "x"}
    ]


def test_text_before_and_after_such_calls_stays() -> None:
    item = ITEMS[0][0]
    told = decode(delta("Look: "), done(1, **item), completed())
    assert [type(one).__name__ for one in told] == ["TextDelta", "ToolCallFragment", "BlockDelta", "FinishDelta"]
