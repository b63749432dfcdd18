"""What the body of Vercel's `DefaultChatTransport` asks for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.agent.history import NOT_RUN, read_turns
from penstock.gateway.problems import RequestRefused
from penstock.gateway.requests.approvals import Approval
from penstock.gateway.requests.ui import approvals, parse

EMPTY: tuple[Any, ...] = ({}, [], 0, False)
"""Empty values that are no texts."""
HI: dict[str, Any] = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}
ASKED = {"role": "user", "content": "Hi"}


def body(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A body with a last message of the assistant's that has these parts."""
    messages = [HI, {"id": "a1", "role": "assistant", "parts": list(parts)}] if parts else [HI]
    return {"id": "c-1", "messages": messages, "trigger": "submit-message", "model": "m"} | fields


def answer(*parts: dict[str, Any]) -> list[Any]:
    """The messages that the assistant's parts become."""
    made: list[Any] = parse(body(*parts)).input
    assert made[0] == ASKED
    return made[1:]


def call(state: str, **fields: Any) -> dict[str, Any]:
    return {"type": "tool-add", "toolCallId": "c1", "state": state, "input": {"a": 1}} | fields


CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
ASSISTANT = {"role": "assistant", "content": None, "tool_calls": [CALL]}


def test_the_chat_and_its_trigger_are_metadata_and_the_rest_parameters() -> None:
    asked = parse(body(temperature=0.5, messageId="u1", provider="groq", unheard_of=[1]))
    assert (asked.api, asked.model, asked.provider, asked.input) == ("chat", "m", "groq", [ASKED])
    assert asked.parameters == {"temperature": 0.5, "unheard_of": [1]}
    assert asked.metadata == {"chat_id": "c-1", "trigger": "submit-message", "message_id": "u1"}
    assert asked.is_streamed


def test_names_of_our_own_options_are_the_models_here() -> None:
    asked = parse(body(timeout=5, extra_body={"x": 1}, provider={"order": ["a"]}))
    assert asked.parameters == {
        "provider": {"order": ["a"]},
        "extra_body": {"extra_body": {"x": 1}, "timeout": 5},
    }
    assert asked.provider is None, "an object is a parameter of the model's"


def test_what_is_said_to_penstock() -> None:
    own = {
        "provider": "openai",
        "stream_id": "s-9",
        "on_orphan": "continue",
        "metadata": {"user": "7"},
        "options": {"batch_size": 2},
        "request_options": {"max_retries": 0},
        "approval": "wait",
    }
    asked = parse(body(penstock=own))
    assert (asked.provider, asked.stream_id, asked.on_orphan) == ("openai", "s-9", "continue")
    assert (asked.options, asked.request_options) == ({"batch_size": 2}, {"max_retries": 0})
    assert asked.metadata["user"] == "7"
    assert asked.waits_for_approval
    assert asked.parameters == {}


def test_a_model_of_the_server_is_used_if_there_is_none() -> None:
    fields = body()
    del fields["model"]
    assert parse(fields, default_model="d").model == "d"
    with pytest.raises(RequestRefused) as raised:
        parse(fields)
    assert raised.value.problem.param == "model"


