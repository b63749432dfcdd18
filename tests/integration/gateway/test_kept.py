"""What the gateway keeps has an end: tickets, projectors, inputs, answers to repeated requests; what answers say."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.adapters.loopback.script import Answer, Script
from penstock.gateway import exchange, stored
from penstock.gateway.keys import KeyFile, new_key
from penstock.testing import eventually
from tests.integration.gateway.serving import PATIENCE, events_of, gateway

ENDLESS = Answer(tokens=("word ",), repeat=100_000, pace=0.01)
MESSAGES = [{"role": "user", "content": "Hi"}]


def test_a_ticket_is_forgotten_with_its_stream() -> None:
    with gateway(heartbeat=0.05) as server:
        stream_id = server.post("/v1/streams", {}).json()["stream_id"]
        made = server.post(f"/v1/streams/{stream_id}/tickets").json()
        server.post(f"/v1/streams/{stream_id}/tokens", {"text": "x", "end": True})
        assert server.get(made["url"]).status_code == 200
        server.request("DELETE", f"/v1/streams/{stream_id}")
        eventually(lambda: not server.gateway.guard._tickets)


def test_readers_choose_only_among_the_variants_that_there_are() -> None:
    with gateway() as server:
        stream_id = server.post("/v1/streams", {}).json()["stream_id"]
        server.post(f"/v1/streams/{stream_id}/tokens", {"text": "x", "end": True})
        server.finish(stream_id)
        for number in range(30):
            is_known = number in (5, 6, 7)  # to another protocol: it makes no difference here
            status = server.get(f"/v1/streams/{stream_id}/events?v={number}").status_code
            assert status == (200 if is_known else 400)
        assert len(server.gateway.channels.get(stream_id)._projectors) == 1
        refused = server.get(f"/v1/streams/{stream_id}/events?as=openai&reasoning_field=x")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "reasoning_field")
        for version in ("5.0", "5", "6", "7"):
            for dynamic in "01":
                for raw in "01":
                    path = f"/v1/streams/{stream_id}/events?as=ui&v={version}&dynamic={dynamic}&raw={raw}"
                    assert server.get(path).status_code == 200
        assert len(server.gateway.channels.get(stream_id)._projectors) <= 12
        assert server.get(f"/v1/streams/{stream_id}/events?as=socket").status_code == 400


def test_a_repeated_request_keeps_no_stream() -> None:
    with gateway() as server:
        headers = {"idempotency-key": "k"}
        first = server.post("/v1/streams", {}, headers=headers)
        stream_id = first.json()["stream_id"]
        server.request("DELETE", f"/v1/streams/{stream_id}")
        again = server.post("/v1/streams", {}, headers=headers)
        assert (again.status_code, again.json()) == (200, first.json())
        (entry,) = server.gateway.idempotency._entries.values()
        assert entry.result.result() == (stream_id, first.content)


def test_inputs_of_responses_under_way_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_LARGEST", 100_000)
    with gateway(Script(ENDLESS)) as server:
        for _ in range(5):
            body = {"model": "m", "input": "x" * 40_000, "background": True}
            assert server.post("/v1/responses", body).status_code == 200
        assert len(server.gateway.responses._kept) == 2
        assert server.gateway.responses._size <= 100_000


@pytest.mark.parametrize("path", ["/v1/streams/{}/events", "/v1/streams/{}/events?as=openai"])
def test_asking_for_the_headers_is_no_reading(path: str) -> None:
    with gateway(Script(ENDLESS)) as server:
        stream_id = server.open(model="m", on_orphan="cancel")
        answer = server.request("HEAD", path.format(stream_id))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert not server.system.stream(stream_id).is_over
        server.post(f"/v1/streams/{stream_id}/cancel")


def test_a_reader_ends_when_its_key_is_revoked(tmp_path: Path) -> None:
    secret, key = new_key("ann")
    KeyFile(tmp_path / "keys").write([key])
    headers = {"authorization": f"Bearer {secret}"}
    with gateway(Script(ENDLESS), keys=str(tmp_path / "keys"), heartbeat=0.05) as server:
        body = {"provider": "openai", "model": "m", "messages": MESSAGES, "on_orphan": "continue"}
        stream_id = server.post("/v1/streams", body, headers=headers).json()["stream_id"]
        with server.get(f"/v1/streams/{stream_id}/events", headers=headers, stream=True) as answer:
            pieces = answer.iter_content(None)
            assert next(pieces)
            KeyFile(tmp_path / "keys").write([msgspec.structs.replace(key, revoked=1)])
            last = events_of(b"".join(pieces).decode())[-1]
        assert (last[1], last[2]["code"]) == ("cut", "key_revoked")
        server.system.stream(stream_id).cancel()


def test_nothing_follows_the_latest_event_of_an_ended_stream() -> None:
    with gateway() as server:
        stream_id = server.post("/v1/streams", {}).json()["stream_id"]
        server.post(f"/v1/streams/{stream_id}/tokens", {"text": "x", "end": True})
        server.finish(stream_id)
        assert server.get(f"/v1/streams/{stream_id}/events?after=latest").status_code == 204


def test_what_else_an_answer_says() -> None:
    with gateway(Script(Answer("Hi.")), enable_compression=True) as server:
        refused = server.request("PUT", "/v1/streams")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, POST, OPTIONS")
        body: dict[str, Any] = {"model": "m", "messages": MESSAGES, "stream": True}
        for accepted, packed in (("gzip;q=0, identity", None), ("br, gzip;q=0.5", "gzip"), ("GZIP", "gzip")):
            answer = server.post("/v1/chat/completions", body, headers={"accept-encoding": accepted})
            assert answer.headers.get("content-encoding") == packed
        server.system.stop(PATIENCE)
        assert (server.get("/ready").status_code, server.get("/live").status_code) == (503, 200)


def test_a_chat_and_a_thread_of_one_name_are_two() -> None:
    part = {"type": "text", "text": "Hi"}
    ui = {"model": "m", "id": "thread t", "messages": [{"id": "1", "role": "user", "parts": [part]}]}
    messages = [{"id": "1", "role": "user", "content": "Hi"}]
    run = {"threadId": "t", "runId": "r", "forwardedProps": {"model": "m"}, "messages": messages}
    with (
        gateway(Script(ENDLESS)) as server,
        server.post("/v1/ui/chat", ui, stream=True) as chat,
        server.post("/v1/agui", run, stream=True) as other,
    ):
        assert server.post("/v1/ui/chat/thread%20t/stop").status_code == 204
        server.finish(chat.headers["x-penstock-stream-id"])
        assert not server.system.stream(other.headers["x-penstock-stream-id"]).is_over
        server.system.stream(other.headers["x-penstock-stream-id"]).cancel()


def test_a_response_that_is_not_stored_is_not_had_again() -> None:
    with gateway(Script(Answer("Hi."))) as server:
        made = server.post("/v1/responses", {"model": "m", "input": "Hi", "store": False}).json()["id"]
        assert server.get(f"/v1/responses/{made}").status_code == 404
        body = {"model": "m", "input": "Hi", "previous_response_id": made}
        assert server.post("/v1/responses", body).json()["error"]["code"] == "previous_response_not_found"


def test_a_body_that_does_not_come_is_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_PATIENCE", 0.05)
    with gateway() as server, socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        connection.sendall(b"POST /v1/streams HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert connection.recv(1_000).startswith(b"HTTP/1.1 408 ")
