"""The native protocol over real sockets: streams as resources, cursors, ends, readers that leave."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from penstock.adapters.loopback.faults import Status, TruncateAfter
from penstock.adapters.loopback.script import Answer, Script
from penstock.testing import eventually
from tests.integration.gateway.serving import Served, events_of, gateway

WORDS = "one two three four five six seven eight"
ENDLESS = Answer(tokens=("word ",), repeat=100_000, pace=0.01)


@pytest.fixture
def server() -> Iterator[Served]:
    script = Script(
        Answer(WORDS, pace=0.005),
        models={
            "endless": ENDLESS,
            "busy": Status(429, retry_after=7, message="slow down"),
            "cut": Answer(WORDS, faults=(TruncateAfter(3),)),
        },
    )
    with gateway(script, heartbeat=0.2, linger=2.0) as client:
        yield client


def text_of(body: str) -> str:
    return "".join(data["text"] for _, name, data in events_of(body) if name == "token")


def test_a_stream_is_opened_read_and_ends(server: Served) -> None:
    stream_id = server.open(metadata={"user": "u1"})
    answer = server.get(f"/v1/streams/{stream_id}/events")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache, no-transform"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-penstock-stream-id"] == stream_id
    assert "connection" not in {name.lower() for name in answer.headers} - {"connection"}
    found = events_of(answer.text)
    assert text_of(answer.text) == WORDS
    assert [name for _, name, _ in found][-1] == "end"
    seqs = [int(id.rpartition("-")[2]) for id, _, _ in found]
    assert seqs == sorted(set(seqs))
    shown = server.get(f"/v1/streams/{stream_id}").json()
    assert (shown["state"], shown["last_seq"], shown["metadata"]["user"]) == ("ended", seqs[-1], "u1")
    assert stream_id in [one["stream_id"] for one in server.get("/v1/streams").json()["streams"]]


def test_a_reader_resumes_exactly_after_each_event(server: Served) -> None:
    stream_id = server.open()
    server.finish(stream_id)
    whole = events_of(server.get(f"/v1/streams/{stream_id}/events").text)
    epoch = whole[0][0].partition("-")[0]
    last = int(whole[-1][0].partition("-")[2])
    texts = []
    for after in range(last):
        by_header = server.get(f"/v1/streams/{stream_id}/events", headers={"last-event-id": f"{epoch}-{after}"})
        by_query = server.get(f"/v1/streams/{stream_id}/events?after={after}")
        assert by_header.text == by_query.text
        texts.append(text_of(by_query.text))
        assert WORDS.endswith(texts[-1])
    assert texts[0] == WORDS
    assert sorted(texts, key=len, reverse=True) == texts
    assert server.get(f"/v1/streams/{stream_id}/events?after={last}").status_code == 204


def test_a_cursor_of_another_epoch_is_told_in_band(server: Served) -> None:
    stream_id = server.open()
    server.finish(stream_id)
    answer = server.get(f"/v1/streams/{stream_id}/events", headers={"last-event-id": "00000000-2"})
    found = events_of(answer.text)
    assert answer.headers["x-penstock-gap"] == "1"
    assert found[0][1:] == ("gap", {"reason": "epoch", "epoch": found[1][0].partition("-")[0]})
    assert text_of(answer.text) == WORDS
    strict = server.get(f"/v1/streams/{stream_id}/events?strict=1", headers={"last-event-id": "00000000-2"})
    assert (strict.status_code, strict.json()["error"]["type"]) == (410, "gone")


@pytest.mark.parametrize("cursor", ["x", "-1", "1-2-3", "9" * 30, ""])
def test_a_cursor_that_is_none_is_refused(server: Served, cursor: str) -> None:
    stream_id = server.open()
    answer = server.get(f"/v1/streams/{stream_id}/events?after={cursor}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after")


def test_an_unknown_stream_is_not_found(server: Served) -> None:
    for method, path in [("GET", ""), ("GET", "/events"), ("POST", "/pause"), ("DELETE", "")]:
        answer = server.request(method, f"/v1/streams/nope{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "stream_not_found")


def test_a_failed_answer_never_ends_like_a_complete_one(server: Served) -> None:
    stream_id = server.open(model="cut")
    found = events_of(server.get(f"/v1/streams/{stream_id}/events").text)
    assert found[-1][1] == "end"
    assert found[-1][2]["type"] == "StreamFailed"
    assert found[-1][2]["error"]["type"] == "IncompleteStream"


def test_pushed_tokens_come_out_and_the_end_too(server: Served) -> None:
    stream_id = server.post("/v1/streams").json()["stream_id"]
    with server.get(f"/v1/streams/{stream_id}/events", stream=True) as answer:
        assert server.post(f"/v1/streams/{stream_id}/tokens", {"tokens": ["a", "b"]}).json()["accepted"] == 2
        assert server.post(f"/v1/streams/{stream_id}/tokens", {"text": "c", "end": True}).status_code == 200
        body = b"".join(answer.iter_content(None)).decode()
    assert text_of(body) == "abc"
    late = server.post(f"/v1/streams/{stream_id}/tokens", {"text": "d"})
    assert (late.status_code, late.json()["error"]["code"]) == (409, "stream_ended")


def test_a_stream_of_a_provider_takes_no_tokens(server: Served) -> None:
    answer = server.post(f"/v1/streams/{server.open(model='endless')}/tokens", {"text": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "stream_is_fed")


def test_commands_reach_the_stream(server: Served) -> None:
    stream_id = server.open(model="endless", on_orphan="continue")
    assert server.post(f"/v1/streams/{stream_id}/pause").json()["state"] == "paused"
    assert server.post(f"/v1/streams/{stream_id}/resume").json()["state"] != "paused"
    assert server.request("PATCH", f"/v1/streams/{stream_id}/options", json={"batch_size": 2}).status_code == 200
    assert server.system.stream(stream_id).options.batch_size == 2
    assert server.post(f"/v1/streams/{stream_id}/flush").json()["tokens"] >= 0
    assert server.post(f"/v1/streams/{stream_id}/cancel", {"reason": "enough"}).json()["state"] == "ended"
    assert server.post(f"/v1/streams/{stream_id}/cancel").status_code == 200
    found = events_of(server.get(f"/v1/streams/{stream_id}/events").text)
    assert (found[-1][2]["type"], found[-1][2]["reason"]) == ("StreamCancelled", "enough")
    assert server.request("DELETE", f"/v1/streams/{stream_id}").status_code == 204
    assert server.get(f"/v1/streams/{stream_id}").status_code == 404


def test_a_silent_stream_gives_signs_of_life_of_one_line(server: Served) -> None:
    stream_id = server.post("/v1/streams").json()["stream_id"]
    with server.get(f"/v1/streams/{stream_id}/events", stream=True) as answer:
        pieces = answer.iter_content(None)
        assert next(pieces) == b": hb\n"
    server.post(f"/v1/streams/{stream_id}/cancel")


def test_the_provider_is_let_go_when_the_last_reader_has_left_and_not_before(server: Served) -> None:
    stream_id = server.open(model="endless", on_orphan="cancel")
    stream = server.system.stream(stream_id)
    first, second = (server.get(f"/v1/streams/{stream_id}/events", stream=True) for _ in range(2))
    pieces = [answer.iter_content(None) for answer in (first, second)]  # one that is dropped closes its connection
    assert all(next(one) for one in pieces)
    first.close()
    eventually(lambda: server.get(f"/v1/streams/{stream_id}").json()["readers"] == 1)
    assert not stream.is_over
    second.close()
    eventually(lambda: stream.is_over)


def test_a_native_stream_lingers_and_is_cancelled_if_nobody_comes(server: Served) -> None:
    read, unread = server.open(model="endless"), server.open(model="endless")
    with server.get(f"/v1/streams/{read}/events", stream=True) as answer:
        pieces = answer.iter_content(None)
        assert next(pieces)
        server.finish(unread)  # though it never had a reader
        assert not server.system.stream(read).is_over
    server.finish(read)


def test_a_client_that_leaves_before_the_first_event_lets_the_provider_go(server: Served) -> None:
    stream_id = server.post("/v1/streams", {"on_orphan": "cancel"}).json()["stream_id"]
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"GET /v1/streams/{stream_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        eventually(lambda: server.get(f"/v1/streams/{stream_id}").json()["readers"] == 1)
    server.finish(stream_id)


def test_an_idempotency_key_opens_one_stream(server: Served) -> None:
    body = {"provider": "openai", "model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    headers = {"idempotency-key": "k1"}
    first = server.post("/v1/streams", body, headers=headers)
    again = server.post("/v1/streams", body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["stream_id"] == again.json()["stream_id"]
    other = server.post("/v1/streams", {**body, "model": "x"}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"modle": "m"}, "modle"),
        ({"messages": []}, None),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": [{"role": "user"}], "input": "x"}, "input"),
        ({"model": 5, "messages": [{"role": "user", "content": "x"}]}, "model"),
        ({"options": {"batch_sise": 3}}, "options.batch_sise"),
        ({"options": {"batch_size": 0}}, "options.batch_size"),
        ({"on_orphan": "never"}, "on_orphan"),
        ({"metadata": []}, "metadata"),
    ],
)
def test_a_malformed_request_says_which_field(server: Served, body: dict[str, object], param: str | None) -> None:
    answer = server.post("/v1/streams", body)
    assert answer.status_code == 400, answer.text
    if param is not None:
        assert answer.json()["error"]["param"] == param


def test_options_of_the_server_are_not_the_clients(server: Served) -> None:
    answer = server.post("/v1/streams", {"options": {"retain_bytes": 2**40}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "option_not_allowed")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b"\xff", "invalid_json"),
        (b'{"metadata":' + b"[" * 200 + b"]" * 200 + b"}", "nested_too_deeply"),
        (b'{"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested_too_deeply"),
        (b'{"messages":[' + b",".join([b"{}"] * 10_001) + b"]}", "too_many_messages"),
    ],
)
def test_a_body_that_is_none_is_refused(server: Served, data: bytes, code: str) -> None:
    answer = server.request("POST", "/v1/streams", data=data)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_other_methods_and_paths_are_refused_in_json(server: Served) -> None:
    answer = server.request("PUT", "/v1/streams")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert server.get("/v1/nothing").json()["error"]["code"] == "not_found"
    assert server.get(f"/ready?{'x' * 20_000}").status_code == 414


def test_a_late_reader_gets_the_text_in_one_piece(server: Served) -> None:
    stream_id = server.open()
    server.finish(stream_id)
    found = events_of(server.get(f"/v1/streams/{stream_id}/events").text)
    assert [(name, data["text"]) for _, name, data in found] == [("token", WORDS), ("end", WORDS)]


def test_old_frames_are_joined_and_every_cursor_stays_valid() -> None:
    with gateway(Script(Answer(tokens=tuple(f"w{n} " for n in range(400)))), retain_bytes=10_000) as server:
        stream_id = server.open(options={"batch_size": 1, "flush_interval": 0.001})
        whole = text_of(server.get(f"/v1/streams/{stream_id}/events").text)
        assert whole == "".join(f"w{n} " for n in range(400))
        last = server.get(f"/v1/streams/{stream_id}").json()["last_seq"]
        before = whole
        for after in range(0, last, 7):
            rest = text_of(server.get(f"/v1/streams/{stream_id}/events?after={after}").text)
            assert before.endswith(rest)
            before = rest


def test_a_reader_that_does_not_read_does_not_hold_the_others(server: Served) -> None:
    stream_id = server.open(model="endless", on_orphan="cancel")
    with socket.create_connection(("127.0.0.1", server.port)) as stuck:
        stuck.sendall(f"GET /v1/streams/{stream_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        with server.get(f"/v1/streams/{stream_id}/events", stream=True) as answer:
            pieces = answer.iter_content(None)
            for _ in range(10):
                assert next(pieces)
    server.finish(stream_id)


def test_an_id_may_have_characters_that_a_path_has_not() -> None:
    with gateway(Answer("Hi.")) as served:
        for stream_id in ("a/b", "a/b é?#%2F..", "a//events"):
            made = served.post("/v1/streams", {"stream_id": stream_id, "on_orphan": "continue"}).json()
            links = made["links"]
            assert served.get(links["self"]).json()["stream_id"] == stream_id
            assert served.post(links["tokens"], {"tokens": ["Hi"], "end": True}).json()["accepted"] == 1
            assert "event: end" in served.get(links["events"]).text
            ticket = served.post(links["tickets"]).json()
            assert "event: end" in served.get(ticket["url"]).text
            assert served.request("DELETE", links["self"]).status_code == 204


def test_a_mounted_gateway_finds_such_an_id_too() -> None:
    def wrap(inner: Any) -> Any:
        return Starlette(routes=[Mount("/llm", inner)], lifespan=inner.lifespan)

    with gateway(Answer("Hi."), wrap=wrap) as served:
        made = served.post("/llm/v1/streams", {"stream_id": "a/b"}).json()
        assert made["links"]["self"] == "/llm/v1/streams/a%2Fb"
        assert served.get(made["links"]["self"]).json()["stream_id"] == "a/b"