def test_system_and_tools_of_the_page() -> None:
    schema = {"type": "object"}
    tools = {"add": {"description": "Adds.", "parameters": schema}, "now": {"inputSchema": schema}}
    asked = parse(body(system="Be brief.", tools=tools))
    assert asked.input[0] == {"role": "system", "content": "Be brief."}
    assert asked.parameters["tools"] == [
        {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": schema}},
        {"type": "function", "function": {"name": "now", "parameters": schema}},
    ]
    listed = [{"type": "web_search_preview"}]
    assert parse(body(tools=listed)).parameters["tools"] == listed
    assert "tools" not in parse(body(tools=[])).parameters


def test_system_messages_and_messages_as_before_version_5() -> None:
    messages = [{"role": "system", "parts": [{"type": "text", "text": "Be brief."}]}, {"role": "user", "content": "Hi"}]
    assert parse(body(messages=messages)).input == [{"role": "system", "content": "Be brief."}, ASKED]


def test_text_and_a_refusal() -> None:
    refusal = {"type": "text", "text": "No.", "providerMetadata": {"penstock": {"kind": "refusal"}}}
    parts = ({"type": "step-start"}, {"type": "text", "text": "One "}, {"type": "text", "text": "two."}, refusal)
    assert answer(*parts) == [{"role": "assistant", "content": "One two.", "refusal": "No."}]


def test_reasoning_goes_back_if_it_is_signed() -> None:
    signed = {"penstock": {"kind": "thinking", "signature": "s", "provider": "anthropic", "id": "r1"}}
    parts = (
        {"type": "reasoning", "text": "First, "},
        {"type": "reasoning", "text": "think.", "providerMetadata": signed},
        {"type": "reasoning", "text": "Unsigned.", "providerMetadata": {"other": {"signature": "x"}}},
        {"type": "text", "text": "Four."},
    )
    block = {"text": "First, think.", "kind": "thinking", "signature": "s", "id": "r1", "provider": "anthropic"}
    assert answer(*parts) == [{"role": "assistant", "content": "Four.", "reasoning_blocks": [block]}]


def test_what_the_provider_needs_goes_back_and_other_data_does_not() -> None:
    blocks = [{"provider": "p", "data": {"x": None}, "at": 3, "calls": 0}]
    parts = (
        {"type": "text", "text": "One."},
        {"type": "source-url", "sourceId": "1", "url": "https://a.example"},
        {"type": "data-weather", "data": 1},
        {"type": "data-penstock-blocks", "data": blocks},
    )
    assert answer(*parts) == [{"role": "assistant", "content": "One.", "provider_blocks": blocks}]
    assert parse(body(*parts)).dropped == ()


def test_void_parts_of_a_step_do_not_go_back() -> None:
    parts = (
        {"type": "step-start"},
        call("output-available", output="1"),
        {"type": "step-start"},
        {"type": "text", "text": "VOID"},
        {"type": "data-penstock-reset", "data": {"reason": "x"}},
        {"type": "text", "text": "Good."},
    )
    assert answer(*parts)[-1] == {"role": "assistant", "content": "Good."}
    assert len(answer(*parts)) == 3


@pytest.mark.parametrize(
    ("part", "result"),
    [
        (call("output-available", output="text"), {"content": "text"}),
        (call("output-available", output={"a": [1]}), {"content": '{"a":[1]}'}),
        (call("output-available", output=None), {"content": "null"}),
        (call("output-error", errorText="It broke."), {"content": "It broke.", "is_error": True}),
        (call("output-error", errorText=""), {"content": "The call failed.", "is_error": True}),
        (call("output-denied"), {"content": "The user did not approve this call."}),
        (
            call("output-denied", approval={"id": "c1", "approved": False, "reason": "no"}),
            {"content": "The user did not approve this call: no"},
        ),
        (
            call("approval-responded", approval={"id": "c1", "approved": False}),
            {"content": "The user did not approve this call."},
        ),
        (call("approval-responded", approval={"id": "c1", "approved": True}), {"content": NOT_RUN}),
        (call("approval-requested", approval={"id": "c1"}), {"content": NOT_RUN}),
        (call("input-available"), {"content": NOT_RUN}),
    ],
)
def test_every_state_of_a_call_has_a_result(part: dict[str, Any], result: dict[str, Any]) -> None:
    assert answer(part) == [ASSISTANT, {"role": "tool", "tool_call_id": "c1", **result}]


def test_a_call_that_is_cut_off_or_the_providers_own_is_left_out() -> None:
    text = {"type": "text", "text": "One."}
    for part in (call("input-streaming"), call("output-available", providerExecuted=True, output=1)):
        assert answer(text, part) == [{"role": "assistant", "content": "One."}]


def test_dynamic_and_custom_calls_and_their_signatures() -> None:
    dynamic = call("output-available", type="dynamic-tool", toolName="add", output="1")
    assert answer(dynamic)[0] == ASSISTANT
    signed = call("output-available", output="1", callProviderMetadata={"penstock": {"signature": "s"}})
    assert answer(signed)[0]["tool_calls"] == [CALL | {"signature": "s"}]
    custom = call("output-available", output="1", input="x = 1", callProviderMetadata={"penstock": {"type": "custom"}})
    assert answer(custom)[0]["tool_calls"] == [
        {"id": "c1", "type": "custom", "custom": {"name": "add", "input": "x = 1"}}
    ]
    broken = call("output-error", input=None, rawInput='{"a', errorText="x")
    del broken["input"]
    assert answer(broken)[0]["tool_calls"][0]["function"]["arguments"] == '{"a'


def test_each_step_is_a_message_with_its_results() -> None:
    parts = (
        {"type": "step-start"},
        {"type": "text", "text": "Let me see."},
        call("output-available", output="1"),
        {"type": "step-start"},
        {"type": "text", "text": "One."},
    )
    assert answer(*parts) == [
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "assistant", "content": "One."},
    ]


