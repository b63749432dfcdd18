"""``response.steer`` on the WebSocket of the Responses API: when the response goes on, because none can follow it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from penstock.adapters.loopback.script import Answer, Script
from penstock.gateway.keys import KeyFile, new_key
from penstock.testing import eventually
from tests.integration.gateway.serving import PATIENCE, Served, gateway

ENDLESS = Answer(tokens=("word ",), repeat=100_000, pace=0.002)


class Talk:
    """The client's side of a connection with one response under way."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.send(type="response.create", model="openai/m", input="Hi")
        self.first: str = self.until("response.created")["response"]["id"]
        self.until("response.output_text.delta")

    def send(self, **message: Any) -> None:
        self._connection.send(json.dumps(message))

    def steer(self, given: str = "Shorter.") -> None:
        self.send(type="response.steer", previous_response_id=self.first, input=given)

    def until(self, *kinds: str) -> dict[str, Any]:
        while (event := json.loads(self._connection.recv(PATIENCE)))["type"] not in kinds:
            pass
        found: dict[str, Any] = event
        return found

    def refusal(self) -> str:
        """The code with which the input is given back."""
        failed = self.until("response.steer.failed", "response.incomplete")
        assert failed["type"] == "response.steer.failed"
        assert failed["steer"]["input"] == "Shorter."
        code: str = failed["error"]["code"]
        return code


@contextmanager
def talk(server: Served, secret: str = "") -> Iterator[Talk]:
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    with connect(f"{server.ws}/v1/responses", max_size=None, additional_headers=headers) as connection:
        yield Talk(connection)


@pytest.fixture
def server() -> Iterator[Served]:
    with gateway(Script([ENDLESS, Answer("Short.")])) as client:
        yield client


def test_a_response_goes_on_while_the_server_shuts_down(server: Served) -> None:
    with talk(server) as one:
        server.gateway.is_draining = True
        one.steer()
        assert one.refusal() == "draining"
        server.gateway.is_draining = False
        one.steer()
        assert one.until("response.completed")["response"]["previous_response_id"] == one.first


def test_the_response_that_follows_can_be_had_by_its_id(server: Served) -> None:
    with talk(server) as one:
        one.steer()
        followed = one.until("response.completed")["response"]
    shown = server.get(f"/v1/responses/{followed['id']}").json()
    assert (shown["id"], shown["status"], shown["previous_response_id"]) == (followed["id"], "completed", one.first)


def test_a_response_goes_on_if_the_key_has_as_many_streams_as_it_may(tmp_path: Path) -> None:
    path = str(tmp_path / "keys")
    secret, key = new_key("a", streams=1)
    KeyFile(path).write([key])
    with gateway(Script([ENDLESS, ENDLESS, Answer("Short.")]), keys=path) as server, talk(server, secret) as one:
        other = server.system.chat("m", "Hi", provider="openai", on_orphan="continue")
        eventually(lambda: other.text)  # the script's second answer is its
        server.gateway.channels.get(other.stream_id).owner = key.id  # as if its limit had been lowered meanwhile
        one.steer()
        assert one.refusal() == "rate_limit_exceeded"
        other.cancel()
        one.steer()
        assert one.until("response.completed")["response"]["previous_response_id"] == one.first


def test_input_is_counted_as_a_request_before_the_response_is_stopped(tmp_path: Path) -> None:
    path = str(tmp_path / "keys")
    (secret, key), (others, other) = new_key("a", requests_per_minute=2), new_key("b", requests_per_minute=3)
    KeyFile(path).write([key, other])
    script = Script([ENDLESS, ENDLESS, Answer("Short.")])
    with gateway(script, keys=path) as server, talk(server, secret) as one:
        one.steer()  # the handshake and the first response were two
        assert one.refusal() == "rate_limit_exceeded"
        with talk(server, others) as two:
            two.steer()
            assert two.until("response.completed")["response"]["previous_response_id"] == two.first
