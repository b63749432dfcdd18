"""How error responses are classified, and how long they ask to wait."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.adapters.providers.shared.errors import error_frame, error_response
from penstock.config.options import RequestOptions, StreamOptions
from penstock.config.settings import Settings
from penstock.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthExceeded,
    OptionError,
    RateLimited,
)
from penstock.ports import ChatCall


def answer(status: int, error: Any = None, **headers: str) -> ApiError:
    body = b"" if error is None else json.dumps({"error": error}).encode()
    return error_response(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


@pytest.mark.parametrize(
    ("status", "error", "kind", "retryable"),
    [
        (401, {"code": "invalid_api_key", "message": "m"}, AuthenticationError, False),
        (403, None, AuthenticationError, False),
        (400, {"code": "context_length_exceeded", "message": "m"}, ContextLengthExceeded, False),
        (400, {"message": "This model's maximum context length is 8192 tokens."}, ContextLengthExceeded, False),
        (400, {"type": "exceed_context_size_error", "message": "m"}, ContextLengthExceeded, False),
        (400, {"message": "the input length exceeds the context length"}, ContextLengthExceeded, False),
        (400, {"code": "content_filter", "message": "m"}, ContentFilterError, False),
        (400, {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}, ContentFilterError, False),
        (400, {"message": "m"}, BadRequestError, False),
        (404, {"code": "model_not_found", "message": "m"}, BadRequestError, False),
        (422, None, BadRequestError, False),
        (402, {"message": "pay"}, ApiError, False),
        (429, {"code": "rate_limit_exceeded", "message": "m"}, RateLimited, True),
        (413, {"code": "rate_limit_exceeded", "message": "m"}, RateLimited, True),
        (429, {"code": "insufficient_quota", "message": "m"}, RateLimited, False),
        (408, None, ApiError, True),
        (500, {"type": "server_error", "message": "m"}, ApiError, True),
        (503, None, ApiError, True),
        (529, {"type": "overloaded_error", "message": "m"}, ApiError, True),
        (501, None, ApiError, False),
    ],
)
def test_an_answer_gets_the_type_that_says_what_to_do(status: int, error: Any, kind: type, retryable: bool) -> None:
    told = answer(status, error)
    assert type(told) is kind
    assert told.retryable is retryable
    assert told.status == status


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        ({"code": 429, "message": "m"}, RateLimited, True),
        ({"code": 401, "message": "m"}, AuthenticationError, False),
        ({"code": 502, "message": "m"}, ApiError, True),
        ({"code": 400, "message": "m"}, BadRequestError, False),
        ({"type": "server_error", "message": "m"}, ApiError, True),
        ({"type": "overloaded_error", "message": "m"}, ApiError, True),
        ({"type": "invalid_request_error", "message": "m"}, BadRequestError, False),
        ({"code": 500, "message": "Context size has been exceeded."}, ContextLengthExceeded, False),
        ({"code": "tool_use_failed", "status_code": 400, "message": "m"}, BadRequestError, False),
        ({"message": "m"}, ApiError, False),
    ],
)
def test_an_error_frame_is_classified_by_its_own_code(error: Any, kind: type, retryable: bool) -> None:
    told = error_frame({"error": error})
    assert type(told) is kind
    assert told.retryable is retryable
    assert told.status == 200


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after": "-3"}, 0.0),
        ({"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:10 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 10.0),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert answer(429, **headers).retry_after == seconds
    assert answer(503, **headers).retry_after == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"remaining_requests": "0", "reset_requests": "1s", "remaining_tokens": "5", "reset_tokens": "6m0s"}, 1.0),
        ({"remaining_requests": "7", "reset_requests": "1s", "remaining_tokens": "0", "reset_tokens": "6m0s"}, 360.0),
        ({"remaining_requests": "0", "reset_requests": "1s", "remaining_tokens": "0", "reset_tokens": "2s"}, 2.0),
        ({"remaining_requests": "0", "reset_requests": "1s", "reset_tokens": "6m0s"}, 1.0),
        ({"reset_requests": "12ms"}, 0.012),
        ({"remaining_requests": "3", "reset_requests": "9s", "remaining_tokens": "5", "reset_tokens": "9s"}, None),
        ({"remaining_requests": "0"}, None),
    ],
)
def test_a_429_that_does_not_say_when_waits_for_the_limit_it_exhausted(headers: dict[str, str], seconds: float) -> None:
    limits = {f"x_ratelimit_{name}": value for name, value in headers.items()}
    assert answer(429, **limits).retry_after == seconds
    assert answer(429, **limits, retry_after="soon").retry_after == seconds
    assert answer(429, **limits, retry_after="4").retry_after == 4.0
    assert answer(503, **limits).retry_after is None


def test_openais_word_on_retrying_counts() -> None:
    assert answer(500, None, x_should_retry="false").retryable is False
    assert answer(400, None, x_should_retry="true").retryable is True


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad gateway</html>", b'{"error":{"mess', b"[]", b"null", b"\xff", b"[[["]
)
def test_a_body_that_says_nothing_leaves_the_statuss_own_words(body: bytes) -> None:
    assert str(error_response(502, {}, body)) == "HTTP 502: Bad Gateway"


def test_messages_are_found_in_every_shape_and_kept_short() -> None:
    def message(payload: Any) -> str:
        return error_response(400, {}, json.dumps(payload).encode()).message

    assert message({"detail": [{"loc": ["body"], "msg": "field required"}]}) == "field required"
    assert message({"message": "m", "code": "InvalidParameter"}) == "m"
    assert message([{"error": {"code": 400, "message": "m", "status": "X"}}]) == "m"
    assert message("plain") == "plain"
    assert len(message({"error": {"message": "x" * 5_000}})) == 1_000


@pytest.mark.parametrize(
    "url", ["https://host/v1?key=hush", "https://host/v1#hush", "https://host /hush@x", "ftp://hush@x"]
)
def test_a_url_that_may_hold_a_secret_is_not_shown(url: str) -> None:
    with pytest.raises(OptionError) as caught:
        OpenAiChat(None, url)
    assert "hush" not in str(caught.value) + repr(caught.value.args)


@pytest.mark.parametrize("value", [StreamOptions(), RequestOptions(), Settings()])
def test_our_own_options_are_no_parameters_of_a_request(value: object) -> None:
    with pytest.raises(OptionError, match="request_options") as caught:
        OpenAiChat(None, "http://host/v1").request(ChatCall(model="m", input=[], parameters={"opts": value}))
    assert caught.value.field == "opts"


def test_a_code_is_cut_to_what_can_be_shown() -> None:
    error = error_frame({"error": {"message": "m", "code": "x" * 5000}})
    assert error.code == "x" * 100
