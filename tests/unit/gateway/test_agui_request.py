"""What AG-UI's `RunAgentInput` asks for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.agent.history import NOT_RUN, read_turns
from penstock.gateway.problems import RequestRefused
from penstock.gateway.requests.agui import approvals, parse
from penstock.gateway.requests.approvals import Approval

EMPTY: tuple[Any, ...] = ({}, [], 0, False)
"""Empty values that are no texts."""
HI: dict[str, Any] = {"id": "u1", "role": "user", "content": "Hi"}
ASKED = {"role": "user", "content": "Hi"}


def body(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    base = {"threadId": "t-1", "runId": "r-1", "messages": [HI, *messages], "forwardedProps": {"model": "m"}}
    return base | fields


def said(*messages: dict[str, Any]) -> list[Any]:
    """The messages after the user's first."""
    made: list[Any] = parse(body(*messages)).input
    assert made[0] == ASKED
    return made[1:]


def assistant(content: str | None = None, *calls: str, **fields: Any) -> dict[str, Any]:
    made = [{"id": name, "type": "function", "function": {"name": "add", "arguments": "{}"}} for name in calls]
    message = {"id": "a1", "role": "assistant", **fields}
    return message | ({} if content is None else {"content": content}) | ({"toolCalls": made} if made else {})


def result(call_id: str, content: Any = "1", **fields: Any) -> dict[str, Any]:
    return {"id": "x", "role": "tool", "toolCallId": call_id, "content": content, **fields}


def call(name: str) -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": "add", "arguments": "{}"}}


def test_ids_and_state_are_metadata_and_parameters_the_models() -> None:
    props = {"model": "m", "provider": "groq", "temperature": 0.5, "theme": "dark", "penstock": {"stream_id": "s"}}
    asked = parse(body(forwardedProps=props, state={"n": 1}, parentRunId="r-0", protocolVersion="1.0"))
    assert (asked.model, asked.provider, asked.stream_id) == ("m", "groq", "s")
    assert asked.parameters == {"temperature": 0.5}
    assert asked.metadata == {
        "thread_id": "t-1",
        "run_id": "r-1",
        "parent_run_id": "r-0",
        "state": {"n": 1},
        "forwarded_props": {"theme": "dark"},
    }


def test_what_is_forwarded_may_be_any_value() -> None:
    asked = parse(body(forwardedProps=[1]), default_model="d")
    assert (asked.model, asked.metadata["forwarded_props"]) == ("d", [1])
    assert "forwarded_props" not in parse(body()).metadata
    with pytest.raises(RequestRefused):
        parse(body(forwardedProps=None))


@pytest.mark.parametrize("version", ["1.0", "1.7", None])
def test_versions_that_are_spoken(version: str | None) -> None:
    assert parse(body(protocolVersion=version)).model == "m"


def test_another_version_is_refused() -> None:
    with pytest.raises(RequestRefused) as raised:
        parse(body(protocolVersion="2.0"))
    assert (raised.value.problem.code, raised.value.problem.param) == ("protocol_version", "protocolVersion")


def test_tools_and_context() -> None:
    tool = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}, "metadata": {"x": 1}}
    context = [{"description": "Page", "value": "/home"}, {"description": "", "value": "Dark."}]
    system = {"id": "s", "role": "system", "content": "Be brief."}
    asked = parse(body(messages=[system, HI], tools=[tool], context=context))
    assert asked.input == [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "Page: /home\nDark."},
        ASKED,
    ]
    function = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}
    assert asked.parameters["tools"] == [{"type": "function", "function": function}]
    assert "tools" not in parse(body(tools=[], context=[])).parameters


def test_messages_of_all_roles() -> None:
    messages = [
        {"id": "d", "role": "developer", "content": "Be brief.", "name": "dev"},
        HI,
        {"id": "r", "role": "reasoning", "content": "Hm."},
        assistant("Let me see.", "c1", name="bot"),
        result("c1"),
        {"id": "p", "role": "activity", "activityType": "tool", "content": {}},
        assistant("One."),
    ]
    assert parse(body(messages=messages)).input == [
        {"role": "developer", "name": "dev", "content": "Be brief."},
        ASKED,
        {"role": "assistant", "name": "bot", "content": "Let me see.", "tool_calls": [call("c1")]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "assistant", "content": "One."},
    ]


