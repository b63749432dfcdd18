"""A projection with a fault: every reader of it gets an error, and the stream is let go."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.adapters.loopback.script import Answer
from penstock.events import TokenEvent
from penstock.gateway.projections.anthropic import AnthropicProjection
from penstock.gateway.projections.chat import ChatProjection
from penstock.gateway.projections.native import NativeProjection
from penstock.gateway.projections.responses import ResponsesProjection
from penstock.testing import eventually
from tests.integration.gateway.serving import gateway

MESSAGES = [{"role": "user", "content": "Hi"}]
ENDLESS = Answer(tokens=("word ",), repeat=100_000, pace=0.01)
ROUTES = [
    ("/v1/chat/completions", {"messages": MESSAGES}, ChatProjection),
    ("/v1/responses", {"input": "Hi"}, ResponsesProjection),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 100_000}, AnthropicProjection),
]


def fails_at_text(monkeypatch: pytest.MonkeyPatch, projection: Any) -> None:
    feed = projection.feed

    def faulty(self: Any, event: Any) -> Any:
        if isinstance(event, TokenEvent):
            raise ValueError("SECRET-CONTENT")
        return feed(self, event)

    monkeypatch.setattr(projection, "feed", faulty)


@pytest.mark.parametrize(("path", "body", "projection"), ROUTES)
def test_a_request_without_streaming_gets_an_error_in_its_shape(
    monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any], projection: Any
) -> None:
    fails_at_text(monkeypatch, projection)
    with gateway(ENDLESS) as served:
        answer = served.post(path, {"model": "m", **body})
        assert answer.status_code == 500
        error = answer.json()["error"]
        assert (error["code"], error["message"]) == ("internal_error", "The stream cannot be shown in this protocol.")
        [channel] = served.gateway.channels.all()
        eventually(lambda: channel.record.is_over)


def test_a_stream_of_which_nothing_can_be_shown_gets_an_http_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChatProjection, "feed", lambda self, event: 1 / 0)
    with gateway(ENDLESS) as served:
        answer = served.post("/v1/chat/completions", {"model": "m", "stream": True, "messages": MESSAGES})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
        [channel] = served.gateway.channels.all()
        eventually(lambda: channel.record.is_over)


def test_a_stream_that_breaks_off_in_another_framework_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.gateway.embedding import Embedded
    from penstock.gateway.wsgi import event_body

    fails_at_text(monkeypatch, NativeProjection)
    with gateway(Answer("Hi.")) as served:
        stream_id = served.open(on_orphan="continue")
        served.finish(stream_id)
        body = event_body(Embedded(served.system.stream(stream_id), "native", None, None, None, {}), {}, "")
        assert body is not None
        assert list(body)[-1].startswith(b"event: cut\n")
