"""`@ag-ui/client` against the real gateway. Its warnings are faults of ours."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.gateway.serving import Served
from tests.judges.conftest import Node
from tests.judges.marks import thorough
from tests.judges.real_gateway import COUNT, EVERY_TOKEN, FLOOD_TEXT, RESTART, WORDS, nothing_runs
from tests.judges.test_agui import run, run_all, said


def asked(model: str, run_id: str = "r-1", *, own: dict[str, Any], **fields: Any) -> dict[str, Any]:
    properties = {"model": model, "penstock": {"options": EVERY_TOKEN, **own}}
    return run(model, run_id, **{"forwardedProps": properties, **fields})


def test_text_reasoning_and_the_conversation(node: Node, served: Served) -> None:
    seen = run_all(node, served.url, run("thinks"), run("m", "r-2", say="And?"))
    assert [one["outcome"] for one in seen["runs"]] == ["success", "success"]
    assert said(seen) == [
        ("user", "Hi"),
        ("reasoning", "2 + 2 is"),
        ("assistant", "Four."),
        ("user", "And?"),
        ("assistant", WORDS),
    ]
    assert seen["runs"][1]["finished"]["usage"][0]["outputTokens"] == 8
    sent = served.provider.requests[-1].body
    assert sent is not None
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]


def test_the_servers_agent_runs_its_tools_in_rounds(node: Node, served: Served) -> None:
    seen = run_all(node, served.url, run("helper"))
    (first,) = seen["runs"]
    assert (first["outcome"], first["pendingToolCallIds"]) == ("success", [])
    found = said(seen)
    assert found[1] == ("assistant", "Looking.", ["c1", "c2"])
    assert [role for role, *_ in found] == ["user", "assistant", "tool", "tool", "assistant", "tool", "assistant"]
    assert "degrees" in found[2][1]
    assert found[-1] == ("assistant", "Cold and warm.")


def test_calls_for_the_application_are_named(node: Node, served: Served) -> None:
    tool = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}
    seen = run_all(node, served.url, run("calls", tools=[tool]))
    assert seen["runs"][0]["pendingToolCallIds"] == ["c1"]


@pytest.mark.parametrize("approved", [True, False])
def test_an_approval_interrupts_the_run_and_the_next_one_continues(node: Node, served: Served, approved: bool) -> None:
    decision = {"interruptId": "c5", "status": "resolved", "payload": {"approved": approved}}
    resumed = run("careful", "r-2", say=None, resume=[decision])
    seen = run_all(node, served.url, run("careful"), resumed)
    first, second = seen["runs"]
    assert first["outcome"] == "interrupt"
    assert [(one["id"], one["toolCallId"]) for one in first["pendingInterrupts"]] == [("c5", "c5")]
    assert (second["outcome"], second["started"]["runId"], second["pendingInterrupts"]) == ("success", "r-2", [])
    assert said(seen)[-1] == ("assistant", "Done.")
    (result,) = [content for role, content, *_ in said(seen) if role == "tool"]
    assert (result == "deleted a.txt") is approved


def test_an_error_before_the_first_event_is_a_response(node: Node, served: Served) -> None:
    (first,) = run_all(node, served.url, run("busy"))["runs"]
    assert first["status"] == 429
    assert "slow down" in first["threw"]


@pytest.mark.parametrize("model", ["cut", "breaks"])
def test_a_failure_is_an_error_and_keeps_the_text(node: Node, served: Served, model: str) -> None:
    seen = run_all(node, served.url, run(model))
    (first,) = seen["runs"]
    assert first["error"]["message"]
    assert "outcome" not in first
    assert WORDS.startswith(said(seen)[-1][1])


def test_a_reset_takes_the_void_text_back(node: Node, served: Served) -> None:
    seen = run_all(node, served.url, run("m"), asked("resets", "r-2", own={"request_options": RESTART}))
    assert [name for name, _ in seen["runs"][1]["customs"]] == ["penstock.reset"]
    assert said(seen) == [("user", "Hi"), ("assistant", WORDS), ("user", "Hi"), ("assistant", "Good text.")]


def test_a_run_that_is_cancelled_is_no_success(node: Node, served: Served) -> None:
    seen = run_all(node, served.url, run("endless", cancelAfter=4))
    assert seen["runs"][0]["outcome"] == "cancelled"
    assert said(seen)[-1][1].startswith("word ")
    nothing_runs(served)


def test_a_client_that_aborts_lets_the_stream_end_after_a_while(node: Node, served: Served) -> None:
    (first,) = run_all(node, served.url, run("endless", abortAfter=4))["runs"]
    assert first["events"][:3] == ["RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"]
    nothing_runs(served)
    served.provider.wait_for(lambda counts: counts.client_disconnects == 1)


@pytest.mark.parametrize(("query", "second"), [("", "TEXT_MESSAGE_START"), ("?after=1", "MESSAGES_SNAPSHOT")])
def test_a_run_is_joined_from_its_start_or_where_it_is(node: Node, served: Served, query: str, second: str) -> None:
    messages = [{"id": "u1", "role": "user", "content": "Hi"}]
    body = {"threadId": "t-1", "runId": "r-1", "messages": messages}
    properties = {"model": "counts", "penstock": {"on_orphan": 30, "options": EVERY_TOKEN}}
    with served.post("/v1/agui", {**body, "forwardedProps": properties}, stream=True) as first:
        pieces = first.iter_content(None)
        while b"n20 " not in next(pieces):
            pass
    again = {"runId": "r-1", "get": f"{served.url}/v1/agui/r-1/events{query}"}
    seen = run_all(node, served.url, again, messages=messages)
    assert seen["runs"][0]["outcome"] == "success"
    assert seen["runs"][0]["events"][:2] == ["RUN_STARTED", second]
    assert said(seen) == [("user", "Hi"), ("assistant", COUNT)]


@thorough
def test_a_client_that_stops_reading_gets_the_rest(node: Node, served: Served) -> None:
    seen = run_all(node, served.url, asked("floods", own={}), slow=50_000, base=served.url)
    assert seen["runs"][0]["outcome"] == "success"
    assert said(seen)[-1] == ("assistant", FLOOD_TEXT)