def test_an_answer_in_several_messages_is_one() -> None:
    refusal = assistant("No.", metadata={"kind": "refusal"})
    assert said(assistant("One "), assistant("two.", "c1"), refusal, result("c1")) == [
        {"role": "assistant", "content": "One two.", "tool_calls": [call("c1")], "refusal": "No."},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    ]


def test_signed_reasoning_goes_back() -> None:
    penstock = {"kind": "thinking", "provider": "anthropic", "id": "i"}
    thought = {
        "id": "r",
        "role": "reasoning",
        "content": "Hm.",
        "encryptedValue": "s",
        "metadata": {"penstock": penstock},
    }
    foreign = {"id": "r2", "role": "reasoning", "content": "So.", "encryptedValue": "e"}
    blocks = [{"provider": "p", "data": {"x": None}, "at": 0, "calls": 0}]
    made = said(thought, foreign, assistant("One.", metadata={"penstock": {"providerBlocks": blocks}}))
    assert made == [
        {
            "role": "assistant",
            "content": "One.",
            "reasoning_blocks": [
                {"kind": "thinking", "text": "Hm.", "signature": "s", "id": "i", "provider": "anthropic"},
                {"kind": "reasoning", "text": "So.", "signature": "e"},
            ],
            "provider_blocks": blocks,
        }
    ]


def test_signatures_and_kinds_of_calls() -> None:
    message = assistant(None, "c1", "c2")
    message["toolCalls"][0]["encryptedValue"] = "s"
    message["toolCalls"][1] |= {
        "metadata": {"penstock": {"type": "custom"}},
        "function": {"name": "py", "arguments": "1"},
    }
    assert said(message, result("c1"), result("c2"))[0]["tool_calls"] == [
        call("c1") | {"signature": "s"},
        {"id": "c2", "type": "custom", "custom": {"name": "py", "input": "1"}},
    ]


def test_calls_that_the_provider_ran_are_left_out_with_their_results() -> None:
    message = assistant("One.", "s1")
    message["toolCalls"][0]["metadata"] = {"server": True}
    assert said(message, result("s1")) == [{"role": "assistant", "content": "One."}]


def test_results_and_errors() -> None:
    broken = result("c2", "It broke.", metadata={"status": "error"})
    failed = result("c3", "", error="No such file.")
    many = result("c4", [{"type": "text", "text": "a"}])
    made = said(assistant(None, "c1", "c2", "c3", "c4"), result("c1"), broken, failed, many)
    assert made[1:] == [
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "content": "It broke.", "is_error": True},
        {"role": "tool", "tool_call_id": "c3", "content": "No such file.", "is_error": True},
        {"role": "tool", "tool_call_id": "c4", "content": [{"type": "text", "text": "a"}]},
    ]


def test_a_result_that_came_late_stands_after_its_call() -> None:
    made = said(assistant(None, "c1"), HI, result("c1"))
    assert [message["role"] for message in made] == ["assistant", "tool", "user"]


def test_calls_without_results_and_results_without_calls() -> None:
    assert said(assistant(None, "c1", "c2"), result("c2"), HI) == [
        {"role": "assistant", "content": None, "tool_calls": [call("c1"), call("c2")]},
        {"role": "tool", "tool_call_id": "c2", "content": "1"},
        {"role": "tool", "tool_call_id": "c1", "content": NOT_RUN},
        ASKED,
    ]
    asked = parse(body(result("lost")))
    assert (asked.input, asked.dropped) == ([ASKED], ("messages[1]",))


