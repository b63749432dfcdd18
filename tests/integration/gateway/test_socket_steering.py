"""The native WebSocket's ``steer``: input for an answer under way, which ends, and the answer that follows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import penstock
from penstock.adapters.loopback.faults import ResetAfter
from penstock.adapters.loopback.script import Answer, Script, ScriptedCall
from penstock.errors import CallTimeout
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
    call, channel = call_in(server), server.gateway.channels.get(sid)
    made = [steer(call, channel, f"Input {number}.") for number in range(count)]
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
            eventually(lambda: len(server.provider.requests) == 2)  # the first two answers of the script are theirs
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


def call_in(server: Served) -> Any:
    """What a connection is to an operation, without one."""
    key = server.gateway.guard.authenticate({}, {}, is_needed=True)
    trace = Trace("1" * 32, "2" * 16)
    return SimpleNamespace(gateway=server.gateway, key=key, protocol=PROTOCOLS["socket"], trace=trace)


@pytest.mark.parametrize("leaving", [1, 2])
def test_what_follows_is_given_up_when_the_last_one_that_waits_for_it_leaves(
    server: Served, monkeypatch: pytest.MonkeyPatch, leaving: int
) -> None:
    given_up: list[str] = []
    monkeypatch.setattr(Channel, "abandon_unread", lambda channel: given_up.append(channel.stream_id))

    async def work() -> tuple[list[Any], str]:
        channel = server.gateway.channels.get(sid)
        waiting = [asyncio.ensure_future(steer(call_in(server), channel, f"Input {number}.")) for number in range(2)]
        await asyncio.sleep(0)
        assert channel.steered is not None
        successor = channel.steered.successor
        for one in waiting[:leaving]:
            one.cancel()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        follows = (await successor).stream_id
        await asyncio.sleep(0)
        return found, follows

    with peer(server) as one:
        sid = start(one)
        one.until(lambda: one.text(sid))
        found, follows = server.on_loop(work())
    assert sum(isinstance(one, asyncio.CancelledError) for one in found) == leaving
    assert given_up == ([] if leaving == 1 else [follows])


def test_waiting_for_what_follows_ends_with_the_gateway(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = threading.Event()

    async def work() -> str:
        channel = server.gateway.channels.get(sid)
        waiting = asyncio.ensure_future(steer(call_in(server), channel, "Shorter."))
        await asyncio.sleep(0)
        assert channel.steered is not None
        successor = channel.steered.successor
        await server.gateway.close()
        try:
            with pytest.raises(RequestRefused) as refused:
                await waiting
        finally:
            may_go_on.set()
        assert successor.cancelled()
        return refused.value.problem.code

    with peer(server) as one:
        sid = start(one)
        monkeypatch.setattr(penstock.Stream, "cancel", lambda stream, reason: may_go_on.wait(PATIENCE))
        try:
            assert server.on_loop(work()) == "draining"
        finally:
            may_go_on.set()


def test_an_answer_that_cannot_be_stopped_in_time_gives_the_input_back(
    server: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(stream: penstock.Stream, reason: str) -> None:
        raise CallTimeout("the end of a stream", 1.0)

    with peer(server) as one:
        sid = start(one)
        one.until(lambda: one.text(sid))
        with monkeypatch.context() as patched:
            patched.setattr(penstock.Stream, "cancel", fail)
            assert one.ask(op="steer", sid=sid, input="x")["error"]["code"] == "busy"
        assert end_of(one, steered(one, sid, "y"))["outcome"] == "completed"
    assert said(server)[-1] == ("user", "y")
    logged = [record.penstock for record in caplog.records if hasattr(record, "penstock")]
    assert [one["stream_id"] for one in logged if one["event"] == "steer_failed"] == [sid]


def test_inputs_that_wait_are_bounded_in_bytes(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.gateway.steering.MOST_STEERED_BYTES", 100, raising=False)

    async def work() -> str:
        channel = server.gateway.channels.get(sid)
        first = asyncio.ensure_future(steer(call_in(server), channel, "x" * 200))  # alone, it may be larger
        await asyncio.sleep(0)
        with pytest.raises(RequestRefused) as refused:
            await steer(call_in(server), channel, "y")
        await first
        return refused.value.problem.code

    with peer(server) as one:
        sid = start(one)
        one.until(lambda: one.text(sid))
        assert server.on_loop(work()) == "too_many_pending_bytes"
        eventually(lambda: len(server.provider.requests) == 2)
    assert said(server)[-1] == ("user", "x" * 200)


def test_an_agents_answer_goes_on_if_the_agent_takes_no_message(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = server.post("/v1/agents", {"model": "endless", "provider": "openai"}).json()["agent_id"]
    with peer(server) as one:
        sid = one.ask(op="stream_chat", agent=agent, message="Hi")["sid"]
        monkeypatch.setattr(penstock.Agent, "is_alive", False)
        assert one.ask(op="steer", sid=sid, input="x")["error"]["code"] == "agent_ended"
        assert one.ask(op="pause", sid=sid)["state"] == "paused"


@pytest.mark.parametrize("is_stored", [True, False])
def test_the_response_that_follows_a_response_is_one_too(server: Served, is_stored: bool) -> None:
    asked = {"model": "openai/m", "input": "Hi", "stream": True, "store": is_stored, "instructions": "Be brief."}
    with server.post("/v1/responses", asked, stream=True) as answer, peer(server) as one:
        first = answer.headers["x-penstock-stream-id"]
        eventually(lambda: server.system.stream(first).text)
        successor = steered(one, first)
        assert end_of(one, successor)["outcome"] == "completed"
    assert [role for role, _ in said(server)] == ["user", "assistant", "user"]
    assert server.provider.requests[-1].fields["instructions"] == "Be brief."
    answer = server.get(f"/v1/responses/{successor}")
    if not is_stored:
        assert answer.status_code == 404
        return
    shown = answer.json()
    assert (shown["id"], shown["status"], shown["previous_response_id"]) == (successor, "completed", first)
    assert shown["output"][0]["content"][0]["text"] == "Short."
    assert shown["instructions"] == "Be brief."
    more = {"model": "openai/m", "input": "More.", "previous_response_id": successor}
    assert server.post("/v1/responses", more).status_code == 200
    assert [content for role, content in said(server) if role == "user"] == ["Hi", "Shorter.", "More."]
