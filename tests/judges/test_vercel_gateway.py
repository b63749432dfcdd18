"""`ai` of four versions, without React, against the real gateway."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.gateway.serving import Served
from tests.judges.conftest import Node
from tests.judges.marks import thorough
from tests.judges.real_gateway import COUNT, EVERY_TOKEN, FLOOD_TEXT, RESTART, WORDS, nothing_runs
from tests.judges.test_vercel import VERSIONS, chat, every_version, parts, send, with_approvals


def asked(model: str, **more: Any) -> dict[str, Any]:
    return send(model, body={"model": model, "penstock": {"options": EVERY_TOKEN, **more}})


@every_version
def test_text_and_reasoning(node: Node, served: Served, package: str, version: str) -> None:
    seen = chat(node, served.url, package, version, send("m"), send("thinks"))
    assert (seen["status"], seen["errors"]) == ("ready", [])
    assert parts(seen, 1) == [("step-start",), ("text", WORDS)]
    assert parts(seen, 3) == [("step-start",), ("reasoning", "2 + 2 is"), ("text", "Four.")]
    assert seen["messages"][1]["metadata"]["usage"]["outputTokens"] == 8
    sent = served.provider.requests[-1].body
    assert sent is not None
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]


@every_version
def test_the_servers_agent_runs_its_tools_in_rounds(node: Node, served: Served, package: str, version: str) -> None:
    seen = chat(node, served.url, package, version, send("helper"), send("m", "Thanks"))
    assert seen["errors"] == []
    found = [part for part in parts(seen, 1) if part != ("step-start",)]
    assert found[:2] == [("text", "Looking."), ("tool-weather", "output-available", {"city": "Oslo", "degrees": 3})]
    assert found[2][:2] == ("tool-add", "output-error")
    assert found[3:] == [
        ("tool-weather", "output-available", {"city": "Rome", "degrees": 3}),
        ("text", "Cold and warm."),
    ]
    assert parts(seen)[-1] == ("text", WORDS)


@with_approvals
@pytest.mark.parametrize("approve", [True, False])
def test_the_user_is_asked_and_the_answer_goes_on(
    node: Node, served: Served, package: str, version: str, approve: bool
) -> None:
    decide = {"approve": approve, "reason": "too dangerous", "body": {"model": "careful"}}
    seen = chat(node, served.url, package, version, send("careful"), decide)
    assert (seen["status"], seen["errors"], len(seen["messages"])) == ("ready", [], 2)
    (called,) = [part for part in parts(seen) if part[0] == "tool-delete"]
    assert called[1] == ("output-available" if approve else "output-denied")
    assert parts(seen)[-1] == ("text", "Done.")
    sent = served.provider.requests[-1].body
    assert sent is not None
    assert ("deleted a.txt" in str(sent["messages"][-1])) is approve


@every_version
def test_an_error_before_the_first_token(node: Node, served: Served, package: str, version: str) -> None:
    seen = chat(node, served.url, package, version, send("busy"))
    assert seen["status"] == "error"
    assert "slow down" in seen["errors"][0]


@every_version
@pytest.mark.parametrize("model", ["cut", "breaks"])
def test_an_error_after_the_first_token(node: Node, served: Served, package: str, version: str, model: str) -> None:
    seen = chat(node, served.url, package, version, send(model))
    assert (seen["status"], len(seen["errors"])) == ("error", 1)
    ((_, said),) = parts(seen)[1:]
    assert said
    assert WORDS.startswith(said)


@every_version
def test_stop_of_the_page_lets_the_stream_end_after_a_while(
    node: Node, served: Served, package: str, version: str
) -> None:
    seen = chat(node, served.url, package, version, send("endless", stopAfter=15))
    assert seen["status"] == "ready"
    assert parts(seen)[1][1].startswith("word word ")
    nothing_runs(served)
    served.provider.wait_for(lambda counts: counts.client_disconnects == 1)


@every_version
def test_stop_of_the_server_ends_the_answer_at_once(node: Node, served: Served, package: str, version: str) -> None:
    seen = chat(node, served.url, package, version, send("endless", stopServerAfter=15))
    assert (seen["status"], seen["errors"]) == ("ready", [])
    assert parts(seen)[1][1].startswith("word word ")
    nothing_runs(served)


@every_version
def test_a_page_that_is_loaded_again_gets_the_answer_from_its_start(
    node: Node, served: Served, package: str, version: str
) -> None:
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}
    body = {"id": "chat-7", "messages": [message], "model": "counts", "penstock": {"on_orphan": 30}}
    with served.post("/v1/ui/chat", body, stream=True) as first:
        pieces = first.iter_content(None)
        while b"n20 " not in next(pieces):
            pass
    again = {"resume": True}
    seen = chat(node, served.url, package, version, again, again, chatId="chat-7", messages=[message])
    assert parts(seen)[-1] == ("text", COUNT)
    assert (len(seen["messages"]), seen["statuses"], seen["errors"]) == (2, ["ready", "ready"], [])


@every_version
def test_text_before_a_reset_does_not_count(node: Node, served: Served, package: str, version: str) -> None:
    seen = chat(node, served.url, package, version, asked("resets", request_options=RESTART))
    assert seen["errors"] == []
    found = parts(seen)
    assert found[-1] == ("text", "Good text.")
    if version == "7":
        assert found == [("step-start",), ("text", "Good text.")]
    else:
        assert found[-2] == ("data-penstock-reset",)


@thorough
@every_version
def test_a_page_that_stops_reading_gets_the_rest(node: Node, served: Served, package: str, version: str) -> None:
    seen = chat(node, served.url, package, version, asked("floods"), slow=50_000, base=served.url)
    assert (seen["status"], seen["errors"]) == ("ready", [])
    assert "".join(part["text"] for part in seen["messages"][-1]["parts"][1:]) == FLOOD_TEXT


def test_every_version_is_tried() -> None:
    assert [version for _, version in VERSIONS] == ["5.0", "5", "6", "7"]
