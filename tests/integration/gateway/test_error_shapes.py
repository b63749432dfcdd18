"""Errors have the shape of the protocol that is read, and repeat nothing that a client has sent."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from penstock.adapters.loopback.script import Answer
from penstock.config.options import RequestOptions
from penstock.config.settings import Settings
from tests.integration.gateway.serving import gateway

MESSAGES = [{"role": "user", "content": "Hi"}]
SECRET = "SECRET-CONTENT"


def test_a_gap_is_refused_in_the_shape_of_each_protocol() -> None:
    base = Settings(request=RequestOptions(max_retries=0))
    settings = dataclasses.replace(base, stream=base.stream.replace(retain_bytes=1_000))
    with gateway(Answer("Hi."), settings) as served:
        options = {"rate_limit": None, "batch_size": 1, "flush_interval": 0.01}
        stream_id = served.post("/v1/streams", {"on_orphan": "continue", "options": options}).json()["stream_id"]
        served.post(f"/v1/streams/{stream_id}/tokens", {"tokens": [f"{n:03d} " for n in range(300)], "end": True})
        served.finish(stream_id)
        first = served.get(f"/v1/streams/{stream_id}").json()["first_seq"]
        assert first > 6
        found: dict[str, Any] = {}
        for name in ("native", "openai", "responses", "anthropic", "ui", "agui"):
            answer = served.get(f"/v1/streams/{stream_id}/events?as={name}&after=5&strict=1")
            assert answer.status_code == 410, name
            found[name] = answer.text if name == "ui" else answer.json()
    text = "The events after this cursor are no longer kept."
    error = {"message": text, "type": "gone", "param": None, "code": "gone", "first_seq": first}
    assert found["native"] == {"error": error}
    assert found["openai"] == {
        "error": {"message": text, "type": "invalid_request_error", "param": None, "code": "gone"}
    }
    assert found["responses"] == found["openai"]
    assert found["anthropic"]["error"] == {"type": "invalid_request_error", "message": text, "code": "gone"}
    assert found["ui"] == text
    assert (found["agui"]["message"], found["agui"]["code"]) == (text, "gone")


def test_a_stream_that_does_not_exist_is_told_of_in_the_shape_that_was_asked_for() -> None:
    with gateway(Answer("Hi.")) as served:
        answer = served.get("/v1/streams/s-nowhere/events?as=anthropic")
        assert (answer.status_code, answer.json()["type"]) == (404, "error")
        assert "s-nowhere" not in answer.text
        assert served.get("/v1/streams/s-nowhere/events?as=ui").headers["content-type"].startswith("text/plain")
        assert served.get("/v1/messages").status_code == 405


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"model": "m", "messages": MESSAGES, "penstock": {"provider": SECRET}}),
        ("/v1/chat/completions", {"model": "m", "messages": MESSAGES, "penstock": {SECRET + " ": 1}}),
        ("/v1/streams", {"options": {"batch_size": SECRET}}),
        ("/v1/streams", {"options": {SECRET + " ": 1}}),
        ("/v1/streams", {"on_orphan": SECRET}),
        ("/v1/streams", {"stream_id": SECRET * 50}),
        ("/v1/streams", {SECRET + " ": 1}),
        ("/v1/agents", {"model": "m", "tools": [SECRET]}),
        ("/v1/agents", {"model": "m", "provider": SECRET}),
        ("/v1/responses", {"model": "m", "input": "Hi", "previous_response_id": SECRET}),
        ("/v1/messages", {"model": "m", "max_tokens": SECRET, "messages": MESSAGES}),
        ("/v1/ui/chat", {"model": "m", "messages": [], "tools": {SECRET + " ": 1}}),
        (f"/v1/streams/{SECRET}/cancel", {}),
        (f"/v1/agents/{SECRET}/messages", {"message": "Hi"}),
    ],
)
def test_an_error_does_not_repeat_what_came(path: str, body: dict[str, Any]) -> None:
    with gateway(Answer("Hi.")) as served:
        answer = served.post(path, body)
        assert 400 <= answer.status_code < 500
        assert SECRET not in answer.text


EMPTY: tuple[Any, ...] = ({}, [], 0, False, "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("tools", value) for value in EMPTY if value != []),
        *(("model", value) for value in EMPTY),
        *(("provider", value) for value in EMPTY),
        *(("parameters", value) for value in EMPTY if value != {}),
    ],
)
def test_an_empty_value_of_another_type_is_not_taken_for_an_absent_one(field: str, value: object) -> None:
    with gateway(Answer("Hi.")) as served:
        answer = served.post("/v1/agents", {"model": "m", field: value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


NOTHING: dict[str, Any] = dict.fromkeys(
    ("agent", "name", "provider", "system_prompt", "tools", "history", "parameters", "metadata", "max_tool_rounds")
)


def test_a_field_that_is_null_is_not_given() -> None:
    with gateway(Answer("Hi.")) as served:
        served.gateway.templates["helper"] = {"model": "m", "system_prompt": "Help."}
        assert served.post("/v1/agents", {"model": "m", **NOTHING}).status_code == 201
        assert served.post("/v1/agents", {**NOTHING, "agent": "helper", "model": None}).status_code == 201
        assert served.post("/v1/streams", {"stream_id": "s"}).status_code == 201
        assert served.post("/v1/streams/s/tokens", {"tokens": None, "text": "a", "end": None}).json()["accepted"] == 1
        assert served.post("/v1/streams/s/cancel", {"reason": None}).status_code == 200


@pytest.mark.parametrize("value", [{}, [], "", 0])
def test_the_end_of_a_stream_is_true_or_false(value: object) -> None:
    with gateway(Answer("Hi.")) as served:
        assert served.post("/v1/streams", {"stream_id": "s"}).status_code == 201
        answer = served.post("/v1/streams/s/tokens", {"text": "a", "end": value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "end")


def test_an_id_that_is_in_use_is_not_repeated() -> None:
    with gateway(Answer("Hi.")) as served:
        assert served.post("/v1/streams", {"stream_id": SECRET}).status_code == 201
        answer = served.post("/v1/streams", {"stream_id": SECRET})
        assert (answer.status_code, SECRET in answer.text) == (409, False)
