"""The native WebSocket: many streams on one connection, commands, credit, closing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

import penstock
from penstock.adapters.loopback.script import Answer, Script, ScriptedCall
from penstock.gateway.keys import KeyFile, new_key
from penstock.testing import eventually
from tests.integration.gateway.serving import PATIENCE, Served, gateway

WORDS = "one two three four five six seven eight"
ENDLESS = Answer(tokens=("word ",), repeat=100_000, pace=0.002)


@pytest.fixture
def server() -> Iterator[Served]:
    with gateway(Script(Answer(WORDS, pace=0.005), models={"endless": ENDLESS})) as client:
        yield client


class Peer:
    """The client's side of a socket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.answers: dict[Any, Any] = {}
        self.events: list[dict[str, Any]] = []
        self._ref = 0

    def send(self, **message: Any) -> None:
        self.connection.send(json.dumps(message))

    def read(self) -> None:
        message = json.loads(self.connection.recv(PATIENCE))
        if isinstance(message, list):
            self.events += message
        else:
            self.answers[message.get("ref")] = message

    def ask(self, **message: Any) -> dict[str, Any]:
        self._ref += 1
        self.send(ref=self._ref, **message)
        while self._ref not in self.answers:
            self.read()
        answer: dict[str, Any] = self.answers[self._ref]
        return answer

    def until(self, is_done: Any) -> None:
        while not is_done():
            self.read()

    def of(self, sid: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["sid"] == sid]

    def text(self, sid: str) -> str:
        return "".join(event["text"] for event in self.of(sid) if event["type"] == "token")

    def is_over(self, sid: str) -> bool:
        return any(event["type"] == "end" for event in self.of(sid))


@contextmanager
def peer(server: Served, **more: Any) -> Iterator[Peer]:
    with connect(f"{server.ws}/v1/ws", subprotocols=[Subprotocol("penstock.v1")], max_size=None, **more) as connection:
        yield Peer(connection)


def start(one: Peer, **more: Any) -> str:
    asked = {"provider": "openai", "model": "m", "messages": [{"role": "user", "content": "Hi"}], **more}
    answer = one.ask(op="start", **asked)
    assert answer.get("ok"), answer
    sid: str = answer["sid"]
    return sid


def test_several_streams_come_on_one_socket(server: Served) -> None:
    with peer(server) as one:
        assert one.connection.subprotocol == "penstock.v1"
        sids = [start(one) for _ in range(5)]
        one.until(lambda: all(one.is_over(sid) for sid in sids))
        for sid in sids:
            assert one.text(sid) == WORDS
            seqs = [event["seq"] for event in one.of(sid)]
            assert seqs == sorted(set(seqs))


def test_a_stream_is_read_on_after_an_event_on_another_socket(server: Served) -> None:
    with peer(server) as one:
        sid = start(one, on_orphan="continue")
        one.until(lambda: one.text(sid))
        one.send(op="unsubscribe", sid=sid)
    last = one.of(sid)[-1]["seq"]
    server.finish(sid)
    with peer(server) as two:
        answer = two.ask(op="subscribe", sid=sid, after=last)
        two.until(lambda: two.is_over(sid))
        assert one.text(sid) + two.text(sid) == WORDS
        gap = two.ask(op="subscribe", sid=sid, after=last, epoch="00000000")
        assert (gap["gap"], gap["epoch"]) == ("epoch", answer["epoch"])


def test_a_reader_is_told_when_nothing_follows(server: Served) -> None:
    with peer(server) as one:
        sid = start(one, on_orphan="continue")
        one.until(lambda: one.is_over(sid))
        last = one.of(sid)[-1]["seq"]
        assert one.ask(op="subscribe", sid=sid, after=last)["at_end"] is True
        assert "at_end" not in one.ask(op="subscribe", sid=sid, after=last - 1)
        one.until(lambda: one.is_over(sid))
        assert "at_end" not in one.ask(op="subscribe", sid=sid, after=last, epoch="00000000")


def test_commands_and_their_errors_have_the_ref(server: Served) -> None:
    with peer(server) as one:
        sid = start(one, model="endless")
        assert one.ask(op="pause", sid=sid)["state"] == "paused"
        assert one.ask(op="resume", sid=sid)["ok"]
        assert one.ask(op="options", sid=sid, batch_size=3)["ok"]
        assert one.ask(op="cancel", sid=sid, reason="enough")["state"] == "ended"
        one.until(lambda: one.is_over(sid))
        assert one.ask(op="pause", sid=sid)["error"]["code"] == "stream_ended"
        assert one.ask(op="pause", sid="nope")["error"]["code"] == "stream_not_found"
        assert one.ask(op="fly")["error"]["code"] == "unknown_op"
        assert one.ask(op="subscribe", sid=sid, after=-1)["error"]["param"] == "after"
        assert one.ask(op="ping")["ok"]