@pytest.mark.parametrize(
    ("dialect", "media_type", "url", "made"),
    [
        ("openai-chat", "image/png", "https://a.example/a", {"image_url": {"url": "https://a.example/a"}}),
        (
            "openai-chat",
            "application/pdf",
            "data:application/pdf;base64,QQ==",
            {"file": {"filename": "f", "file_data": "data:application/pdf;base64,QQ=="}},
        ),
        ("openai-chat", "audio/wav", "data:audio/wav;base64,QQ==", {"input_audio": {"data": "QQ==", "format": "wav"}}),
        ("openai-responses", "application/pdf", "https://a.example/a", {"file": {"file_url": "https://a.example/a"}}),
        (
            "anthropic",
            "application/pdf",
            "data:application/pdf;base64,QQ==",
            {"image_url": {"url": "data:application/pdf;base64,QQ=="}},
        ),
        (
            "anthropic",
            "application/pdf",
            "https://a.example/a",
            {"source": {"type": "url", "url": "https://a.example/a"}, "title": "f"},
        ),
        ("gemini", "video/mp4", "https://a.example/a", {"image_url": {"url": "https://a.example/a"}}),
        ("openai-chat", "text/plain", "data:text/plain;base64,SGk=", {"text": "f:\nHi"}),
        ("openai-chat", "text/plain", "data:text/plain,a%20b", {"text": "f:\na b"}),
        (
            "openai-chat",
            "text/plain",
            "data:text/plain;base64,/w==",
            {"file": {"filename": "f", "file_data": "data:text/plain;base64,/w=="}},
        ),
    ],
)
def test_files_have_the_form_of_the_provider(dialect: Any, media_type: str, url: str, made: dict[str, Any]) -> None:
    file = {"type": "file", "mediaType": media_type, "url": url, "filename": "f"}
    asked = parse(body(messages=[{"role": "user", "parts": [file]}]), dialect)
    content = asked.input[0]["content"]
    if "text" in made:
        assert content == made["text"]
    else:
        (part,) = content
        assert {name: value for name, value in part.items() if name != "type"} == made


def test_a_file_stands_beside_the_text() -> None:
    file = {"type": "file", "mediaType": "image/png", "url": "https://a.example/a"}
    content = parse(body(messages=[HI | {"parts": [*HI["parts"], file]}])).input[0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url"]


def test_parts_without_a_form_are_named() -> None:
    parts = [*HI["parts"], {"type": "custom", "kind": "x"}]
    asked = parse(body(messages=[HI | {"parts": parts}, {"role": "assistant", "parts": [{"type": "hologram"}]}]))
    assert asked.dropped == ("messages[0].parts[1]", "messages[1].parts[0]")
    assert asked.input == [ASKED]


@pytest.mark.parametrize("name", ["", None])
def test_texts_of_the_page_may_be_empty(name: str | None) -> None:
    file = {"type": "file", "mediaType": "application/pdf", "url": "data:application/pdf;base64,QQ==", "filename": name}
    messages = [HI | {"parts": [file]}, HI | {"parts": None, "content": "", "id": "u2"}, HI]
    asked = parse(body(messages=messages, system=name))
    assert asked.input[0]["content"][0]["file"]["filename"] == "file"
    assert asked.input[1:] == [ASKED]


def test_the_decisions_of_the_last_message() -> None:
    parts = (
        call("approval-responded", approval={"id": "x", "approved": True}),
        call("approval-responded", approval={"id": "y", "approved": False, "reason": "no"}),
        call("approval-requested", approval={"id": "z"}),
        call("output-available", approval={"id": "done", "approved": True}, output=1),
    )
    assert approvals(body(*parts)) == (
        Approval(call_id="x", is_approved=True),
        Approval(call_id="y", is_approved=False, reason="no"),
    )
    earlier = body(*parts)
    earlier["messages"].append(HI)
    assert approvals(earlier) == ()
    assert approvals(body()) == ()


@pytest.mark.parametrize("approved", [0, 1, "false", "no", [], {}])
def test_a_decision_is_true_or_false(approved: Any) -> None:
    with pytest.raises(RequestRefused) as raised:
        approvals(body(call("approval-responded", approval={"id": "x", "approved": approved})))
    assert raised.value.problem.param == "messages[1].parts[0].approval.approved"
    assert approvals(body(call("approval-responded", approval={"id": "x", "approved": None}))) == ()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"role": "robot", "parts": []}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "parts": "Hi"}]}, "messages[0].parts"),
        ({"messages": [{"role": "user", "parts": [{}]}]}, "messages[0].parts[0]"),
        ({"messages": [{"role": "user", "parts": [{"type": "text"}]}]}, "messages[0].parts[0].text"),
        ({"messages": [{"role": "user", "parts": [{"type": "file"}]}]}, "messages[0].parts[0]"),
        ({"messages": [HI, {"role": "assistant", "parts": [{"type": "tool-x"}]}]}, "messages[1].parts[0]"),
        ({"model": 7}, "model"),
        ({"trigger": "pull"}, "trigger"),
        *(({"system": empty}, "system") for empty in EMPTY),
        *(({"messages": [{"role": "user", "content": empty}]}, "messages[0].content") for empty in EMPTY),
        *(
            (
                {"messages": [HI | {"parts": [{"type": "file", "mediaType": "x/y", "url": "x", "filename": empty}]}]},
                "messages[0].parts[0].filename",
            )
            for empty in EMPTY
        ),
        ({"tools": "all"}, "tools"),
        ({"tools": {"x": 1}}, "tools.x"),
        ({"penstock": []}, "penstock"),
        ({"penstock": {"colour": 1}}, "penstock.colour"),
        ({"penstock": {"stream_id": 1}}, "penstock.stream_id"),
        ({"penstock": {"metadata": []}}, "penstock.metadata"),
        ({"penstock": {"on_orphan": "weep"}}, "penstock.on_orphan"),
        ({"penstock": {"approval": True}}, "penstock.approval"),
    ],
)
def test_what_is_malformed_is_named_without_its_content(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestRefused) as raised:
        parse(body(**fields))
    problem = raised.value.problem
    assert (problem.status, problem.param) == (400, param)
    assert "robot" not in problem.message
    assert "weep" not in problem.message


