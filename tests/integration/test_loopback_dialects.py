"""The wire formats of the loopback provider, fault by fault, over real sockets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from penstock.adapters.loopback.faults import (
    DelayFirstByte,
    ErrorFrame,
    Fault,
    HangUp,
    HoldOpen,
    HugeEvent,
    InvalidUtf8,
    MalformedJson,
    NotAStream,
    ResetAfter,
    StallAfter,
    Status,
    StreamFault,
    TruncateAfter,
)
from penstock.adapters.loopback.models import default_script
from penstock.adapters.loopback.replay import Replay
from penstock.adapters.loopback.script import Answer, Reply, Script, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.errors import ApiError
from penstock.events import Usage
from tests.contract.official_clients import our_reading

TEXT = "Grüße aus der Röhre: 水は低きに流れる 🌊, <and>\u2028a line separator."
CALL = ScriptedCall("look_up", '{"city": "Zürich"}', id="call_7", signature="Y2FsbA==")
FULL = Answer(TEXT, reasoning="so it is", signature="c2ln", tool_calls=(CALL,), send_usage="always")


@dataclass(frozen=True)
class Dialect:
    """How a request is sent."""

    api: str
    path: str
    conversation: str
    more: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    end: bytes = b""
    """What only a complete stream contains."""

    def post(self, provider: LoopbackProvider, *, stream: bool = True, model: str = "m") -> requests.Response:
        texts: dict[str, Any] = {
            "messages": [{"role": "user", "content": "one two"}],
            "contents": [{"role": "user", "parts": [{"text": "one two"}]}],
            "input": "one two",
        }
        body = {"model": model, "stream": stream, self.conversation: texts[self.conversation], **self.more}
        path = self.path.format(model=model)
        if not stream:
            path = path.replace(":streamGenerateContent?alt=sse", ":generateContent")
        return requests.post(provider.url + path, json=body, headers=self.headers, timeout=10)


CHAT = Dialect("chat", "/v1/chat/completions", "messages", end=b'"finish_reason":"stop"')
RESPONSES = Dialect("responses", "/v1/responses", "input", end=b"response.completed")
ANTHROPIC = Dialect(
    "messages", "/v1/messages", "messages", {"max_tokens": 9}, {"anthropic-version": "2023-06-01"}, b"message_stop"
)
OLLAMA = Dialect("ollama", "/api/chat", "messages", end=b'"done":true')
GEMINI = Dialect("gemini", "/v1beta/models/{model}:streamGenerateContent?alt=sse", "contents", end=b'"STOP"')
ALL = [CHAT, RESPONSES, ANTHROPIC, OLLAMA, GEMINI]

EVERY = pytest.mark.parametrize("dialect", ALL, ids=[dialect.api for dialect in ALL])


def provide(*replies: Reply, **more: Any) -> LoopbackProvider:
    return LoopbackProvider(Script(replies), **more)


def documents_of(body: bytes) -> Iterator[dict[str, Any]]:
    for line in re.split(rb"\r\n|\n|\r", body):
        line = line.removeprefix(b"data: ")
        if line.startswith(b"{"):
            yield json.loads(line)


# --- answers -------------------------------------------------------------------------------------------------------


@EVERY
def test_our_decoder_reads_all_of_an_answer(dialect: Dialect) -> None:
    with provide(FULL) as provider:
        reading = our_reading(dialect.api, [dialect.post(provider).content])
    assert (reading.error, reading.text, reading.reasoning) == (None, TEXT, "so it is")
    assert reading.tool_calls == [("look_up", {"city": "Zürich"})]
    assert reading.usage["input_tokens"] == 2
    if dialect in (RESPONSES, ANTHROPIC):
        assert reading.signatures == ["c2ln"]


@EVERY
@pytest.mark.parametrize("split", [1, 13])
@pytest.mark.parametrize("framing", ["chunked", "close", "length", "gzip"])
def test_a_stream_is_the_same_in_every_framing(dialect: Dialect, framing: Any, split: int) -> None:
    answer = Answer(TEXT, framing=framing, split=split, pace=0.0001, headers=(("X-RateLimit-Limit", "7"),))
    with provide(answer) as provider:
        response = dialect.post(provider)
        assert response.headers["x-ratelimit-limit"] == "7"
        assert our_reading(dialect.api, [response.content]).text == TEXT
        assert provider.wait_for(lambda s: s.streams_completed == 1).client_disconnects == 0


@EVERY
def test_a_token_that_is_said_again_and_again_is_told_each_time(dialect: Dialect) -> None:
    with provide(Answer(tokens=("a", "b"), repeat=5)) as provider:
        assert our_reading(dialect.api, [dialect.post(provider).content]).text == "ababa"
        assert b"ababa" in dialect.post(provider, stream=False).content


@EVERY
def test_further_headers_come_with_a_whole_answer_too(dialect: Dialect) -> None:
    with provide(Answer("x", headers=(("retry-after-ms", "5"),))) as provider:
        assert dialect.post(provider, stream=False).headers["retry-after-ms"] == "5"


@EVERY
def test_comments_a_byte_order_mark_and_stamps_disturb_nothing(dialect: Dialect) -> None:
    with provide(Answer(TEXT, comments=1, bom=True, timestamps=True)) as provider:
        body = dialect.post(provider).content
    assert body.startswith(b"\xef\xbb\xbf")
    body = body.removeprefix(b"\xef\xbb\xbf")
    signs = {"messages": b"event: ping", "ollama": b"", "gemini": b": keep-alive\r\n\r\n"}
    assert body.count(signs.get(dialect.api, b": keep-alive\n\n")) > 10
    stamps = [document["penstock_sent"] for document in documents_of(body) if "penstock_sent" in document]
    assert len(stamps) >= len(Answer(TEXT).pieces)
    assert stamps == sorted(stamps)
    assert our_reading(dialect.api, [body]).text == TEXT


@EVERY
def test_a_recording_is_served_in_every_dialect(dialect: Dialect) -> None:
    with provide(Replay(b"as it was", chunk=2)) as provider:
        assert dialect.post(provider).content == b"as it was"
        assert dialect.post(provider, stream=False).content == b"as it was"


def test_gemini_has_the_line_ends_of_the_real_server_unless_told_otherwise() -> None:
    with provide(Answer("a b"), Answer("a b", line_ending="\n")) as provider:
        assert GEMINI.post(provider).content.count(b"\r\n\r\n") == 3
        assert b"\r" not in GEMINI.post(provider).content


def test_without_alt_sse_gemini_sends_an_array() -> None:
    url = "{}/v1beta/models/m:streamGenerateContent"
    body = {"contents": [{"parts": [{"text": "?"}]}]}
    replies = (Answer("a b", comments=1), Answer("a", faults=(ErrorFrame(1),)), Answer("a b", tokens=("x",), repeat=3))
    with provide(*replies) as provider:
        whole, broken, repeated = (requests.post(url.format(provider.url), json=body, timeout=5) for _ in range(3))
    assert whole.headers["content-type"] == "application/json; charset=UTF-8"
    parts = [document["candidates"][0]["content"]["parts"][0]["text"] for document in whole.json()]
    assert parts == ["a", " b", ""]
    assert whole.json()[-1]["candidates"][0]["finishReason"] == "STOP"
    assert broken.json()[-1]["error"]["status"] == "INTERNAL"
    assert len(repeated.json()) == 4


def test_gemini_tells_the_signature_with_the_call_or_at_the_end() -> None:
    unsigned = ScriptedCall("f")
    replies = (
        FULL,
        FULL.replace(tool_calls=()),
        FULL.replace(tool_calls=(unsigned, unsigned)),
    )
    with provide(*replies) as provider:
        told = []
        for _ in replies:
            documents = list(documents_of(GEMINI.post(provider).content))
            parts = [part for document in documents for part in document["candidates"][0]["content"]["parts"]]
            told.append([(part.get("text"), part["thoughtSignature"]) for part in parts if "thoughtSignature" in part])
    assert told == [[(None, "Y2FsbA==")], [("", "c2ln")], [(None, "c2ln")]]


def test_anthropic_signs_reasoning_unless_told_not_to() -> None:
    with provide(Answer("x", reasoning="so"), Answer("x", reasoning="so", signature="")) as provider:
        assert ANTHROPIC.post(provider).content.count(b"signature_delta") == 1
        assert ANTHROPIC.post(provider).content.count(b"signature_delta") == 0


def test_anthropic_tells_what_came_from_the_cache_and_went_into_it() -> None:
    usage = Usage(input_tokens=7, output_tokens=9, cached_tokens=5, cache_write_tokens=3)
    with provide(Answer("x", usage=usage)) as provider:
        told = ANTHROPIC.post(provider, stream=False).json()["usage"]
        events = list(documents_of(ANTHROPIC.post(provider).content))
    assert told == {
        "input_tokens": 7,
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": 5,
        "output_tokens": 9,
    }
    assert events[0]["message"]["usage"] == {**told, "output_tokens": 1}
    assert events[-2]["usage"] == told


@EVERY
def test_usage_can_be_withheld(dialect: Dialect) -> None:
    with provide(Answer("a b", send_usage="never")) as provider:
        usage = our_reading(dialect.api, [dialect.post(provider).content]).usage
    assert set(usage.values()) <= {0, 1}  # Anthropic's first event always counts one token out


def test_ollama_streams_unless_told_not_to() -> None:
    with provide(Answer("a b")) as provider:
        body = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
        response = requests.post(f"{provider.url}/api/chat", json=body, timeout=5)
        assert response.headers["content-type"] == "application/x-ndjson"
        assert len(response.content.splitlines()) == 3
        [request] = provider.requests
        assert request.stream
        assert requests.get(f"{provider.url}/api/version", timeout=5).json()["version"]


def test_a_received_request_says_the_same_in_every_dialect() -> None:
    with provide(Answer()) as provider:
        for dialect in ALL:
            dialect.post(provider, model="some.model:1")
            dialect.post(provider, model="some.model:1", stream=False)
        seen = [(request.model, request.stream, request.last_user_text) for request in provider.requests]
    assert seen == [("some.model:1", True, "one two"), ("some.model:1", False, "one two")] * 5


@EVERY
@pytest.mark.parametrize("model", ["echo", "tools", "refusal", "reasoning"])
def test_the_models_for_people_speak_every_dialect(dialect: Dialect, model: str) -> None:
    with LoopbackProvider(default_script(1_000_000)) as provider:
        reading = our_reading(dialect.api, [dialect.post(provider, model=model).content])
        assert dialect.post(provider, model="fault-503-once").status_code == 503
        assert dialect.post(provider, model="fault-503-once").status_code == 200
    assert reading.error is None
    match model:
        case "echo":
            assert reading.text == "one two"
        case "tools":
            assert reading.tool_calls == [("get_weather", {"city": "Zürich", "unit": "°C"})]
        case "refusal":
            assert (reading.refusal or reading.text).startswith("I’m sorry")
        case "reasoning":
            assert (reading.reasoning or "").startswith("Let me think.")


# --- faults --------------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("after", [0, 2, 99])
@pytest.mark.parametrize("fault", [MalformedJson, InvalidUtf8, HugeEvent])
def test_an_event_that_should_not_be_there_disturbs_only_itself(dialect: Dialect, fault: Any, after: int) -> None:
    made = fault(1_000_000, after=after) if fault is HugeEvent else fault(after)
    with provide(Answer("a b c", faults=(made,))) as provider:
        body = dialect.post(provider).content
        assert provider.statistics().faults_injected == 1
    reading = our_reading(dialect.api, [body])
    strange = {MalformedJson: "", InvalidUtf8: "invalid: \ufffd\ufffd", HugeEvent: "x" * 1_000_000}[fault]
    assert reading.text == "".join(["a", " b", " c"][:after]) + strange + "".join(["a", " b", " c"][after:])
    assert dialect.end in body
    if fault is InvalidUtf8:
        with pytest.raises(UnicodeDecodeError):
            body.decode()


@EVERY
def test_an_error_frame_ends_the_answer(dialect: Dialect) -> None:
    with provide(Answer("a b c", faults=(ErrorFrame(2, message="It broke."),))) as provider:
        body = dialect.post(provider).content
    reading = our_reading(dialect.api, [body])
    assert reading.text == "a b"
    assert isinstance(reading.error, ApiError)
    assert reading.error.message == "It broke."
    assert dialect.end not in body


@pytest.mark.parametrize(
    ("dialect", "code", "told"),
    [
        (CHAT, "boom", "boom"),
        (RESPONSES, "boom", "boom"),
        (ANTHROPIC, "overloaded_error", "overloaded_error"),
        (ANTHROPIC, "server_error", "api_error"),
        (ANTHROPIC, 529, "overloaded_error"),
        (GEMINI, "UNAVAILABLE", "UNAVAILABLE"),
        (GEMINI, 429, "RESOURCE_EXHAUSTED"),
        (GEMINI, "server_error", "INTERNAL"),
    ],
)
def test_an_error_frame_has_a_code_of_its_dialect(dialect: Dialect, code: str | int, told: str) -> None:
    with provide(Answer("a", faults=(ErrorFrame(1, code),))) as provider:
        error = our_reading(dialect.api, [dialect.post(provider).content]).error
    assert getattr(error, "code", None) == told


@EVERY
def test_a_cleanly_truncated_stream_has_no_end(dialect: Dialect) -> None:
    with provide(Answer("a b c", faults=(TruncateAfter(2, clean=True),))) as provider:
        body = dialect.post(provider).content
    assert our_reading(dialect.api, [body]).text == "a b"
    assert dialect.end not in body


@EVERY
@pytest.mark.parametrize("fault", [ResetAfter(1), TruncateAfter(1), HangUp(), HangUp(reset=True)])
@pytest.mark.parametrize("stream", [True, False])
def test_a_connection_breaks_off(dialect: Dialect, fault: Fault, stream: bool) -> None:
    with provide(fault) as provider, pytest.raises(requests.exceptions.RequestException):
        dialect.post(provider, stream=stream)


@EVERY
@pytest.mark.parametrize("stream", [True, False])
def test_what_only_takes_time_loses_nothing(dialect: Dialect, stream: bool) -> None:
    faults: tuple[StreamFault, ...] = (DelayFirstByte(0.001), StallAfter(1, 0.001), HoldOpen(0.001))
    with provide(Answer("a b c", faults=faults)) as provider:
        body = dialect.post(provider, stream=stream).content
    assert our_reading(dialect.api, [body]).text == "a b c" if stream else b"a b c" in body


@EVERY
@pytest.mark.parametrize("fault", [MalformedJson(), InvalidUtf8(), ErrorFrame(message="It broke.")])
def test_a_whole_answer_can_be_spoilt(dialect: Dialect, fault: Fault) -> None:
    with provide(fault) as provider:
        response = dialect.post(provider, stream=False)
    if isinstance(fault, ErrorFrame):
        assert response.status_code == 500
        assert "It broke." in response.text
    else:
        with pytest.raises(ValueError):
            json.loads(response.content)


@EVERY
def test_a_web_page_is_no_answer_of_any_dialect(dialect: Dialect) -> None:
    with provide(NotAStream()) as provider:
        assert dialect.post(provider).headers["content-type"] == "text/html; charset=utf-8"


# --- errors --------------------------------------------------------------------------------------------------------


def test_an_error_has_the_body_of_its_dialect() -> None:
    limits = (("anthropic-ratelimit-requests-remaining", "0"),)
    with provide(Status(429, retry_after=1.5, message="Slow down.", headers=limits)) as provider:
        told = {dialect.api: dialect.post(provider) for dialect in ALL}
    assert {response.headers["retry-after"] for response in told.values()} == {"1.5"}
    assert {response.headers["anthropic-ratelimit-requests-remaining"] for response in told.values()} == {"0"}
    assert told["chat"].json()["error"]["type"] == "rate_limit_error"
    anthropic = told["messages"].json()
    assert anthropic.pop("request_id").startswith("req_")
    assert anthropic == {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down."}}
    assert told["ollama"].json() == {"error": "Slow down."}
    assert told["gemini"].json() == {
        "error": {
            "code": 429,
            "message": "Slow down.",
            "status": "RESOURCE_EXHAUSTED",
            "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s"}],
        }
    }


@pytest.mark.parametrize(
    ("path", "method", "status", "shape"),
    [
        ("/v1/messages/nothing", "POST", 404, ("type", "error")),
        ("/v1/messages", "GET", 405, ("type", "error")),
        ("/api/nothing", "GET", 404, ("error",)),
        ("/api/chat", "GET", 405, ("error",)),
        ("/v1beta/nothing", "GET", 404, ("error", "code")),
        ("/v1beta/models/m:generateContent", "GET", 405, ("error", "code")),
        ("/v1beta/models/m:countTokens", "POST", 404, ("error", "code")),
        ("/v1beta/models?pageSize=0", "GET", 400, ("error", "code")),
        ("/v1beta/models?pageToken=x", "GET", 400, ("error", "code")),
        ("/v1/responses/resp_1", "POST", 405, ("error", "type")),
        ("/v1/responses/resp_1", "GET", 404, ("error", "type")),
        ("/v1/responses/resp_1?starting_after=x", "GET", 400, ("error", "type")),
    ],
)
def test_what_is_asked_for_in_the_wrong_way_is_refused_in_the_words_of_its_dialect(
    path: str, method: str, status: int, shape: tuple[str, ...]
) -> None:
    with provide(Answer()) as provider:
        response = requests.request(method, provider.url + path, timeout=5)
    assert response.status_code == status
    told = response.json()
    for name in shape:
        assert name in told
        told = told["error"] if name == "error" else told


@pytest.mark.parametrize(
    ("dialect", "missing"),
    [(ANTHROPIC, "max_tokens"), (ANTHROPIC, "model"), (OLLAMA, "model"), (OLLAMA, "messages"), (GEMINI, "contents")],
)
def test_what_no_provider_would_take_is_refused(dialect: Dialect, missing: str) -> None:
    body: dict[str, Any] = {"model": "m", "messages": [], "contents": [], "max_tokens": 9}
    del body[missing]
    with provide(Answer()) as provider:
        url = provider.url + dialect.path.format(model="m")
        response = requests.post(url, json=body, headers=dialect.headers, timeout=5)
        assert (response.status_code, missing in response.text) == (400, True)
        assert requests.post(url, data=b"[", headers=dialect.headers, timeout=5).status_code == 400
        if dialect is ANTHROPIC:
            response = requests.post(url, json=body, timeout=5)
            assert "anthropic-version" in response.text


def test_a_body_that_is_too_large_is_refused_in_its_dialect() -> None:
    with provide(Answer(), max_body_bytes=10) as provider:
        assert ANTHROPIC.post(provider).json()["error"]["type"] == "request_too_large"
        assert GEMINI.post(provider).json()["error"]["code"] == 413


@pytest.mark.parametrize(
    ("dialect", "header", "refused"),
    [(ANTHROPIC, "x-api-key", 401), (OLLAMA, "authorization", 401), (GEMINI, "x-goog-api-key", 400)],
)
def test_the_key_comes_in_the_way_of_the_dialect_and_is_never_kept(dialect: Dialect, header: str, refused: int) -> None:
    prefix = "Bearer " if header == "authorization" else ""
    with provide(Answer(), api_key="sk-1") as provider:
        statuses = []
        for key in ("sk-1", "sk-2", "schlüssel"):
            headers: Any = {**dialect.headers, header: f"{prefix}{key}".encode()}
            url = provider.url + dialect.path.format(model="m")
            body = {"model": "m", "messages": [], "contents": [], "max_tokens": 1}
            statuses.append(requests.post(url, json=body, headers=headers, timeout=5).status_code)
        assert statuses == [200, refused, refused]
        assert dialect.post(provider).status_code == (403 if dialect is GEMINI else 401)
        assert {request.headers.get(header, "***") for request in provider.requests} == {"***"}
        assert "sk-1" not in repr(provider.requests)


def test_geminis_key_may_be_in_the_query_and_is_not_kept_either() -> None:
    with provide(Answer(), api_key="sk-1") as provider:
        url = f"{provider.url}/v1beta/models/m:generateContent"
        statuses = [
            requests.post(f"{url}?key={key}", json={"contents": []}, timeout=5).status_code for key in ("sk-1", "sk-2")
        ]
        assert statuses == [200, 400]
        assert "sk-1" not in repr([(request.path, request.headers, request.body) for request in provider.requests])


# --- responses that are kept ---------------------------------------------------------------------------------------


def _background(provider: LoopbackProvider) -> requests.Response:
    body = {"model": "m", "input": "?", "background": True, "stream": True}
    return requests.post(f"{provider.base_url}/responses", json=body, timeout=5, stream=True)


def _rest(provider: LoopbackProvider, response_id: str, after: int) -> bytes:
    query = f"?stream=true&starting_after={after}"
    return requests.get(f"{provider.base_url}/responses/{response_id}{query}", timeout=5).content


def test_the_rest_of_a_kept_response_is_what_the_first_connection_would_have_sent() -> None:
    with provide(FULL) as provider:
        events = _background(provider).content.split(b"\n\n")[:-1]
        response_id = json.loads(events[0].partition(b"data: ")[2])["response"]["id"]
        numbers = [int(re.findall(rb'"sequence_number":(\d+)', event)[0]) for event in events]
        assert numbers == list(range(len(events)))
        for after in (-1, 0, 1, 7, len(events) - 2, len(events) - 1):
            rest = _rest(provider, response_id, after)
            assert rest == b"".join(event + b"\n\n" for event in events[after + 1 :])


@pytest.mark.parametrize("fault", [ResetAfter(2), HugeEvent(10, after=1), MalformedJson(1), ErrorFrame(1)])
def test_faults_strike_the_first_connection_only(fault: StreamFault) -> None:
    with provide(Answer("a b c", faults=(fault,)), Answer("a b c")) as provider:
        with _background(provider) as first:
            head = json.loads(next(line for line in first.iter_lines() if line.startswith(b"data"))[6:])
        whole = _background(provider).content
        response_id: str = head["response"]["id"]
        rest = _rest(provider, response_id, 4)
    ids = re.compile(rb"_loopback_\d+")
    expected = b"".join(event + b"\n\n" for event in whole.split(b"\n\n")[5:-1])
    assert ids.sub(b"", rest) == ids.sub(b"", expected)


def test_further_connections_have_the_faults_that_are_theirs() -> None:
    answer = Answer("a b c", resumptions=((TruncateAfter(1, clean=True),), (), (StallAfter(0, 0.001),)))
    with provide(answer) as provider:
        head = next(documents_of(_background(provider).content))
        texts = [our_reading("responses", [_rest(provider, head["response"]["id"], 3)]).text for _ in range(4)]
    assert texts == ["a", "a b c", "a b c", "a b c"]


def test_only_so_many_responses_are_kept() -> None:
    with provide(Answer("a")) as provider, requests.Session() as session:
        ids = []
        for _ in range(257):
            body = {"model": "m", "input": "?", "background": True}
            ids.append(session.post(f"{provider.base_url}/responses", json=body, timeout=5).json()["id"])
        found = [session.get(f"{provider.base_url}/responses/{each}", timeout=5).status_code for each in ids[:2]]
        assert found == [404, 200]
        not_kept = session.post(f"{provider.base_url}/responses", json={"model": "m", "input": "?"}, timeout=5).json()
        assert session.get(f"{provider.base_url}/responses/{not_kept['id']}", timeout=5).status_code == 404
