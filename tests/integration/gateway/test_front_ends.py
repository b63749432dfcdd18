"""Vercel's UI protocol and AG-UI over the gateway's routes: chats, runs, joining, stopping, approvals of an agent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import penstock
from penstock.adapters.loopback.faults import Status
from penstock.adapters.loopback.script import Answer, Script, ScriptedCall
from penstock.testing import eventually
from tests.integration.gateway.serving import Served, events_of, gateway

WORDS = "one two three four five six seven eight"


@pytest.fixture
def server() -> Iterator[Served]:
    models: Any = {
        "endless": Answer(tokens=("word ",), repeat=100_000, pace=0.01),
        "busy": Status(429, message="slow down"),
    }
    with gateway(Script(Answer(WORDS, pace=0.003), models=models), heartbeat=0.05, linger=2.0) as client:
        yield client


def ui(text: str = "Hi", chat: str = "chat-1", **more: Any) -> dict[str, Any]:
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"id": chat, "messages": [message], "trigger": "submit-message", "model": "m", **more}


def run(text: str = "Hi", run_id: str = "run-1", model: str = "m", **more: Any) -> dict[str, Any]:
    messages = [{"id": "u1", "role": "user", "content": text}]
    properties = {"model": model}
    return {"threadId": "t1", "runId": run_id, "messages": messages, "forwardedProps": properties, **more}


def chunks(text: str) -> list[Any]:
    return [data for _, _, data in events_of(text)]


def said(found: list[Any], kind: str = "text-delta") -> str:
    return "".join(one["delta"] for one in found if isinstance(one, dict) and one["type"] == kind)


def test_a_chat_of_vercels_ui(server: Served) -> None:
    answer = server.post("/v1/ui/chat", ui())
    assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
    found = chunks(answer.text)
    assert said(found) == WORDS
    assert [found[0]["type"], found[-2]["type"], found[-1]] == ["start", "finish", "[DONE]"]
    assert server.get("/v1/ui/chat/chat-1/stream").status_code == 204
    assert server.get("/v1/ui/chat/nope/stream").status_code == 204


def test_a_chat_is_joined_from_its_start_and_stopped(server: Served) -> None:
    with server.post("/v1/ui/chat", ui(model="endless"), stream=True) as answer:
        pieces = answer.iter_content(None)
        while b"text-delta" not in next(pieces):
            pass
        with server.get("/v1/ui/chat/chat-1/stream", stream=True) as joined:
            body = b""
            rest = joined.iter_content(None)
            while b"text-delta" not in body:
                body += next(rest)
            assert chunks(body.decode())[0]["type"] == "start"
        assert server.post("/v1/ui/chat/chat-1/stop").status_code == 204
        end = chunks(b"".join(pieces).decode())
        assert [end[-2]["type"], end[-1]] == ["abort", "[DONE]"]


def test_a_chats_error_before_the_first_token_is_text(server: Served) -> None:
    answer = server.post("/v1/ui/chat", ui(model="busy"))
    assert answer.status_code == 429
    assert answer.headers["content-type"].startswith("text/plain")
    assert "slow down" in answer.text
    assert server.post("/v1/ui/chat?v=4", ui()).status_code == 400


def test_a_run_of_ag_ui(server: Served) -> None:
    found = chunks(server.post("/v1/agui", run()).text)
    assert said(found, "TEXT_MESSAGE_CONTENT") == WORDS
    assert [found[0]["type"], found[-1]["type"]] == ["RUN_STARTED", "RUN_FINISHED"]
    assert (found[0]["threadId"], found[0]["runId"]) == ("t1", "run-1")
    joined = chunks(server.get("/v1/agui/run-1/events?after=1").text)
    assert joined[0]["type"] == "RUN_STARTED"
    snapshot = next(one for one in joined if one["type"] == "MESSAGES_SNAPSHOT")
    assert [message["role"] for message in snapshot["messages"]] == ["user", "assistant"]
    assert server.get("/v1/agui/nope/events").status_code == 404


@pytest.mark.parametrize("path", ["/v1/ui/chat", "/v1/agui"])
def test_a_front_end_that_leaves_lets_the_stream_linger(server: Served, path: str) -> None:
    body = ui(model="endless") if "ui/chat" in path else run(model="endless")
    with server.post(path, body, stream=True) as answer:
        stream_id = answer.headers["x-penstock-stream-id"]
        pieces = answer.iter_content(None)
        assert next(pieces)
    assert not server.system.stream(stream_id).is_over
    server.finish(stream_id)


@pytest.fixture
def asking() -> Iterator[Served]:
    """A gateway with an agent ``helper`` that has a tool which needs approval."""

    @penstock.tool(needs_approval=True)
    def delete(path: str) -> str:
        """Delete a file."""
        return f"deleted {path}"

    call = ScriptedCall("delete", '{"path": "/tmp/x"}', id="c1")
    script = Script([Answer("I will.", tool_calls=(call,)), Answer("Done.")])
    with gateway(script, heartbeat=0.05, linger=5.0) as client:
        client.gateway.templates["helper"] = {"model": "m", "provider": "openai", "tools": [delete]}
        yield client


def decided(found: list[Any], *, approved: bool) -> dict[str, Any]:
    """The next request of Vercel's chat, with the user's decision."""
    asked = next(one for one in found if isinstance(one, dict) and one["type"] == "tool-approval-request")
    part = {
        "type": "dynamic-tool",
        "toolName": "delete",
        "toolCallId": asked["toolCallId"],
        "state": "approval-responded",
        "input": {"path": "/tmp/x"},
        "approval": {"id": asked["approvalId"], "approved": approved},
    }
    body = ui(model="helper")
    answer = {"id": "a1", "role": "assistant", "parts": [{"type": "text", "text": "I will."}, part]}
    return {**body, "messages": [*body["messages"], answer]}


@pytest.mark.parametrize("approved", [True, False])
def test_an_agent_asks_the_user_of_vercels_ui(asking: Served, approved: bool) -> None:
    first = chunks(asking.post("/v1/ui/chat", ui(model="helper")).text)
    assert said(first) == "I will."
    second = chunks(asking.post("/v1/ui/chat", decided(first, approved=approved)).text)
    assert said(second) == "Done."
    kinds = [one["type"] for one in second if isinstance(one, dict)]
    assert ("tool-output-available" if approved else "tool-output-denied") in kinds


def test_an_agent_interrupts_a_run_of_ag_ui(asking: Served) -> None:
    first = chunks(asking.post("/v1/agui", run(model="helper")).text)
    (interrupt,) = first[-1]["outcome"]["interrupts"]
    resume = [{"interruptId": interrupt["id"], "status": "resolved", "payload": {"approved": True}}]
    second = chunks(asking.post("/v1/agui", run(run_id="run-2", model="helper", resume=resume)).text)
    assert second[0]["runId"] == "run-2"
    assert said(second, "TEXT_MESSAGE_CONTENT") == "Done."
    assert second[-1]["outcome"]["type"] == "success"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_a_protocol_that_cannot_ask_denies_at_once_unless_the_request_waits(asking: Served, path: str) -> None:
    messages = [{"role": "user", "content": "Delete it"}]
    body: dict[str, Any] = {"model": "helper", "max_tokens": 9, "stream": True}
    body |= {"input": "Delete it"} if path.endswith("responses") else {"messages": messages}
    assert "Done." in asking.post(path, body).text
    sent = asking.provider.requests[-1].body
    assert sent is not None
    assert "no way to ask" in str(sent["messages"][-1]["content"])


def test_a_request_that_waits_is_decided_by_the_native_route(asking: Served) -> None:
    messages = [{"role": "user", "content": "Delete it"}]
    body = {"model": "helper", "messages": messages, "stream": True, "penstock": {"approval": "wait"}}
    with asking.post("/v1/chat/completions", body, stream=True) as answer:
        stream_id = answer.headers["x-penstock-stream-id"]
        decide = f"/v1/streams/{stream_id}/approvals/c1"
        eventually(lambda: asking.post(decide, {"approve": True}).json()["waited"])
        text = b"".join(answer.iter_content(None)).decode()
    assert text.rstrip().endswith("[DONE]")
    sent = asking.provider.requests[-1].body
    assert sent is not None
    assert sent["messages"][-1]["content"] == "deleted /tmp/x"


@pytest.fixture
def asking_twice() -> Iterator[Served]:
    """The same, with two calls in one round."""

    @penstock.tool(needs_approval=True)
    def delete(path: str) -> str:
        """Delete a file."""
        return f"deleted {path}"

    calls = tuple(ScriptedCall("delete", f'{{"path": "{name}"}}', id=name) for name in ("c1", "c2"))
    with gateway(Script([Answer("I will.", tool_calls=calls), Answer("Done.")]), heartbeat=0.05, linger=5) as client:
        client.gateway.templates["helper"] = {"model": "m", "provider": "openai", "tools": [delete]}
        yield client


def interrupts(found: list[Any]) -> list[str]:
    return [one["id"] for one in found[-1].get("outcome", {}).get("interrupts", [])]


@pytest.mark.parametrize("order", [("c1", "c2"), ("c2", "c1")])
def test_a_run_asks_again_for_the_call_that_still_waits(asking_twice: Served, order: tuple[str, str]) -> None:
    server = asking_twice
    assert interrupts(chunks(server.post("/v1/agui", run(model="helper")).text)) == ["c1", "c2"]
    wrong = [{"interruptId": "nope", "status": "resolved", "payload": {"approved": True}}]
    refused = server.post("/v1/agui", run(run_id="run-x", model="helper", resume=wrong))
    assert (refused.status_code, refused.json()["code"]) == (409, "approval_not_waiting")
    for number, (name, left) in enumerate(zip(order, ([order[1]], []), strict=True)):
        resume = [{"interruptId": name, "status": "resolved", "payload": {"approved": True}}]
        found = chunks(server.post("/v1/agui", run(run_id=f"run-{number + 2}", model="helper", resume=resume)).text)
        assert (found[0]["type"], found[0]["runId"]) == ("RUN_STARTED", f"run-{number + 2}")
        assert interrupts(found) == left
    assert said(found, "TEXT_MESSAGE_CONTENT") == "Done."


@pytest.mark.parametrize("order", [("c1", "c2"), ("c2", "c1")])
def test_a_chat_ends_again_for_the_call_that_still_waits(asking_twice: Served, order: tuple[str, str]) -> None:
    server = asking_twice
    server.post("/v1/ui/chat", ui(model="helper"))
    refused = server.post("/v1/ui/chat", approving("nope"))
    assert refused.status_code == 409
    found = chunks(server.post("/v1/ui/chat", approving(order[0])).text)
    assert [found[0]["type"], found[-2]["type"], found[-1]] == ["start", "finish", "[DONE]"]
    assert said(found) == ""
    assert said(chunks(server.post("/v1/ui/chat", approving(order[1])).text)) == "Done."


def approving(name: str) -> dict[str, Any]:
    part = {
        "type": "dynamic-tool",
        "toolName": "delete",
        "toolCallId": name,
        "state": "approval-responded",
        "input": {},
        "approval": {"id": name, "approved": True},
    }
    body = ui(model="helper")
    return {**body, "messages": [*body["messages"], {"id": "a1", "role": "assistant", "parts": [part]}]}


def test_a_policy_that_is_set_while_the_user_is_asked_holds_afterwards(asking_twice: Served) -> None:
    server = asking_twice
    stream_id = server.post("/v1/ui/chat", ui(model="helper")).headers["x-penstock-stream-id"]
    channel = server.gateway.channels.get(stream_id)
    assert server.request("PATCH", f"/v1/streams/{stream_id}/options", json={"on_orphan": 7}).status_code == 200
    asks: Any = channel.record.on_orphan
    assert asks == "continue", "there is no reader while the user is asked"
    for name in ("c1", "c2"):
        server.post("/v1/ui/chat", approving(name))
    assert channel.record.on_orphan == 7