@pytest.mark.parametrize(
    ("part", "made"),
    [
        ({"type": "text", "text": "Hi"}, {"type": "text", "text": "Hi"}),
        (
            {"type": "image", "source": {"type": "data", "value": "QQ==", "mimeType": "image/gif"}},
            {"type": "image_url", "image_url": {"url": "data:image/gif;base64,QQ=="}},
        ),
        (
            {"type": "image", "source": {"type": "url", "value": "https://a.example"}},
            {"type": "image_url", "image_url": {"url": "https://a.example"}},
        ),
        (
            {"type": "document", "source": {"type": "data", "value": "QQ=="}, "metadata": {"filename": "a.pdf"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QQ=="}},
        ),
        (
            {"type": "document", "source": {"type": "file", "value": "file-1"}},
            {"type": "file", "file": {"file_id": "file-1"}},
        ),
        (
            {"type": "audio", "source": {"type": "data", "value": "QQ==", "mimeType": "audio/mpeg"}},
            {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "mp3"}},
        ),
        (
            {"type": "binary", "mimeType": "image/png", "data": "QQ=="},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}},
        ),
    ],
)
def test_parts_of_what_the_user_said(part: dict[str, Any], made: dict[str, Any]) -> None:
    assert parse(body(messages=[HI | {"content": [part]}])).input[0]["content"] == [made]


def test_parts_without_a_form_are_named() -> None:
    content = [{"type": "text", "text": "Hi"}, {"type": "hologram"}]
    assert parse(body(messages=[HI | {"content": content}])).dropped == ("messages[0].content[1]",)


@pytest.mark.parametrize(
    ("entry", "approval"),
    [
        ({"status": "resolved", "payload": {"approved": True}}, Approval(call_id="c", is_approved=True)),
        ({"status": "resolved", "payload": True}, Approval(call_id="c", is_approved=True)),
        ({"status": "resolved", "payload": False}, Approval(call_id="c", is_approved=False)),
        (
            {"status": "resolved", "payload": {"approved": False, "reason": "no"}},
            Approval(call_id="c", is_approved=False, reason="no"),
        ),
        ({"status": "resolved", "payload": {"approve": True}}, Approval(call_id="c", is_approved=True)),
        ({"status": "resolved", "payload": {"approve": False}}, Approval(call_id="c", is_approved=False)),
        (
            {"status": "resolved", "payload": {"approved": True, "approve": False}},
            Approval(call_id="c", is_approved=False),
        ),
        (
            {"status": "resolved", "payload": {"approved": None, "approve": False}},
            Approval(call_id="c", is_approved=False),
        ),
        ({"status": "cancelled"}, Approval(call_id="c", is_approved=False)),
        (
            {"status": "cancelled", "payload": {"reason": "Later."}},
            Approval(call_id="c", is_approved=False, reason="Later."),
        ),
    ],
)
def test_decisions(entry: dict[str, Any], approval: Approval) -> None:
    assert approvals(body(resume=[{"interruptId": "c", **entry}])) == (approval,)
    assert approvals(body()) == ()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"threadId": None}, "threadId"),
        ({"runId": 7}, "runId"),
        ({"messages": None}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [7]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            "messages[0].content[0].source.value",
        ),
        ({"messages": [{"role": "tool"}]}, "messages[0].toolCallId"),
        ({"messages": [{"role": "assistant", "toolCalls": [1]}]}, "messages[0].toolCalls[0]"),
        (
            {"messages": [{"role": "assistant", "toolCalls": [{"id": "x", "function": {"name": "f"}}]}]},
            "messages[0].toolCalls[0].function",
        ),
        ({"tools": [{"description": "x"}]}, "tools[0]"),
        ({"tools": {}}, "tools"),
        ({"forwardedProps": {"model": "m", "tools": 5}}, "forwardedProps.tools"),
        ({"messages": [assistant(None, "c1"), result("c1", toolCallId=[])]}, "messages[1].toolCallId"),
        ({"messages": [assistant(None, "c1"), result("c1", error=5)]}, "messages[1].error"),
        ({"context": ["x"]}, "context[0]"),
        *(({"context": [{"description": empty, "value": "x"}]}, "context[0].description") for empty in EMPTY),
        *(
            ({"messages": [{"role": "assistant", "content": empty}]}, "messages[0].content")
            for empty in EMPTY
            if empty != []
        ),
        *(
            ({"messages": [{"role": "assistant", "toolCalls": empty}]}, "messages[0].toolCalls")
            for empty in EMPTY
            if empty != []
        ),
        *(
            ({"messages": [{"role": "reasoning", "content": empty, "encryptedValue": "x"}]}, "messages[0].content")
            for empty in EMPTY
        ),
        *(
            (
                {"messages": [HI | {"content": [{"type": "image", "source": {"value": "x", "mimeType": empty}}]}]},
                "messages[0].content[0].source.mimeType",
            )
            for empty in EMPTY
        ),
        ({"forwardedProps": {"model": 1}}, "forwardedProps.model"),
        ({"forwardedProps": {"model": "m", "penstock": 1}}, "penstock"),
    ],
)
def test_what_is_malformed_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestRefused) as raised:
        parse(body(**fields))
    assert (raised.value.problem.status, raised.value.problem.param) == (400, param)


