"""`ai` of four versions, without React: what a page would show of our UI message stream."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.gateway.requests.approvals import Approval
from tests.judges.conftest import Node
from tests.judges.scripted_gateway import ScriptedGateway

VERSIONS = [("ai50", "5.0"), ("ai5", "5"), ("ai6", "6"), ("ai", "7")]
PATIENCE_S = 30.0
THOUGHT = {"type": "thinking", "thinking": "Let me think."}

every_version = pytest.mark.parametrize(("package", "version"), VERSIONS, ids=[version for _, version in VERSIONS])
with_approvals = pytest.mark.parametrize(("package", "version"), VERSIONS[2:], ids=["6", "7"])


def chat(node: Node, base_url: str, package: str, version: str, *steps: dict[str, Any], **job: Any) -> dict[str, Any]:
    """Run the steps in one chat."""
    headers = {"x-penstock-ui": f"{version}{job.pop('variant', '')}"}  # a query would be cut off on `resume`
    job = {"api": f"{base_url}/v1/ui/chat", "headers": headers, "steps": list(steps), **job}
    return node.run("vercel.mjs", package, job=job)


def send(case: str, text: str = "Hi", **fields: Any) -> dict[str, Any]:
    return {"send": text, "body": {"model": case}, **fields}


def parts(seen: dict[str, Any], at: int = -1) -> list[tuple[Any, ...]]:
    """The parts of a message: each its type, and its text, or the state and outcome of its call."""
    found: list[tuple[Any, ...]] = []
    for part in seen["messages"][at]["parts"]:
        if part["type"] in ("text", "reasoning"):
            found.append((part["type"], part["text"]))
        elif "toolCallId" in part:
            found.append((part["type"], part["state"], part.get("output", part.get("errorText"))))
        else:
            found.append((part["type"],))
    return found


@every_version
def test_text_arrives_whole_with_heartbeats_between_its_pieces(
    node: Node, base_url: str, package: str, version: str
) -> None:
    seen = chat(node, base_url, package, version, send("text"))
    assert parts(seen) == [("step-start",), ("text", "Hello wörld\u2028!")]
    assert seen["messages"][-1]["metadata"]["usage"]["outputTokens"] == 7
    assert seen["messages"][-1]["parts"][-1]["state"] == "done"
    assert (seen["status"], seen["errors"]) == ("ready", [])


@every_version
def test_signed_reasoning_comes_back_with_the_next_message(
    node: Node, base_url: str, gateway: ScriptedGateway, package: str, version: str
) -> None:
    seen = chat(node, base_url, package, version, send("reasoning"), send("text", "And five?"))
    assert seen["errors"] == []
    assert parts(seen, 1)[1:4] == [("reasoning", "Let me think."), ("reasoning", ""), ("text", "Four.")]
    assert gateway.asked[1].input == [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": "Four.",
            "reasoning_blocks": [
                {"text": "Let me think.", "kind": "thinking", "signature": "c2ln", "provider": "anthropic"},
                {"text": "", "kind": "redacted_thinking", "signature": "cmVk", "provider": "anthropic"},
            ],
            "provider_blocks": [
                {
                    "provider": "anthropic",
                    "data": {"type": "thinking", "thinking": "Let me think."},
                    "at": 0,
                    "calls": 0,
                }
            ],
        },
        {"role": "user", "content": "And five?"},
    ]


@every_version
def test_tools_run_in_rounds_and_the_conversation_goes_on(
    node: Node, base_url: str, gateway: ScriptedGateway, package: str, version: str
) -> None:
    seen = chat(node, base_url, package, version, send("rounds"), send("text", "Thanks"))
    assert parts(seen, 1) == [
        ("step-start",),
        ("text", "Let me look."),
        ("tool-weather", "output-available", {"degrees": 3}),
        ("tool-add", "output-error", "TypeError: a is missing"),
        ("step-start",),
        ("tool-weather", "output-available", "warm"),
        ("step-start",),
        ("text", "Cold and warm."),
    ]
    assert seen["messages"][1]["parts"][2]["input"] == {"city": "Oslo"}
    first, second = gateway.asked[1].input[1], gateway.asked[1].input[4]
    assert [call["id"] for call in (*first["tool_calls"], *second["tool_calls"])] == ["call_0", "call_1", "call_0_2"]
    assert second["tool_calls"][0]["signature"] == "sig"
    assert gateway.asked[1].input[2:4] == [
        {"role": "tool", "tool_call_id": "call_0", "content": '{"degrees":3}'},
        {"role": "tool", "tool_call_id": "call_1", "content": "TypeError: a is missing", "is_error": True},
    ]
    assert gateway.asked[1].input[6] == {"role": "assistant", "content": "Cold and warm."}


@every_version
def test_dynamic_tools_need_no_component(node: Node, base_url: str, package: str, version: str) -> None:
    seen = chat(node, base_url, package, version, send("rounds"), variant="; dynamic=1")
    calls = [part for part in seen["messages"][1]["parts"] if "toolCallId" in part]
    assert [(part["type"], part["toolName"], part["state"]) for part in calls] == [
        ("dynamic-tool", "weather", "output-available"),
        ("dynamic-tool", "add", "output-error"),
        ("dynamic-tool", "weather", "output-available"),
    ]
    assert seen["errors"] == []


@every_version
def test_a_tool_of_the_page_is_answered_and_its_message_continues(
    node: Node, base_url: str, gateway: ScriptedGateway, package: str, version: str
) -> None:
    answer = {"output": {"colour": "red"}, "body": {"model": "text"}}
    seen = chat(node, base_url, package, version, send("pending"), answer)
    assert seen["toolCalls"] == ["call_9"]
    assert parts(seen) == [
        ("step-start",),
        ("text", "Which?"),
        ("tool-pick_colour", "output-available", {"colour": "red"}),
        ("step-start",),
        ("text", "Hello wörld\u2028!"),
    ]
    assert len(seen["messages"]) == 2, "the answer is one message"
    assert gateway.asked[1].input[-1] == {"role": "tool", "tool_call_id": "call_9", "content": '{"colour":"red"}'}


@every_version
def test_arguments_that_are_no_json_are_an_error_of_the_call(
    node: Node, base_url: str, package: str, version: str
) -> None:
    seen = chat(node, base_url, package, version, send("broken_arguments"))
    (_, call) = parts(seen)
    assert call[:2] == ("tool-add", "output-error")
    assert call[2].startswith("The arguments are not complete JSON")
    assert seen["status"] == "ready"


@every_version
def test_an_error_before_the_first_token_is_the_message_of_the_response(
    node: Node, base_url: str, package: str, version: str
) -> None:
    seen = chat(node, base_url, package, version, send("busy"))
    assert (seen["status"], seen["errors"]) == ("error", ["Slow down."])


@every_version
def test_an_error_after_the_first_token_keeps_the_text(node: Node, base_url: str, package: str, version: str) -> None:
    seen = chat(node, base_url, package, version, send("failed"))
    assert seen["status"] == "error"
    assert seen["errors"] == ["The provider's stream stopped before its end."]
    assert parts(seen) == [("step-start",), ("text", "Half an ans")], "undelivered text is not delivered by the end"


@every_version
def test_a_reader_of_the_bare_stream_is_told_of_the_error(
    node: Node, base_url: str, package: str, version: str
) -> None:
    seen = chat(node, base_url, package, version, {"read": "Hi", "body": {"model": "failed"}})
    assert seen["errors"] == ["The provider's stream stopped before its end."]
    assert seen["read"]["parts"][1]["text"] == "Half an ans"


@every_version
def test_a_cancelled_stream_ends_without_an_error(node: Node, base_url: str, package: str, version: str) -> None:
    seen = chat(node, base_url, package, version, send("cancelled"))
    assert parts(seen) == [("step-start",), ("text", "Half")]
    assert (seen["status"], seen["errors"]) == ("ready", [])


@every_version
def test_stop_is_a_disconnect(node: Node, base_url: str, gateway: ScriptedGateway, package: str, version: str) -> None:
    seen = chat(node, base_url, package, version, send("endless", stopAfter=8))
    assert gateway.left.wait(PATIENCE_S)
    assert seen["status"] == "ready"
    assert parts(seen)[1][1].startswith("And then")


@every_version
def test_text_before_a_reset_does_not_count(
    node: Node, base_url: str, gateway: ScriptedGateway, package: str, version: str
) -> None:
    seen = chat(node, base_url, package, version, send("reset"), send("text", "More"))
    assert seen["errors"] == []
    if version == "7":
        assert parts(seen, 1) == [("step-start",), ("text", "Good text.")]
    else:
        assert parts(seen, 1)[-2:] == [("data-penstock-reset",), ("text", "Good text.")]
        assert seen["messages"][1]["parts"][-2]["data"] == {"reason": "the provider broke off"}
    assert gateway.asked[1].input[1] == {"role": "assistant", "content": "Good text."}, "void text is not sent back"


@every_version
def test_a_reset_before_the_first_token_is_silent(node: Node, base_url: str, package: str, version: str) -> None:
    seen = chat(node, base_url, package, version, send("early_reset"))
    assert parts(seen) == [("step-start",), ("text", "Good.")]


@pytest.mark.parametrize(("package", "version"), VERSIONS[:3], ids=["5.0", "5", "6"])
def test_a_reset_can_be_an_error(node: Node, base_url: str, package: str, version: str) -> None:
    seen = chat(node, base_url, package, version, send("reset"), variant="; reset=error")
    assert (seen["status"], seen["errors"]) == ("error", ["The answer has begun again."])


@every_version
def test_sources_pictures_refusals_and_tools_of_the_provider(
    node: Node, base_url: str, gateway: ScriptedGateway, package: str, version: str
) -> None:
    seen = chat(node, base_url, package, version, send("extras"), send("text", "More"))
    assert seen["errors"] == []
    answer = seen["messages"][1]["parts"]
    assert [part["type"] for part in answer] == [
        *("step-start", "tool-web_search", "text", "source-url", "source-document", "file", "text"),
        *("data-refusal", "data-penstock-blocks"),
    ]
    assert answer[1]["providerExecuted"] is True
    assert (answer[3]["url"], answer[3]["title"]) == ("https://a.example", "A")
    assert answer[5]["url"] == "data:image/png;base64,QUJD"
    assert gateway.asked[1].input[1] == {
        "role": "assistant",
        "content": "One.",
        "refusal": "No.",
        "provider_blocks": [
            {
                "provider": "anthropic",
                "data": {"type": "web_search_tool_result", "tool_use_id": "s1", "content": None},
                "at": 3,
                "calls": 0,
            }
        ],
    }


@with_approvals
@pytest.mark.parametrize(("case", "approve"), [("approval", True), ("denied", False)])
def test_an_approval_is_asked_for_and_its_decision_continues_the_answer(
    node: Node, base_url: str, gateway: ScriptedGateway, package: str, version: str, case: str, approve: bool
) -> None:
    decide = {"approve": approve, "reason": "too dangerous", "body": {"model": case}}
    seen = chat(node, base_url, package, version, send(case), decide)
    decision = Approval(call_id="call_5", is_approved=approve, reason="too dangerous")
    assert gateway.approvals == [decision], "the chat has sent it by itself, when the answer had ended"
    outcome = ("tool-delete_file", "output-available", "deleted") if approve else ("tool-delete_file", "output-denied")
    said = "It is gone." if approve else "As you wish."
    assert [part[: len(outcome)] if part[0].startswith("tool-") else part for part in parts(seen)] == [
        *(("step-start",), outcome, ("step-start",), ("step-start",), ("text", said)),
    ]
    assert (seen["status"], seen["errors"], len(seen["messages"])) == ("ready", [], 2)


@pytest.mark.parametrize(("package", "version"), VERSIONS[:2], ids=["5.0", "5"])
def test_versions_without_approvals_show_the_request_and_wait(
    node: Node, base_url: str, package: str, version: str
) -> None:
    seen = chat(node, base_url, package, version, send("approval"))
    ask = next(part for part in seen["messages"][1]["parts"] if part["type"] == "data-penstock-approval")
    assert ask["data"] == {
        "approvalId": "call_5",
        "toolCallId": "call_5",
        "toolName": "delete_file",
        "input": {"name": "a.txt"},
    }
    assert parts(seen)[-1] == ("text", "It is gone.")


@every_version
def test_resuming_replays_the_answer_from_its_start(
    node: Node, base_url: str, gateway: ScriptedGateway, package: str, version: str
) -> None:
    gateway.chats["chat-7"] = "rounds"
    asked = [{"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]
    seen = chat(node, base_url, package, version, {"resume": True}, chatId="chat-7", messages=asked)
    assert parts(seen)[-1] == ("text", "Cold and warm.")
    assert [message["role"] for message in seen["messages"]] == ["user", "assistant"]
    assert seen["status"] == "ready"


@every_version
def test_there_is_nothing_to_resume_after_the_end(node: Node, base_url: str, package: str, version: str) -> None:
    seen = chat(node, base_url, package, version, send("text"), {"resume": True})
    assert (seen["statuses"], seen["errors"]) == (["ready", "ready"], [])
    assert parts(seen) == [("step-start",), ("text", "Hello wörld\u2028!")]


@every_version
def test_an_answer_is_made_anew(
    node: Node, base_url: str, gateway: ScriptedGateway, package: str, version: str
) -> None:
    again = {"regenerate": True, "body": {"model": "early_reset"}}
    seen = chat(node, base_url, package, version, send("text"), again)
    assert [message["role"] for message in seen["messages"]] == ["user", "assistant"]
    assert parts(seen) == [("step-start",), ("text", "Good.")]
    assert gateway.asked[1].metadata["trigger"] == "regenerate-message"
    assert gateway.asked[1].input == [{"role": "user", "content": "Hi"}]


@every_version
def test_files_of_the_user_arrive(
    node: Node, base_url: str, gateway: ScriptedGateway, package: str, version: str
) -> None:
    picture = {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,QUJD", "filename": "a.png"}
    chat(node, base_url, package, version, send("text", files=[picture]))
    assert gateway.asked[0].input[0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        {"type": "text", "text": "Hi"},
    ]