def test_a_field_that_is_null_is_not_given(server: Served) -> None:
    with peer(server) as one:
        sid = start(one)
        one.until(lambda: one.is_over(sid))
        assert one.ask(op="subscribe", sid=sid, after=None, window=None, events=None, epoch=None)["ok"]
        wrong: tuple[Any, ...] = ({}, [], "", False, 1 << 54)
        for name in ("after", "window"):
            for value in wrong:
                assert one.ask(op="subscribe", sid=sid, **{name: value})["error"]["param"] == name


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"op":' + "[" * 500 + "]" * 500 + "}", '"\\ud800"'])
def test_a_message_that_is_none_is_answered_and_the_socket_goes_on(server: Served, text: str) -> None:
    with peer(server) as one:
        one.connection.send(text)
        one.read()
        assert one.answers[None]["error"]["code"] == "unknown_op"
        assert one.ask(op="ping")["ok"]


def test_a_stream_without_credit_waits_and_does_not_hold_the_others(server: Served) -> None:
    with peer(server) as one:
        slow = start(one, model="endless", window=1_000)
        one.until(lambda: len(one.of(slow)) >= 5)
        for _ in range(3):
            sid = start(one)
            one.until(lambda sid=sid: one.is_over(sid))
        sent = sum(len(json.dumps(event)) for event in one.of(slow))
        assert sent < 100_000
        before = len(one.of(slow))
        one.send(op="ack", sid=slow, seq=one.of(slow)[-1]["seq"])
        one.until(lambda: len(one.of(slow)) > before)
        merged = one.of(slow)[before]
        assert merged["text"].count("word ") > 5  # what came meanwhile, in one piece
        assert one.ask(op="cancel", sid=slow)["ok"]


def test_tokens_are_pushed_and_read_on_the_same_socket(server: Served) -> None:
    with peer(server) as one:
        sid = one.ask(op="start")["sid"]
        assert one.ask(op="tokens", sid=sid, tokens=["a", "b"], end=True)["accepted"] == 2
        one.until(lambda: one.is_over(sid))
        assert one.text(sid) == "ab"


def test_a_socket_that_closes_is_a_reader_that_leaves(server: Served) -> None:
    with peer(server) as one:
        sid = start(one, model="endless", on_orphan="cancel")
        one.until(lambda: one.text(sid))
    server.finish(sid)


def test_an_agent_answers_on_the_socket() -> None:
    script = Script([Answer("", tool_calls=(ScriptedCall("add", '{"a": 1, "b": 2}', id="c1"),)), Answer("It is 3.")])

    @penstock.tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    with gateway(script) as server:
        server.gateway.tools["add"] = add
        made = server.post("/v1/agents", {"model": "m", "provider": "openai", "tools": ["add"]})
        agent = made.json()["agent_id"]
        with peer(server) as one:
            sid = one.ask(op="stream_chat", agent=agent, message="1 + 2?")["sid"]
            one.until(lambda: one.is_over(sid))
            names = [event["type"] for event in one.of(sid)]
        assert one.text(sid) == "It is 3."
        assert [name for name in names if name in ("tool_execution_started", "tool_result")] == [
            "tool_execution_started",
            "tool_result",
        ]
        assert server.get(f"/v1/agents/{agent}").json()["history"][-1]["content"] == "It is 3."
        assert server.request("DELETE", f"/v1/agents/{agent}").status_code == 204
        assert server.get(f"/v1/agents/{agent}").status_code == 404


def test_another_origins_page_is_refused_at_the_handshake(server: Served) -> None:
    with pytest.raises(InvalidStatus), peer(server, origin="https://evil.example"):
        pass
    with peer(server, origin=f"http://127.0.0.1:{server.port}") as one:
        assert one.ask(op="ping")["ok"]


def test_a_key_is_needed_and_a_revoked_one_closes_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    secret, key = new_key("test")
    KeyFile(path).write([key])
    with gateway(keys=str(path), heartbeat=0.05) as server:
        with peer(server) as one:
            one.send(op="auth", key="pk-wrong")
            with pytest.raises(ConnectionClosed) as closed:
                one.read()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
        with peer(server) as one:
            assert one.ask(op="auth", key=secret)["ok"]
            assert one.ask(op="ping")["ok"]
        with peer(server, additional_headers={"authorization": f"Bearer {secret}"}) as one:
            assert one.ask(op="ping")["ok"]
            KeyFile(path).write([msgspec.structs.replace(key, revoked=1)])
            with pytest.raises(ConnectionClosed) as closed:
                one.read()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4001
        eventually(lambda: not server.gateway.readers)