names = st.sampled_from(
    [
        *("type", "text", "state", "toolCallId", "toolName", "input", "output", "approval", "id", "approved", "data"),
        *("providerMetadata", "callProviderMetadata", "penstock", "kind", "signature", "url", "mediaType", "filename"),
    ]
)
parts = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
kinds = st.sampled_from(
    [
        "text",
        "reasoning",
        "file",
        "step-start",
        "tool-add",
        "dynamic-tool",
        "data-penstock-blocks",
        "data-penstock-reset",
    ]
)
made_parts = st.builds(lambda kind, fields: {**fields, "type": kind}, kinds, st.dictionaries(names, parts, max_size=4))


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.lists(made_parts, max_size=5)), max_size=4))
def test_any_messages_are_a_conversation_or_refused(given: list[Any]) -> None:
    messages = [{"role": role, "parts": list(found)} for role, found in given]
    try:
        asked = parse(body(messages=[HI, *messages]))
        approvals(body(messages=messages))
    except RequestRefused:
        return
    for message in asked.input:
        assert set(message) <= {
            *("role", "content", "tool_calls", "tool_call_id", "refusal", "reasoning_blocks", "provider_blocks"),
            "is_error",
        }
    calls = [call["id"] for message in asked.input for call in message.get("tool_calls", ())]
    assert [message["tool_call_id"] for message in asked.input if message["role"] == "tool"] == calls


def test_the_messages_are_a_history_that_an_agent_takes() -> None:
    parts = ({"type": "step-start"}, call("output-available", output="1"), {"type": "step-start"})
    system, turns = read_turns(parse(body(*parts, {"type": "text", "text": "One."})).input)
    assert (system, len(turns)) == ([], 1)


def test_null_in_one_of_two_names_leaves_the_other() -> None:
    schema = {"type": "object"}
    asked = parse(body(tools={"now": {"parameters": None, "inputSchema": schema}}))
    assert asked.parameters["tools"][0]["function"]["parameters"] == schema
    part = call("output-error", input=None, rawInput="{bad", errorText="e")
    assert answer(part)[0]["tool_calls"][0]["function"]["arguments"] == "{bad"
    assert parse(body(messages=[{"id": "1", "role": "user", "parts": None, "content": "Hi"}])).input == [ASKED]


def test_parameters_that_are_null_or_need_tools_do_not_go_on() -> None:
    absent: dict[str, Any] = {"provider": None, "stream": None, "seed": None}
    nothing: tuple[Any, ...] = (None, [], {}, {"now": None})
    for tools in nothing:
        asked = parse(body(**absent, tools=tools, tool_choice="auto", parallel_tool_calls=True))
        assert (asked.provider, asked.parameters) == (None, {})
    assert parse(body(provider="")).parameters == {}
    asked = parse(body(tools={"now": {}}, tool_choice="auto"))
    assert asked.parameters.keys() == {"tools", "tool_choice"}
