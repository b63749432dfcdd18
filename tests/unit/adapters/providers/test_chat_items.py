"""Input and parameters of the Responses API, converted for providers that offer chat only."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from penstock.adapters.providers.anthropic.provider import AnthropicMessages
from penstock.adapters.providers.anthropic.request import messages_body
from penstock.adapters.providers.chat_calls import to_chat_call
from penstock.adapters.providers.chat_items import items_to_messages
from penstock.adapters.providers.chat_parameters import hosted_tools, to_chat_parameters
from penstock.adapters.providers.gemini.provider import Gemini
from penstock.adapters.providers.gemini.request import gemini_body
from penstock.adapters.providers.ollama.request import ollama_body
from penstock.adapters.providers.openai.chat_request import chat_body
from penstock.adapters.providers.openai.responses_request import responses_body
from penstock.adapters.providers.shared.blocks import CALL_EXTRAS
from penstock.config.secret import Secret
from penstock.errors import OptionError
from penstock.ports import ChatCall
from penstock.ports.messages import check_messages

CALL = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"x":1}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "2"}


def test_messages_lose_what_only_items_have_and_their_parts_get_chats_form() -> None:
    items: list[dict[str, Any]] = [
        {"type": "message", "id": "msg_1", "status": "completed", "role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Look"},
                {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "low"},
                {"type": "input_file", "file_id": "file_1"},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ],
        },
        {
            "type": "message",
            "role": "assistant",
            "phase": "final_answer",
            "content": [{"type": "output_text", "text": "A cat.", "annotations": [], "logprobs": []}],
        },
    ]
    assert items_to_messages(items) == [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look"},
                {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}},
                {"type": "file", "file": {"file_id": "file_1"}},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ],
        },
        {"role": "assistant", "content": "A cat."},
    ]


def test_calls_join_the_message_before_them_and_results_are_messages_of_the_tool() -> None:
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]}
    custom = {"type": "custom_tool_call", "call_id": "c2", "name": "run", "input": "ls"}
    pictured = {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "a b"}]}
    messages = items_to_messages([{"role": "user", "content": "Go"}, said, CALL, custom, OUTPUT, pictured])
    assert messages == [
        {"role": "user", "content": "Go"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"x":1}'}},
                {"id": "c2", "type": "custom", "custom": {"name": "run", "input": "ls"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "a b"}]},
    ]
    check_messages(messages)


ACTIONS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], Any]] = [
    (
        {"type": "shell_call", "call_id": "c1", "action": {"commands": ["ls"]}, "status": "completed"},
        {"name": "shell", "arguments": {"commands": ["ls"]}},
        {
            "type": "shell_call_output",
            "call_id": "c1",
            "output": [{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
        },
        '[{"stdout":"a","stderr":"","outcome":{"type":"exit","exit_code":0}}]',
    ),
    (
        {"type": "local_shell_call", "call_id": "c1", "action": {"type": "exec", "command": ["ls"], "env": {}}},
        {"name": "local_shell", "arguments": {"type": "exec", "command": ["ls"], "env": {}}},
        {"type": "local_shell_call_output", "call_id": "c1", "output": "a"},
        "a",
    ),
    (
        {"type": "apply_patch_call", "call_id": "c1", "operation": {"type": "delete_file", "path": "a"}},
        {"name": "apply_patch", "arguments": {"type": "delete_file", "path": "a"}},
        {"type": "apply_patch_call_output", "call_id": "c1", "status": "completed"},
        "completed",
    ),
    (
        {"type": "computer_call", "call_id": "c1", "action": {"type": "screenshot"}, "pending_safety_checks": []},
        {"name": "computer", "arguments": {"type": "screenshot"}},
        {
            "type": "computer_call_output",
            "call_id": "c1",
            "output": {"type": "computer_screenshot", "image_url": "data:image/png;base64,AA=="},
        },
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}],
    ),
    (
        {"type": "mcp_approval_request", "id": "c1", "name": "pay", "server_label": "s", "arguments": "{}"},
        {"name": "pay", "arguments": {"server_label": "s", "name": "pay", "arguments": {}}},
        {"type": "mcp_approval_response", "approval_request_id": "c1", "approve": True},
        '{"approve":true}',
    ),
    (
        {"type": "tool_search_call", "call_id": "c1", "execution": "client", "arguments": {"goal": "add"}},
        {"name": "tool_search", "arguments": {"goal": "add"}},
        {"type": "tool_search_output", "call_id": "c1", "execution": "client", "tools": []},
        '{"tools":[]}',
    ),
]


@pytest.mark.parametrize(("call", "function", "output", "content"), ACTIONS, ids=lambda value: str(value)[:30])
def test_every_call_for_the_client_keeps_its_meaning(
    call: dict[str, Any], function: dict[str, Any], output: dict[str, Any], content: Any
) -> None:
    asked, told = items_to_messages([call, output])
    (made,) = asked["tool_calls"]
    assert made["id"] == "c1"
    assert (made["function"]["name"], json.loads(made["function"]["arguments"])) == tuple(function.values())
    assert told["tool_call_id"] == "c1"
    assert told["content"] == content
    check_messages([asked, told])


def test_a_failed_patch_is_an_error() -> None:
    call = ACTIONS[2][0]
    output = {"type": "apply_patch_call_output", "call_id": "c1", "status": "failed", "output": "no such file"}
    told = items_to_messages([call, output])[1]
    assert (told["content"], told["is_error"]) == ("no such file", True)


def test_reasoning_goes_back_to_openai_alone_at_its_place() -> None:
    first = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "seal"}
    second = {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "wax"}
    said = {"type": "message", "role": "assistant", "content": "Hello"}
    (message,) = items_to_messages([first, said, CALL, second])
    assert message["provider_blocks"] == [
        {"provider": "openai", "data": first, "at": 0, "calls": 0},
        {"provider": "openai", "data": second, "at": 5, "calls": 1},
    ]
    body = responses_body(ChatCall(model="m", provider="openai", input=[message, {**OUTPUT}]))
    assert [item.get("type", item.get("role")) for item in body["input"][:3]] == [
        "reasoning",
        "assistant",
        "function_call",
    ]
    chat = to_chat_call(
        ChatCall(model="m", input=[{"role": "user", "content": "?"}, first, said], provider="anthropic")
    )
    assert "seal" not in json.dumps(json.loads(AnthropicMessages(Secret("k")).request(chat).body))


def test_reasoning_of_another_provider_goes_back_to_that_one() -> None:
    thought = {
        "type": "reasoning",
        "id": "rs_resp_1_0",
        "summary": [{"type": "summary_text", "text": "Hm."}],
        "encrypted_content": "sig",
        "penstock": {"provider": "anthropic", "kind": "thinking"},
    }
    items = [{"role": "user", "content": "?"}, thought, CALL, OUTPUT]
    parameters = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_output_tokens": 2048}
    chat = to_chat_call(ChatCall(model="m", input=items, provider="anthropic", parameters=parameters))
    body = json.loads(AnthropicMessages(Secret("k")).request(chat).body)
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "tool_use", "id": "c1", "name": "add", "input": {"x": 1}},
    ]


def test_entries_of_chats_reasoning_details_go_back_as_such() -> None:
    sealed = {
        "type": "reasoning",
        "id": "rs_resp_1_0",
        "summary": [],
        "encrypted_content": "seal",
        "penstock": {"provider": "openrouter", "kind": "reasoning.encrypted", "id": "e1"},
    }
    signed = {
        "type": "reasoning",
        "id": "rs_resp_1_1",
        "summary": [{"type": "summary_text", "text": "Hm"}],
        "encrypted_content": "sig",
        "penstock": {"provider": "openrouter", "kind": "reasoning.text"},
    }
    items = [{"role": "user", "content": "?"}, sealed, signed, CALL, OUTPUT]
    body = chat_body(to_chat_call(ChatCall(model="m", provider="openrouter", input=items)))
    assert body["messages"][1]["reasoning_details"] == [
        {"type": "reasoning.encrypted", "data": "seal", "id": "e1"},
        {"type": "reasoning.text", "text": "Hm", "signature": "sig"},
    ]
    body = chat_body(to_chat_call(ChatCall(model="m", provider="groq", input=items)))
    assert "seal" not in json.dumps(body)


def test_the_signature_of_a_call_goes_back_with_it() -> None:
    items = [{"role": "user", "content": "?"}, CALL | {"penstock": {"signature": "s9"}}, OUTPUT]
    chat = to_chat_call(ChatCall(model="m", input=items, provider="gemini"))
    parts = json.loads(Gemini(Secret("k")).request(chat).body)["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == ["s9"]


def test_openais_own_tools_and_compacted_history_are_blocks_of_its_own() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    shell = {
        "type": "shell_call",
        "call_id": "c9",
        "action": {"commands": []},
        "environment": {"type": "container_auto"},
    }
    shown = {"type": "shell_call_output", "call_id": "c9", "output": []}
    sealed = {"type": "compaction", "id": "cmp_1", "encrypted_content": "x"}
    said = {"type": "message", "role": "assistant", "content": "Found."}
    (message,) = items_to_messages([search, shell, shown, sealed, said])
    assert message["content"] == "Found."
    assert [block["data"]["type"] for block in message["provider_blocks"]] == [
        "web_search_call",
        "shell_call",
        "shell_call_output",
        "compaction",
    ]
    assert {block["provider"] for block in message["provider_blocks"]} == {"openai"}


def test_chat_messages_among_items_pass_unchanged() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": {"name": "f"}}]}
    told = {"role": "tool", "tool_call_id": "c1", "content": "2"}
    assert items_to_messages([message, told]) == [message, told]


def test_a_refusal_is_a_field_of_its_own() -> None:
    refused = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    assert items_to_messages([refused]) == [{"role": "assistant", "content": "", "refusal": "No."}]


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"type": "item_reference", "id": "msg_1"}, r"input\[0\]: an item_reference cannot be resolved"),
        ({"id": "msg_1"}, r"input\[0\]: an item_reference cannot be resolved"),
        ({"type": "function_call_output", "output": "1"}, r"input\[0\].call_id"),
        ({"type": "mcp_approval_response", "approve": True}, r"input\[0\].approval_request_id"),
        ({"type": "function_call", "name": "f"}, r"input\[0\].call_id"),
        ({"type": "dream"}, r"input\[0\].type: dream has no counterpart"),
        ({"type": "a b", "secret": "sk-1"}, r"input\[0\].type: a type that is not known has no counterpart"),
        ({"type": "message", "content": "Hi"}, r"input\[0\].role"),
        ("Hi", r"input\[0\]"),
    ],
)
def test_items_that_chat_has_nothing_for_are_refused(item: Any, field: str) -> None:
    with pytest.raises(OptionError, match=field):
        items_to_messages([item])


def test_parameters_get_chats_names_and_forms() -> None:
    schema = {"type": "object", "properties": {}}
    assert to_chat_parameters(
        {
            "max_output_tokens": 9,
            "text": {
                "format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True},
                "verbosity": "low",
            },
            "reasoning": {"effort": "high", "summary": "auto"},
            "top_logprobs": 2,
            "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
            "parallel_tool_calls": False,
            "tools": [{"type": "function", "name": "f", "parameters": schema, "strict": True}],
            "tool_choice": {"type": "function", "name": "f"},
            "truncation": "auto",
            "store": False,
            "metadata": {"a": "b"},
            "temperature": 0.5,
            "user": "u",
        }
    ) == {
        "max_tokens": 9,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}},
        "verbosity": "low",
        "reasoning_effort": "high",
        "top_logprobs": 2,
        "logprobs": True,
        "parallel_tool_calls": False,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "temperature": 0.5,
        "user": "u",
    }


def test_custom_tools_and_namespaces_and_allowed_tools_get_chats_form() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}
    given = {
        "tools": [
            {"type": "custom", "name": "run", "format": grammar},
            {"type": "namespace", "name": "crm", "tools": [{"type": "function", "name": "find"}]},
        ],
        "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "run"}]},
    }
    form = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /a/"}}
    chosen = [{"type": "custom", "custom": {"name": "run"}}]
    assert to_chat_parameters(given) == {
        "tools": [
            {"type": "custom", "custom": {"name": "run", "format": form}},
            {"type": "function", "function": {"name": "find"}},
        ],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": chosen}},
    }


def test_openais_own_tools_are_left_out_and_the_log_names_them(caplog: pytest.LogCaptureFixture) -> None:
    tools = [
        {"type": "web_search_preview_2025_03_11"},
        {"type": "mcp", "server_label": "s", "authorization": "sk-secret"},
        {"type": "web_search", "web_search": {"enable": True}},
        {"type": "web_search_20250305", "name": "web_search"},
    ]
    assert hosted_tools(tools) == ("web_search_preview_2025_03_11", "mcp")
    with caplog.at_level(logging.WARNING, "penstock"):
        call = to_chat_call(ChatCall(model="m", input="Hi", provider="p", parameters={"tools": tools}))
    assert call.parameters == {"tools": tools[2:]}  # those of other providers pass
    (record,) = caplog.records
    assert "tools_dropped" in record.getMessage()
    assert "mcp" in record.getMessage()
    assert "sk-secret" not in record.getMessage()


def test_without_any_tool_left_nothing_speaks_of_tools() -> None:
    given = {"tools": [{"type": "file_search"}], "tool_choice": "required", "parallel_tool_calls": True}
    assert to_chat_parameters(given) == {}
    given = {"tools": [{"type": "mcp"}, {"type": "function", "name": "f"}], "tool_choice": {"type": "mcp"}}
    assert to_chat_parameters(given) == {"tools": [{"type": "function", "function": {"name": "f"}}]}


@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "prompt"])
def test_what_openai_has_stored_cannot_be_referred_to(name: str) -> None:
    with pytest.raises(OptionError, match=f"^{name}: the provider offers chat only"):
        to_chat_parameters({name: "resp_1"})


def test_instructions_may_be_items() -> None:
    instructions = [{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Brief."}]}]
    call = to_chat_call(ChatCall(model="m", input="Hi", parameters={"instructions": instructions}))
    assert call.input == [
        {"role": "developer", "content": [{"type": "text", "text": "Brief."}]},
        {"role": "user", "content": "Hi"},
    ]


def test_the_result_of_a_chat_messages_call_is_a_result_whatever_its_type() -> None:
    call = {"id": "c1", "type": "shell", "function": {"name": "shell", "arguments": "{}"}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    output = {"type": "shell_call_output", "call_id": "c1", "output": []}
    assert items_to_messages([asked, output])[1] == {"role": "tool", "tool_call_id": "c1", "content": "[]"}


def test_reasoning_gets_the_id_that_its_provider_gave_it() -> None:
    mark = {"provider": "openai", "kind": "reasoning", "id": "rs_9"}
    item = {"type": "reasoning", "id": "rs_resp_1_0", "summary": [], "encrypted_content": "x", "penstock": mark}
    (message,) = items_to_messages([item])
    block = {"type": "reasoning", "id": "rs_9", "summary": [], "encrypted_content": "x"}
    assert message["provider_blocks"] == [{"provider": "openai", "data": block, "at": 0, "calls": 0}]


def test_a_message_that_only_calls_has_no_content_and_arguments_are_always_json() -> None:
    (message,) = items_to_messages([{"type": "function_call", "call_id": "c1", "name": "now", "arguments": ""}])
    assert message["content"] is None
    assert message["tool_calls"][0]["function"]["arguments"] == "{}"


def test_parameters_that_say_nothing_in_chat_are_left_out() -> None:
    tools = [{"type": "web_search_2025_08_26"}, {"type": "function", "name": "f", "defer_loading": True}]
    given = {"top_logprobs": 0, "text": {"format": {"type": "text"}}, "tools": tools, "reasoning": {"effort": None}}
    assert to_chat_parameters(given) == {"tools": [{"type": "function", "function": {"name": "f"}}]}
    assert to_chat_parameters({"text": {"format": {"type": "json_object"}}}) == {
        "response_format": {"type": "json_object"}
    }


def test_choices_and_tools_that_have_chats_form_already_stay() -> None:
    given = {
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_object"},
    }
    assert to_chat_parameters(given) == given


def test_empty_instructions_are_no_message() -> None:
    assert to_chat_call(ChatCall(model="m", input="Hi", parameters={"instructions": ""})).input == [
        {"role": "user", "content": "Hi"}
    ]


def test_null_in_one_of_two_names_leaves_the_other() -> None:
    given: dict[str, Any] = {"max_output_tokens": None, "max_tokens": 100, "temperature": None, "prompt": None}
    assert to_chat_parameters(given) == {"max_tokens": 100}
    form: dict[str, Any] = {"type": "json_schema", "name": "n", "schema": {}, "json_schema": None}
    given = {
        "text": {"format": form, "verbosity": "low"},
        "reasoning": {"effort": "high"},
        "response_format": None,
        "verbosity": None,
        "reasoning_effort": None,
        "tools": [{"type": "function", "name": "f", "function": None}],
    }
    assert to_chat_parameters(given) == {
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
        "verbosity": "low",
        "reasoning_effort": "high",
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }


def test_a_message_without_a_type_may_say_so() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    message = {"type": None, "role": "assistant", "content": None, "tool_calls": [call]}
    body = responses_body(ChatCall(model="m", input=[message]))
    assert [item["type"] for item in body["input"]] == ["function_call"]
    assert responses_body(ChatCall(model="m", input=[{"type": None, "role": "user", "content": "Hi"}]))["input"] == [
        {"role": "user", "content": "Hi"}
    ]


def test_null_in_the_providers_own_form_leaves_what_is_given_in_openais() -> None:
    schema = {"type": "object"}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}

    def call(**parameters: Any) -> ChatCall:
        return ChatCall(model="m", input="Hi", parameters=parameters)

    made = messages_body(call(response_format=wanted, output_config={"format": None, "effort": "low"}))
    assert made["output_config"] == {"format": {"type": "json_schema", "schema": schema}, "effort": "low"}
    assert gemini_body(call(max_tokens=5, generationConfig={"maxOutputTokens": None}))["generationConfig"] == {
        "maxOutputTokens": 5
    }
    assert ollama_body(call(temperature=0.5, options={"temperature": None}))["options"] == {"temperature": 0.5}
    text = responses_body(call(response_format=wanted, text={"format": None}))["text"]
    assert text["format"]["schema"] == schema


def test_null_in_a_field_that_goes_back_leaves_what_the_provider_has_sealed() -> None:
    entry = {"type": "reasoning.text", "text": "Hm", "signature": "sig"}
    extras = {"type": CALL_EXTRAS, "id": "c1", "extra_content": {"google": {"thought_signature": "s"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}, "extra_content": None}
    message = {
        "role": "assistant",
        "content": None,
        "reasoning_details": None,
        "tool_calls": [call],
        "provider_blocks": [{"provider": "p", "data": data, "at": 0, "calls": 0} for data in (entry, extras)],
    }
    (sent,) = chat_body(ChatCall(model="m", provider="p", input=[message]))["messages"]
    assert sent["reasoning_details"] == [entry]
    assert sent["tool_calls"][0]["extra_content"] == extras["extra_content"]
    (sent,) = ollama_body(
        ChatCall(model="m", input=[{"role": "assistant", "content": "A", "thinking": None, "reasoning": "Hm"}])
    )["messages"]
    assert sent["thinking"] == "Hm"


def test_null_in_an_action_is_none() -> None:
    def item(kind: str, arguments: str) -> Any:
        call = {"id": "c1", "type": kind, "function": {"name": "x", "arguments": arguments}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return responses_body(ChatCall(model="m", input=[message]))["input"][0]

    assert item("mcp_approval", '{"server_label":"s","arguments":null}')["arguments"] == "{}"
    clicked = item("computer", '{"type":"click","actions":null}')
    assert clicked["action"]["type"] == "click"
    assert "actions" not in clicked