@pytest.mark.parametrize("absent", [None, "", []])
def test_an_assistant_that_only_calls_may_send_no_content_or_an_empty_one(absent: Any) -> None:
    assert said(assistant(None, "c1") | {"content": absent}, result("c1")) == [
        {"role": "assistant", "content": None, "tool_calls": [call("c1")]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    ]


@pytest.mark.parametrize("absent", [None, []])
def test_lists_may_be_empty_and_texts_absent(absent: Any) -> None:
    context = [{"description": "", "value": "x"}, {"description": None, "value": "y"}]
    asked = parse(body(assistant("Yes.", toolCalls=absent), tools=absent, context=context, resume=absent))
    assert asked.input == [
        {"role": "system", "content": "x\ny"},
        ASKED,
        {"role": "assistant", "content": "Yes."},
    ]
    assert asked.parameters == {}


def test_the_texts_of_an_assistants_parts_are_its_text() -> None:
    picture = {"type": "image", "source": {"type": "url", "value": "https://a.example"}}
    parts = [{"type": "text", "text": "One "}, picture, {"type": "hologram"}, {"type": "text", "text": "two."}]
    asked = parse(body({"id": "a1", "role": "assistant", "content": parts}))
    assert asked.input[1:] == [{"role": "assistant", "content": "One two."}]
    assert asked.dropped == ("messages[1].content[1]", "messages[1].content[2]")


@pytest.mark.parametrize(
    ("resume", "param"),
    [
        ("x", "resume"),
        ([{}], "resume[0].interruptId"),
        ([{"interruptId": "c", "status": "maybe"}], "resume[0].status"),
        ([{"interruptId": "c", "status": "resolved"}], "resume[0].payload"),
        ([{"interruptId": "c", "status": "resolved", "payload": None}], "resume[0].payload"),
        ([{"interruptId": "c", "status": "resolved", "payload": "no"}], "resume[0].payload"),
        ([{"interruptId": "c", "status": "resolved", "payload": 0}], "resume[0].payload"),
        ([{"interruptId": "c", "status": "resolved", "payload": []}], "resume[0].payload"),
        ([{"interruptId": "c", "status": "resolved", "payload": {}}], "resume[0].payload.approved"),
        ([{"interruptId": "c", "status": "resolved", "payload": {"approved": None}}], "resume[0].payload.approved"),
        ([{"interruptId": "c", "status": "resolved", "payload": {"approved": 0}}], "resume[0].payload.approved"),
        ([{"interruptId": "c", "status": "resolved", "payload": {"approved": "false"}}], "resume[0].payload.approved"),
        (
            [{"interruptId": "c", "status": "resolved", "payload": {"approved": True, "approve": "no"}}],
            "resume[0].payload.approve",
        ),
    ],
)
def test_malformed_decisions_are_named(resume: Any, param: str) -> None:
    with pytest.raises(RequestRefused) as raised:
        approvals(body(resume=resume))
    assert raised.value.problem.param == param


names = st.sampled_from(
    [
        *("role", "content", "toolCalls", "toolCallId", "id", "function", "name", "arguments", "metadata", "penstock"),
        *("kind", "encryptedValue", "type", "text", "source", "value", "mimeType", "error", "server", "status"),
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.sampled_from(["c1", "c2", "text", "data", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
calls_made = st.lists(
    st.builds(
        lambda name, fields: {"id": name, "function": {"name": "f", "arguments": "{}"}, **fields},
        st.sampled_from(["c1", "c2", "c3"]),
        st.dictionaries(st.just("metadata"), values, max_size=1),
    ),
    max_size=2,
)
any_message = st.builds(
    lambda role, fields, calls, call_id: {**fields, "role": role, "toolCalls": calls, "toolCallId": call_id},
    st.sampled_from(["user", "assistant", "tool", "reasoning", "activity", "system"]),
    st.dictionaries(names, values, max_size=4),
    calls_made,
    st.sampled_from(["c1", "c2", "c3"]),
)


@given(st.lists(any_message, max_size=6))
def test_any_messages_are_a_conversation_or_refused(messages: list[dict[str, Any]]) -> None:
    try:
        asked = parse(body(*messages))
    except RequestRefused:
        return
    waiting: list[str] = []
    for message in asked.input:
        if message["role"] == "tool":
            assert message["tool_call_id"] in waiting
            waiting = [name for name in waiting if name != message["tool_call_id"]]
        else:
            assert waiting == [], "each call has its result before the next message"
            waiting = [one["id"] for one in message.get("tool_calls", ())]
    assert waiting == []


def test_the_messages_are_a_history_that_an_agent_takes() -> None:
    asked = parse(body(assistant("Let me see.", "c1"), assistant(None, "c2"), result("c1"), result("c2"), HI))
    system, turns = read_turns(asked.input)
    assert (system, len(turns)) == ([], 2)


def test_null_in_one_of_two_names_leaves_the_other() -> None:
    part = {"type": "binary", "mimeType": "application/pdf", "data": "QQ==", "filename": "a.pdf", "metadata": {}}
    (made,) = parse(body(messages=[HI | {"content": [part]}])).input[0]["content"]
    assert made["file"]["filename"] == "a.pdf"
    metadata = {"penstock": {"kind": "thinking", "signature": None}}
    thought = {"id": "r", "role": "reasoning", "content": "Hm.", "encryptedValue": "s", "metadata": metadata}
    assert said(thought, assistant("One."))[0]["reasoning_blocks"] == [
        {"kind": "thinking", "text": "Hm.", "signature": "s"}
    ]


@pytest.mark.parametrize("status", ["ok", None])
def test_a_result_without_a_status_has_not_failed(status: str | None) -> None:
    assert "is_error" not in said(assistant(None, "c1"), result("c1", metadata={"status": status}))[1]
    assert said(assistant(None, "c1"), result("c1", metadata={"status": "denied"}))[1]["is_error"] is True


def test_parameters_that_are_null_or_need_tools_do_not_go_on() -> None:
    absent = {"model": "m", "provider": None, "stream": None, "seed": None, "tools": None}
    asked = parse(body(forwardedProps={**absent, "tool_choice": "auto", "parallel_tool_calls": True}))
    assert (asked.provider, asked.parameters) == (None, {})
    assert parse(body(forwardedProps={"model": "m", "provider": ""})).parameters == {}
    asked = parse(body(tools=[{"name": "f"}], forwardedProps={"model": "m", "tool_choice": "auto", "tools": None}))
    assert asked.parameters.keys() == {"tools", "tool_choice"}


@pytest.mark.parametrize(
    ("dialect", "made"),
    [
        ("openai-chat", {"type": "file", "file": {"file_id": "f1"}}),
        ("anthropic", {"type": "document", "source": {"type": "file", "file_id": "f1"}}),
        ("gemini", {"fileData": {"fileUri": "f1", "mimeType": "application/pdf"}}),
    ],
)
def test_a_file_that_the_provider_keeps_is_named_in_its_form(dialect: Any, made: dict[str, Any]) -> None:
    part = {"type": "document", "source": {"type": "file", "value": "f1"}}
    assert parse(body(messages=[HI | {"content": [part]}]), dialect).input[0]["content"] == [made]
