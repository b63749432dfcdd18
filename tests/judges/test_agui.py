"""`@ag-ui/client`: what an application would have of our runs. Its warnings are faults of ours."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.gateway.requests.approvals import Approval
from tests.judges.cases import CASES
from tests.judges.conftest import Node
from tests.judges.scripted_gateway import ScriptedGateway


def run_all(node: Node, base_url: str, *runs: dict[str, Any], **job: Any) -> dict[str, Any]:
    """Run an agent several times on one thread."""
    seen = node.run("agui.mjs", job={"url": f"{base_url}/v1/agui", "threadId": "t-1", "runs": list(runs), **job})
    assert seen["warnings"] == []
    return seen


def run(case: str, run_id: str = "r-1", **fields: Any) -> dict[str, Any]:
    return {"runId": run_id, "say": "Hi", "forwardedProps": {"model": case}, **fields}


def said(seen: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The messages: each its role and content, and the ids of its calls."""
    found = []
    for message in seen["messages"]:
        ids = [call["id"] for call in message.get("toolCalls", ())]
        found.append((message["role"], message.get("content"), *([ids] if ids else [])))
    return found


def test_a_run_succeeds_and_says_what_it_used(node: Node, base_url: str) -> None:
    seen = run_all(node, base_url, run("text"))
    (first,) = seen["runs"]
    assert first["outcome"] == "success"
    assert first["started"]["protocolVersion"] == "1.0"
    assert (first["started"]["threadId"], first["started"]["runId"]) == ("t-1", "r-1")
    assert first["finished"]["usage"] == [
        {
            "provider": "openai",
            "model": "m-1",
            "inputTokens": 11,
            "outputTokens": 7,
            "totalTokens": 18,
            "reasoningTokens": 2,
            "cachedInputTokens": 0,
        }
    ]
    assert first["finished"]["timestamp"] == 1_790_000_000_300
    assert said(seen) == [("user", "Hi"), ("assistant", "Hello wörld\u2028!")]


def test_signed_reasoning_comes_back_with_the_next_run(node: Node, base_url: str, gateway: ScriptedGateway) -> None:
    seen = run_all(node, base_url, run("reasoning"), run("text", "r-2", say="And five?"))
    assert said(seen)[:4] == [("user", "Hi"), ("reasoning", "Let me think."), ("reasoning", ""), ("assistant", "Four.")]
    answer = gateway.asked[1].input[1]
    assert answer["reasoning_blocks"] == [
        {"kind": "thinking", "text": "Let me think.", "signature": "c2ln", "provider": "anthropic"},
        {"kind": "redacted_thinking", "text": "", "signature": "cmVk", "provider": "anthropic"},
    ]
    assert answer["provider_blocks"][0]["data"] == {"type": "thinking", "thinking": "Let me think."}


def test_tools_run_in_rounds_and_the_conversation_goes_on(node: Node, base_url: str, gateway: ScriptedGateway) -> None:
    seen = run_all(node, base_url, run("rounds"), run("rounds", "r-2"), run("text", "r-3"))
    assert said(seen)[1:8] == [
        ("assistant", "Let me look.", ["call_0", "call_1"]),
        ("tool", '{"degrees":3}'),
        ("tool", "TypeError: a is missing"),
        ("activity", {"toolCallId": "call_0", "toolName": "weather", "progress": {"percent": 50}}),
        ("assistant", None, ["call_0_2"]),
        ("tool", "warm"),
        ("assistant", "Cold and warm."),
    ]
    events = seen["runs"][0]["events"]
    assert events.count("STEP_STARTED") == events.count("STEP_FINISHED") == 3
    assert seen["runs"][0]["pendingToolCallIds"] == []
    assert said(seen)[9] == ("assistant", "Let me look.", ["call_0_3", "call_1_2"]), (
        "ids are not used twice in a thread"
    )
    asked = gateway.asked[2].input
    assert [message["role"] for message in asked] == [
        *("user", "assistant", "tool", "tool", "assistant", "tool", "assistant") * 2,
        "user",
    ]
    assert asked[3] == {
        "role": "tool",
        "tool_call_id": "call_1",
        "content": "TypeError: a is missing",
        "is_error": True,
    }
    assert asked[4]["tool_calls"][0]["signature"] == "sig"


def test_calls_for_the_application_are_named(node: Node, base_url: str, gateway: ScriptedGateway) -> None:
    tool = {"name": "pick_colour", "description": "Asks the user.", "parameters": {"type": "object"}}
    seen = run_all(node, base_url, run("pending", tools=[tool], context=[{"description": "Page", "value": "/home"}]))
    assert seen["runs"][0]["pendingToolCallIds"] == ["call_9"]
    assert gateway.asked[0].parameters["tools"] == [{"type": "function", "function": tool}]
    assert gateway.asked[0].input[0] == {"role": "system", "content": "Page: /home"}


