"""npm's `openai` against the real gateway: chat completions and responses."""

from __future__ import annotations

from typing import Any

from tests.integration.gateway.serving import Served
from tests.judges.conftest import Node
from tests.judges.marks import thorough
from tests.judges.proxy import CuttingProxy
from tests.judges.real_gateway import (
    COUNT,
    EVERY_TOKEN,
    FLOOD,
    FLOOD_TEXT,
    HI,
    RESTART,
    WORDS,
    nothing_runs,
)


def run(node: Node, base: str, *steps: dict[str, Any], **job: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = node.run("openai.mjs", job={"base": base, "steps": list(steps), **job})["steps"]
    return found


def ask(model: str = "m", **more: Any) -> dict[str, Any]:
    own = {"provider": "openai", **more.pop("own", {})}
    return {"model": model, "messages": HI, "penstock": own, **more}


def respond(model: str = "m", **more: Any) -> dict[str, Any]:
    own = {"provider": "openai-responses", **more.pop("own", {})}
    return {"model": model, "input": "Hi", "penstock": own, **more}


def test_a_chat_is_streamed_helped_and_whole(node: Node, served: Served) -> None:
    usage = {"include_usage": True}
    steps: list[dict[str, Any]] = [{"chat": ask(stream_options=usage)}, {"chatHelper": ask()}, {"chatWhole": ask()}]
    streamed, helped, whole = run(node, served.url, *steps)
    assert (streamed["text"], streamed["finish"]) == (WORDS, "stop")
    assert streamed["usage"]["completion_tokens"] == 8
    assert "error" not in streamed
    for one in (helped, whole):
        assert one["choices"][0]["message"]["content"] == WORDS
        assert one["choices"][0]["finish_reason"] == "stop"


def test_reasoning_and_calls_of_a_chat(node: Node, served: Served) -> None:
    steps = [{"chat": ask("thinks")}, {"chat": ask("calls")}, {"chatHelper": ask("calls")}]
    thought, called, helped = run(node, served.url, *steps)
    assert (thought["reasoning"], thought["text"]) == ("2 + 2 is", "Four.")
    assert (called["text"], called["finish"]) == ("Looking.", "tool_calls")
    assert called["calls"] == [{"id": "c1", "name": "add", "arguments": '{"a": 1, "b": 2}'}]
    (call,) = helped["choices"][0]["message"]["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": '{"a": 1, "b": 2}'}


def test_the_servers_agent_runs_its_tools_behind_a_chat_and_a_response(node: Node, served: Served) -> None:
    agent = {"model": "helper", "input": "Hi"}
    chat, response = run(node, served.url, {"chat": ask("helper", own={})}, {"respond": agent})
    assert chat["text"].endswith("Cold and warm.")
    assert chat["finish"] == "stop", "nothing is left to the client"
    assert response["text"].endswith("Cold and warm.")
    assert response["types"][-1] == "response.completed"
    asked = [str(one.body["messages"]) for one in served.provider.requests if one.body is not None]
    assert "degrees" in asked[-1]


def test_a_call_that_needs_approval_is_denied_at_once(node: Node, served: Served) -> None:
    (chat,) = run(node, served.url, {"chat": ask("careful", own={})})
    assert chat["text"].endswith("Done.")
    sent = served.provider.requests[-1].body
    assert sent is not None
    assert "no way to ask" in str(sent["messages"][-1]["content"])


def test_errors_before_the_first_token_have_their_type(node: Node, served: Served) -> None:
    steps: list[dict[str, Any]] = [{"chat": ask("busy")}, {"chatWhole": ask("busy")}, {"respond": respond("busy")}]
    wrong = [{"chat": {"model": "m", "messages": 5}}]
    for one in run(node, served.url, *steps):
        error = one["error"]
        assert (error["kind"], error["status"], error["retryAfter"]) == ("RateLimitError", 429, "1")
        assert "slow down" in error["message"]
        assert error["requestId"]
    (refused,) = run(node, served.url, *wrong)
    assert (refused["error"]["kind"], refused["error"]["status"]) == ("BadRequestError", 400)


def test_errors_after_the_first_token_are_errors(node: Node, served: Served) -> None:
    for model in ("cut", "breaks"):
        chat, response = run(node, served.url, {"chat": ask(model)}, {"respond": respond(model)})
        assert chat["text"]
        assert WORDS.startswith(chat["text"])
        assert chat["error"]["code"]
        assert chat.get("finish") is None
        assert WORDS.startswith(response["text"])
        assert response["types"][-1] == "response.failed"
        assert response["response"]["error"]["message"]


def test_a_client_that_leaves_ends_the_providers_call(node: Node, served: Served) -> None:
    leave = {"abortAfter": 3}
    chat, response = run(node, served.url, {"chat": ask("endless"), **leave}, {"respond": respond("endless"), **leave})
    assert chat["text"].startswith("word ")
    assert response["types"][0] == "response.created"
    nothing_runs(served)
    served.provider.wait_for(lambda counts: counts.client_disconnects == 2)


def test_a_client_that_leaves_before_the_first_token_ends_the_call(node: Node, served: Served) -> None:
    (chat,) = run(node, served.url, {"chat": ask("late"), "abortUnread": True})
    assert chat["error"]["kind"] == "APIUserAbortError"
    nothing_runs(served)
    served.provider.wait_for(lambda counts: counts.client_disconnects == 1)


def test_a_response_is_streamed_and_helped(node: Node, served: Served) -> None:
    steps = [{"respond": respond()}, {"respondHelper": respond()}, {"respond": respond("thinks")}]
    streamed, helped, thought = run(node, served.url, *steps)
    assert streamed["text"] == WORDS
    assert streamed["types"][-1] == "response.completed"
    assert streamed["numbers"] == list(range(len(streamed["numbers"])))
    assert (helped["output_text"], helped["status"]) == (WORDS, "completed")
    assert (thought["reasoning"], thought["text"]) == ("2 + 2 is", "Four.")


def test_a_response_is_resumed_where_its_connection_was_cut(node: Node, served: Served) -> None:
    asked = respond("counts", background=True, own={"options": EVERY_TOKEN})
    with CuttingProxy(served.port, [b"n40 "]) as proxy:
        cut, rest, whole = run(node, proxy.url, {"respond": asked}, {"resume": True}, {"retrieve": True})
        assert proxy.cuts == 1
    assert cut["error"]
    assert 0 < len(cut["text"]) < len(COUNT)
    assert cut["text"] + rest["text"] == COUNT
    numbers = cut["numbers"] + rest["numbers"]
    assert numbers == sorted(set(numbers))
    assert whole["output_text"] == COUNT


def test_a_response_in_the_background_is_cancelled(node: Node, served: Served) -> None:
    asked = {"respond": respond("endless", background=True), "abortAfter": 5}
    left, cancelled = run(node, served.url, asked, {"cancel": True})
    assert left["types"][0] == "response.created"
    assert cancelled["status"] == "cancelled"
    nothing_runs(served)


def test_an_answer_that_begins_again_after_a_reset_is_never_mixed_up(node: Node, served: Served) -> None:
    own = {"request_options": RESTART, "options": EVERY_TOKEN}
    steps = [{"respond": respond("resets", own={**own, "provider": "openai"})}, {"chat": ask("resets", own=own)}]
    response, chat = run(node, served.url, *steps)
    assert response["types"][-1] == "response.completed"
    assert response["types"].count("response.output_item.added") == 2, "the void item is closed, and a new one begun"
    (item,) = response["response"]["output"]
    assert item["content"][0]["text"] == "Good text."
    assert chat["error"]["code"] == "stream_restarted", "a chat cannot take text back"
    assert "Good" not in chat["text"]


@thorough
def test_a_client_that_stops_reading_gets_the_rest_joined(node: Node, served: Served) -> None:
    own = {"options": EVERY_TOKEN}
    (chat,) = run(node, served.url, {"chat": ask("floods", own=own)}, slow=50_000)
    assert chat["text"] == FLOOD_TEXT
    assert (chat["finish"], chat["chunks"] < len(FLOOD)) == ("stop", True)
    asked = respond("floods", own={**own, "provider": "anthropic"})  # OpenAI's last event would be longer than allowed
    (response,) = run(node, served.url, {"respond": asked}, slow=50_000)
    assert response["text"] == FLOOD_TEXT
    assert response["deltas"] < len(FLOOD)
    assert response["types"][-1] == "response.completed"
