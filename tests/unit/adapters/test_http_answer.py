"""What a response's status and headers mean, and the removal of keys that the provider echoes."""

from __future__ import annotations

import pytest

from penstock.adapters.http.answer import Redactor, refusal_of
from penstock.errors import ApiError, ProtocolError

KEY = "sk-0123456789abcdef"


def redact(error: ApiError, key: str = KEY) -> ApiError:
    Redactor({"Authorization": f"Bearer {key}"}).redact_error(error)
    return error


@pytest.mark.parametrize("key", [KEY, "with'quote-1", 'with"quote-1', "with\\backslash-1", "both'\"-1"])
def test_a_key_is_starred_out_whatever_signs_are_in_it(key: str) -> None:
    error = redact(ApiError(401, f"your key {key} is wrong", code=f"bad_{key}"), key)
    assert error.message == "your key *** is wrong"
    assert error.code == "bad_***"
    assert key not in f"{error} {error!r}"


def test_a_message_that_was_cut_within_the_key_shows_no_piece_of_it() -> None:
    for cut in range(8, len(KEY)):
        assert redact(ApiError(401, f"your key is {KEY[:cut]}")).message == "your key is ***"
    assert redact(ApiError(401, f"your key is {KEY[:7]}")).message == f"your key is {KEY[:7]}"


def test_a_message_without_a_key_stays_as_it_is() -> None:
    error = redact(ApiError(401, "the header must be Bearer", code="sk-0"))
    assert (error.status, error.message, error.code) == (401, "the header must be Bearer", "sk-0")


def test_a_key_of_four_signs_is_a_secret_and_a_shorter_one_is_not() -> None:
    redactor = Redactor({"X-Key": "abcd", "X-Team": "efg"})
    assert redactor.redact_text("abcd of efg") == "*** of efg"


def test_bodies_and_headers_are_starred_out_with_and_without_the_word_before_the_key() -> None:
    redactor = Redactor({"Authorization": f"Bearer {KEY}", "X-Team": "abc"})
    assert redactor.redact_text(f"Bearer {KEY}, {KEY} of abc") == "***, *** of abc"
    assert redactor.redact_body(f"Bearer {KEY}, {KEY} of abc".encode()) == b"***, *** of abc"


@pytest.mark.parametrize(
    ("status", "location", "message"),
    [
        (302, "https://me:hush@there.example/x", "redirects are not followed (to there.example)"),
        (302, "/x", "redirects are not followed"),
        (302, "http://[x", "redirects are not followed"),
        (300, "https://there.example/x", "redirects are not followed (to there.example)"),
        (304, None, "unexpected status"),
        (101, "/x", "unexpected status"),
    ],
)
def test_a_status_that_is_neither_success_nor_error_is_refused(status: int, location: str | None, message: str) -> None:
    error = refusal_of(status, {} if location is None else {"location": location}, "host")
    assert isinstance(error, ApiError)
    assert (error.status, error.message) == (status, message)
    assert error.code == ("redirect" if message.startswith("redirects") else None)


def test_what_is_certainly_no_stream_is_refused_and_everything_else_is_read() -> None:
    page = refusal_of(200, {"content-type": "Text/HTML; charset=utf-8"}, "host:1")
    assert isinstance(page, ProtocolError)
    assert str(page) == "host:1 sent text/html instead of an event stream"
    codings = refusal_of(200, {"content-encoding": "gzip, gzip"}, "host:1")
    assert isinstance(codings, ProtocolError)
    assert str(codings) == "host:1 sent several content codings at once"
    for headers in (
        {},
        {"content-type": "text/event-stream"},
        {"content-type": "text/plain", "content-encoding": "gzip"},
    ):
        assert refusal_of(200, headers, "host") is None


@pytest.mark.parametrize(("coding", "package"), [("zstd", "zstandard"), ("br", "brotli"), ("Compress", None)])
def test_a_coding_that_cannot_be_decoded_is_named_with_its_package(coding: str, package: str | None) -> None:
    refused = refusal_of(200, {"content-encoding": coding}, "host:1", codings=("gzip",))
    assert isinstance(refused, ProtocolError)
    assert not refused.retryable
    assert f"'{coding.lower()}'" in str(refused)
    assert (package or "host:1") in str(refused)
    assert ("install" in str(refused)) == (package is not None)


@pytest.mark.parametrize("coding", ["", "identity", "gzip", " GZIP ", "deflate", "x-gzip"])
def test_the_usual_codings_are_read(coding: str) -> None:
    assert refusal_of(200, {"content-encoding": coding}, "host:1") is None