@pytest.mark.parametrize(("case", "approved"), [("approval", True), ("denied", False)])
def test_an_approval_interrupts_the_run_and_the_next_one_continues(
    node: Node, base_url: str, gateway: ScriptedGateway, case: str, approved: bool
) -> None:
    decision = {"interruptId": "call_5", "status": "resolved", "payload": {"approved": approved}}
    resumed = run(case, "r-2", say=None, resume=[decision])
    seen = run_all(node, base_url, run(case), resumed)
    first, second = seen["runs"]
    assert first["outcome"] == "interrupt"
    assert [(one["id"], one["reason"], one["toolCallId"]) for one in first["pendingInterrupts"]] == [
        ("call_5", "tool_call", "call_5")
    ]
    assert gateway.approvals == [Approval(call_id="call_5", is_approved=approved)]
    assert (second["outcome"], second["started"]["runId"]) == ("success", "r-2")
    assert second["pendingInterrupts"] == []
    text = "deleted" if approved else "The user did not approve this call: too dangerous"
    (result,) = (message for message in seen["messages"] if message["role"] == "tool")
    assert result["toolCallId"] == "call_5"
    assert said(seen)[1:] == [
        ("assistant", None, ["call_5"]),
        ("tool", text),
        ("assistant", "It is gone." if approved else "As you wish."),
    ]


def test_a_reset_takes_the_void_text_back(node: Node, base_url: str) -> None:
    seen = run_all(node, base_url, run("text"), run("reset", "r-2"))
    second = seen["runs"][1]
    assert second["customs"] == [["penstock.reset", {"reason": "the provider broke off"}]]
    assert [pair for pair in said(seen) if pair[0] != "reasoning"] == [
        ("user", "Hi"),
        ("assistant", "Hello wörld\u2028!"),
        ("user", "Hi"),
        ("assistant", "Good text."),
    ]
    assert second["pendingToolCallIds"] == [], "the void call is not the application's to run"


def test_a_failure_is_an_error_and_keeps_the_text(node: Node, base_url: str) -> None:
    seen = run_all(node, base_url, run("failed"))
    assert seen["runs"][0]["error"] == {
        "message": "The provider's stream stopped before its end.",
        "code": "stream_interrupted",
    }
    assert "outcome" not in seen["runs"][0]
    assert said(seen) == [("user", "Hi"), ("assistant", "Half an ans")]


def test_an_error_before_the_first_event_is_a_response(node: Node, base_url: str) -> None:
    (first,) = run_all(node, base_url, run("busy"))["runs"]
    assert first["status"] == 429
    assert '"message":"Slow down."' in first["threw"].replace(" ", "").replace("Slowdown", "Slow down")


def test_a_cancelled_run_is_no_success(node: Node, base_url: str) -> None:
    seen = run_all(node, base_url, run("cancelled"))
    assert seen["runs"][0]["outcome"] == "cancelled"
    assert said(seen) == [("user", "Hi"), ("assistant", "Half")]


def test_aborting_is_a_disconnect(node: Node, base_url: str, gateway: ScriptedGateway) -> None:
    (first,) = run_all(node, base_url, run("endless", abortAfter=3))["runs"]
    assert gateway.left.wait(30)
    assert first["events"][:3] == ["RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"]


def test_broken_arguments_have_a_result_that_says_so(node: Node, base_url: str) -> None:
    seen = run_all(node, base_url, run("broken_arguments"))
    assert seen["runs"][0]["pendingToolCallIds"] == []
    assert said(seen)[-1][1].startswith("The arguments are not complete JSON")


def test_sources_pictures_refusals_and_tools_of_the_provider(
    node: Node, base_url: str, gateway: ScriptedGateway
) -> None:
    seen = run_all(node, base_url, run("extras"), run("text", "r-2"))
    names = [name for name, _ in seen["runs"][0]["customs"]]
    assert names == ["penstock.citation", "penstock.citation", "penstock.media"]
    assert seen["runs"][0]["pendingToolCallIds"] == []
    answer = gateway.asked[1].input[1]
    assert (answer["content"], answer["refusal"]) == ("One.", "No.")
    assert "tool_calls" not in answer, "the provider ran it; it is among the provider's blocks"
    assert answer["provider_blocks"][0]["data"]["content"] is None, "as the provider sent it"


@pytest.mark.parametrize("case", ["text", "reasoning", "rounds", "reset", "broken_arguments", "failed", "extras"])
def test_a_reader_that_joins_again_at_any_event_has_the_same_messages(
    node: Node, base_url: str, gateway: ScriptedGateway, case: str
) -> None:
    whole = run_all(node, base_url, run(case))
    for joins_after in range(1, len(CASES[case]()) + 1):
        gateway.joins_after = joins_after
        again = {"runId": "r-1", "get": f"{base_url}/v1/agui/r-1/events?case={case}"}
        seen = run_all(node, base_url, again, messages=whole["messages"][:1])
        first = seen["runs"][0]
        assert "threw" not in first, (joins_after, first["threw"])
        assert (first.get("outcome"), first.get("error")) == (
            whole["runs"][0].get("outcome"),
            whole["runs"][0].get("error"),
        )
        without_activity = [one for one in whole["messages"] if one["role"] != "activity"]
        if case == "reset":
            without_activity = [one for one in without_activity if one["role"] != "reasoning"]
            seen["messages"] = [one for one in seen["messages"] if one["role"] != "reasoning"]
        assert [one for one in seen["messages"] if one["role"] != "activity"] == without_activity, joins_after
