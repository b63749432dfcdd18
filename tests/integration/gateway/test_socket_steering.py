"""The native WebSocket's ``steer``: input for an answer under way, which ends, and the answer that follows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import penstock
from penstock.adapters.loopback.faults import ResetAfter
from penstock.adapters.loopback.script import Answer, Script, ScriptedCall
from penstock.gateway.channels import Channel
from penstock.gateway.keys import KeyFile, new_key
from penstock.gateway.problems import RequestRefused
from penstock.gateway.projections.steering import MOST_STEERS
from penstock.gateway.protocols import PROTOCOLS
from penstock.gateway.steering import steer
from penstock.gateway.trace import Trace
from penstock.testing import eventually
from tests.integration.gateway.serving import PATIENCE, Served, gateway
from tests.integration.gateway.test_socket import Peer, peer, start

ENDLESS = Answer(tokens=("word ",), repeat=100_000, pace=0.002)


@pytest.fixture
def server() -> Iterator[Served]:
    with gateway(Script([ENDLESS, Answer("Short.")], models={"endless": ENDLESS})) as client:
        yield client


def steered(one: Peer, sid: str, given: Any = "Shorter.", **more: Any) -> str:
    answer = one.ask(op="steer", sid=sid, input=given, **more)
    assert (answer.get("ok"), answer.get("steered")) == (True, sid), answer
    successor: str = answer["sid"]
    assert successor != sid
    return successor


def end_of(one: Peer, sid: str) -> dict[str, Any]:
    one.until(lambda: one.is_over(sid))
    return one.of(sid)[-1]


def said(server: Served, number: int = -1) -> list[tuple[str, Any]]:
    """What a request told the provider: the role and content of each message."""
    body = server.provider.requests[number].fields
    return [(message["role"], message["content"]) for message in body.get("messages") or body["input"]]


@pytest.mark.parametrize(
    "given",
    [
        "Shorter.",
        [{"role": "user", "content": "Shorter."}],
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Shorter."}]}],
    ],
)
def test_a_chat_ends_and_goes_on_with_the_input(server: Served, given: Any) -> None:
    with peer(server) as one:
        sid = start(one, parameters={"temperature": 0.5})
        one.until(lambda: one.text(sid))
        successor = steered(one, sid, given)
        end, last = end_of(one, sid), end_of(one, successor)
    assert (end["outcome"], end["reason"]) == ("cancelled", "steered")
    assert (last["outcome"], one.text(successor)) == ("completed", "Short.")
    first, answer, new = said(server)
    assert first == ("user", "Hi")
    assert answer == ("assistant", end["partial"])
    assert new in (("user", "Shorter."), ("user", [{"type": "text", "text": "Shorter."}]))
    assert server.provider.requests[-1].fields["temperature"] == 0.5


def test_an_input_of_the_responses_api_goes_on_too(server: Served) -> None:
    with peer(server) as one:
        sid = start(one, provider="openai-responses", messages=None, input="Hi")
        one.until(lambda: one.text(sid))
        assert end_of(one, steered(one, sid))["outcome"] == "completed"
    assert [role for role, _ in said(server)] == ["user", "assistant", "user"]


def test_a_stream_of_another_protocol_is_steered(server: Served) -> None:
    asked = {"model": "openai/m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    with server.post("/v1/chat/completions", asked, stream=True) as answer, peer(server) as one:
        sid = answer.headers["x-penstock-stream-id"]
        eventually(lambda: server.system.stream(sid).text)
        assert end_of(one, steered(one, sid))["outcome"] == "completed"
    assert said(server)[-1] == ("user", "Shorter.")


def test_inputs_that_come_while_the_answer_ends_go_into_the_same_successor(server: Served) -> None:
    with peer(server) as one:
        sid = start(one)
        one.until(lambda: one.text(sid))
        codes, successors = server.on_loop(all_at_once(server, sid, MOST_STEERS + 2))
        (successor,) = successors
        assert codes == ["too_many_pending_steers"] * 2
        assert one.ask(op="steer", sid=sid, input="Late.")["error"]["code"] == "stream_ended"
        assert one.ask(op="subscribe", sid=successor)["ok"]
        assert end_of(one, successor)["outcome"] == "completed"
    given = [content for role, content in said(server) if role == "user"]
    assert given == ["Hi", *(f"Input {number}." for number in range(MOST_STEERS))]


async def all_at_once(server: Served, sid: str, count: int) -> tuple[list[str], set[str]]:
    """Steer so many times before the stream can end; the codes of the refusals, and the streams that follow."""
    guard, channel = server.gateway.guard, server.gateway.channels.get(sid)
    call = SimpleNamespace(
        gateway=server.gateway,
        key=guard.authenticate({}, {}, is_needed=True),
        protocol=PROTOCOLS["socket"],
        trace=Trace("1" * 32, "2" * 16),
    )
    made = [steer(call, channel, f"Input {number}.") for number in range(count)]  # type: ignore[arg-type]
    found = await asyncio.gather(*made, return_exceptions=True)
    codes = [str(one.problem.code) for one in found if isinstance(one, RequestRefused)]
    return codes, {one.stream_id for one in found if isinstance(one, Channel)}


def test_two_inputs_of_one_socket_have_their_successor_read_once(server: Served) -> None:
    with peer(server) as one:
        sid = start(one)
        one.until(lambda: one.text(sid))
        for ref in ("a", "b"):
            one.send(ref=ref, op="steer", sid=sid, input="Shorter.")
        one.until(lambda: {"a", "b"} <= one.answers.keys())
        successor = one.answers["a"]["sid"]
        end_of(one, successor)
        assert one.ask(op="ping")["ok"]
        assert one.text(successor) == "Short."


def test_an_agents_turn_is_steered_and_its_history_has_it() -> None:
    call = Answer("", tool_calls=(ScriptedCall("add", '{"a": 1, "b": 2}', id="c1"),))
    script = Script([call, ENDLESS, Answer("It is 3."), ENDLESS, Answer("Both.")])

    @penstock.tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    with gateway(script) as server:
        server.gateway.tools["add"] = add
        agent = server.post("/v1/agents", {"model": "m", "provider": "openai", "tools": ["add"]}).json()["agent_id"]
        with peer(server) as one:
            sid = one.ask(op="stream_chat", agent=agent, message="1 + 2?")["sid"]
            one.until(lambda: one.text(sid))
            successor = steered(one, sid, "Only the number.")
            assert end_of(one, successor)["outcome"] == "completed"
            assert one.text(successor) == "It is 3."
            roles = [message["role"] for message in server.get(f"/v1/agents/{agent}").json()["history"]]
            assert roles == ["user", "assistant", "tool", "assistant", "user", "assistant"]
            assert [text for role, text in said(server) if role == "user"] == ["1 + 2?", "Only the number."]
            # A message without the beginning of an answer is not in the history: it goes along with the input.
            running = one.ask(op="stream_chat", agent=agent, message="Go on.")["sid"]
            one.until(lambda: one.text(running))
            waiting = one.ask(op="stream_chat", agent=agent, message="And then?")["sid"]
            last = steered(one, waiting, "Or not?")
            assert one.ask(op="cancel", sid=running)["ok"]
            assert end_of(one, last)["outcome"] == "completed"
        parts = [{"type": "text", "text": "And then?"}, {"type": "text", "text": "Or not?"}]
        assert said(server)[-1] == ("user", parts)


def test_a_turn_of_a_template_is_steered(server: Served) -> None:
    server.gateway.templates["poet"] = {"model": "m", "provider": "openai", "system_prompt": "Rhyme."}
    with peer(server) as one:
        sid = start(one, provider=None, model="poet")
        one.until(lambda: one.text(sid))
        assert end_of(one, steered(one, sid))["outcome"] == "completed"
    assert [role for role, _ in said(server)] == ["system", "user", "assistant", "user"]


def test_a_stream_that_cannot_be_steered_says_why(server: Served) -> None:
    hosts = server.system.chat("endless", "Hi", provider="openai", on_orphan="continue")
    with peer(server) as one:
        pushed = one.ask(op="start")["sid"]
        ended = start(one, model="endless")
        assert one.ask(op="cancel", sid=ended)["ok"]
        running = start(one, model="endless")
        one.until(lambda: one.text(running))
        wrong: list[tuple[str, Any, str]] = [
            (pushed, "x", "not_steerable"),
            (hosts.stream_id, "x", "not_steerable"),
            (ended, "x", "stream_ended"),
            ("nope", "x", "stream_not_found"),
            (running, "", "invalid_request"),
            (running, 7, "invalid_request"),
            (running, [], "invalid_request"),
            (running, [{"role": "assistant", "content": "x"}], "invalid_request"),
            (running, None, "invalid_request"),
        ]
        codes = [one.ask(op="steer", sid=sid, input=given)["error"]["code"] for sid, given, _ in wrong]
        assert codes == [code for _, _, code in wrong]
        assert one.ask(op="steer", sid=running, input="x", window=1)["error"]["param"] == "window"
        assert one.ask(op="pause", sid=running)["state"] == "paused"  # nothing of this has stopped it
    hosts.cancel()


def test_an_answer_goes_on_if_none_may_follow_because_the_server_shuts_down(server: Served) -> None:
    with peer(server) as one:
        sid = start(one, model="endless")
        server.gateway.is_draining = True
        assert one.ask(op="steer", sid=sid, input="x")["error"]["code"] == "draining"
        assert one.ask(op="pause", sid=sid)["state"] == "paused"


def test_an_agents_answer_goes_on_if_the_agent_is_not_known_any_more(server: Served) -> None:
    agent = server.post("/v1/agents", {"model": "endless", "provider": "openai"}).json()["agent_id"]
    with peer(server) as one:
        sid = one.ask(op="stream_chat", agent=agent, message="Hi")["sid"]
        hosted = server.gateway.agents.get(agent)
        assert hosted is not None
        server.gateway.agents.forget(hosted)
        assert one.ask(op="steer", sid=sid, input="x")["error"]["code"] == "agent_not_found"
        assert one.ask(op="pause", sid=sid)["state"] == "paused"


def test_an_answer_goes_on_if_the_key_has_as_many_streams_as_it_may(tmp_path: Path) -> None:
    (secret, key), (admins, admin) = new_key("a", streams=1), new_key("b", ["admin"], streams=1)
    KeyFile(str(tmp_path / "keys")).write([key, admin])
    script = Script([ENDLESS, ENDLESS, Answer("Short.")])
    with gateway(script, keys=str(tmp_path / "keys")) as server, as_key(server, secret) as one:
        with as_key(server, admins) as other:
            start(other)
            sid = start(one)
            one.until(lambda: one.text(sid))
            assert other.ask(op="steer", sid=sid, input="x")["error"]["code"] == "rate_limit_exceeded"
            assert one.ask(op="pause", sid=sid)["state"] == "paused"
        assert end_of(one, steered(one, sid))["outcome"] == "completed"  # in place of the one that ends


def as_key(server: Served, secret: str) -> AbstractContextManager[Peer]:
    return peer(server, additional_headers={"authorization": f"Bearer {secret}"})


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (
            Answer("Let me see", pace=0.02, tool_calls=(ScriptedCall("look", "{}", id="c1"),)),
            "waiting_for_required_input",
        ),
        (Answer("one two three", pace=0.02, faults=(ResetAfter(2),)), "successor_creation_failed"),
    ],
)
def test_an_answer_that_ended_by_itself_meanwhile_may_give_the_input_back(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, code: str
) -> None:
    def wait(stream: penstock.Stream, reason: str) -> None:
        stream._record.over.get(timeout=PATIENCE)

    with gateway(Script(answer)) as server, peer(server) as one:
        monkeypatch.setattr(penstock.Stream, "cancel", wait)
        sid = start(one)
        assert one.ask(op="steer", sid=sid, input="x")["error"]["code"] == code
        assert len(server.provider.requests) == 1
