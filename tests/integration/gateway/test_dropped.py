"""What an answer or a request loses on the way is said: in headers, at the end of a stream, and in the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from penstock.adapters.loopback.script import Answer
from penstock.config.options import StreamOptions
from penstock.config.settings import Settings
from tests.integration.gateway.serving import ONCE, Served, events_of, gateway

HI: Any = [{"role": "user", "content": "Hi"}]
FULL = StreamOptions(
    max_buffer_size=4, batch_size=4, strategy="time", flush_interval=3600, rate_limit=None, overflow="drop_newest"
)
"""Nothing is taken from the buffer before the end, so of eight tokens four are dropped."""


@pytest.fixture
def server() -> Iterator[Served]:
    settings = Settings(request=ONCE, chat=FULL, response=FULL)
    with gateway(Answer("one two three four five six seven eight"), settings) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": HI}),
        ("/v1/responses", {"input": "Hi"}),
        ("/v1/messages", {"messages": HI, "max_tokens": 10}),
    ],
)
def test_an_answer_at_once_says_how_many_tokens_it_lacks(
    server: Served, path: str, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answer = server.post(path, {"model": "m", **body})
    assert (answer.status_code, answer.headers["x-penstock-dropped"]) == (200, "4"), answer.text
    (line,) = [record for record in caplog.records if "tokens_dropped" in record.getMessage()]
    assert "four" not in line.getMessage()
    assert "x-penstock-dropped" not in server.get("/v1/models").headers


def test_a_stream_says_it_at_its_end(server: Served) -> None:
    answer = server.post("/v1/chat/completions", {"model": "m", "messages": HI, "stream": True})
    assert events_of(answer.text)[-2][2]["penstock"] == {"dropped": 4}


def test_fields_that_the_provider_cannot_be_told_are_named(server: Served) -> None:
    body = {"model": "m", "messages": HI, "max_tokens": 10, "metadata": {"user_id": "u", "a\r\nb: c": "d"}}
    for stream in (False, True):
        answer = server.post("/v1/messages", {**body, "stream": stream, "penstock": {"provider": "openai"}})
        assert answer.headers["x-penstock-ignored"] == "metadata.a%0D%0Ab%3A%20c"
    many = {"user_id": "u", "x" * 200: 1, **{f"f{number}": 1 for number in range(30)}}
    answer = server.post("/v1/messages", {**body, "metadata": many, "penstock": {"provider": "openai"}})
    named = answer.headers["x-penstock-ignored"].split(", ")
    assert (len(named), named[-1]) == (20, "...")
    whole = {"model": "m", "messages": HI, "max_tokens": 10}
    assert "x-penstock-ignored" not in server.post("/v1/messages", whole).headers
