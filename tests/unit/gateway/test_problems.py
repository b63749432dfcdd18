"""What of an error reaches a client."""

from __future__ import annotations

import pytest

from penstock import errors
from penstock.errors import PenstockError
from penstock.events import StreamCancelled, StreamFailed
from penstock.gateway.problems import problem_of
from penstock.gateway.projections.frames import Opening
from penstock.gateway.protocols import PROTOCOLS

SECRET = "SECRET-CONTENT"
ERRORS: list[PenstockError] = [
    errors.StreamCancelledError(SECRET, SECRET, SECRET),
    errors.StreamCrashed(SECRET, SECRET),
    errors.StreamNotFound(SECRET),
    errors.StreamExists(SECRET),
    errors.StreamClosed(SECRET),
    errors.SubscriberTooSlow(SECRET, 5),
    errors.DeliveryError(SECRET, 3),
    errors.BufferFull(SECRET, 10, 0.0, 7),
    errors.AgentExists(SECRET),
    errors.AgentBusy(SECRET, 3),
    errors.AgentStopped(SECRET),
    errors.AgentCrashed(SECRET, SECRET),
    errors.CallTimeout(SECRET, 5.0),
    errors.ProcessDead(SECRET, SECRET),
    errors.SystemStopped(SECRET),
    errors.AuthenticationError(401, f"Incorrect API key provided: {SECRET}", code="invalid_api_key"),
    errors.ConnectError(SECRET, SECRET),
    errors.LocalError(SECRET),
    errors.CircuitOpen(SECRET, 2.0),
    errors.ProviderBusy(SECRET, SECRET),
    errors.ProtocolError(SECRET),
    errors.IncompleteStream(SECRET),
    errors.OptionError("n", SECRET, "1 or more"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_says_nothing_that_another_one_has_written(error: PenstockError) -> None:
    opening = Opening(stream_id="s", epoch="e", created=0)
    event = StreamFailed(stream_id="s", seq=1, partial="", error=error, timestamp=0.0)
    assert SECRET not in problem_of(error).message
    for protocol in PROTOCOLS.values():
        frames = protocol.projection(opening).feed(event)
        assert frames
        assert SECRET.encode() not in b"".join(frame.data for frame in frames), protocol.name


def test_a_provider_without_a_key_is_a_fault_of_the_gateway_and_not_of_the_request() -> None:
    problem = problem_of(errors.OptionError("api_key", None, "a key for https://api.openai.com/v1"))
    assert (problem.status, problem.code, problem.param) == (503, "provider_key_missing", None)
    assert problem.message.startswith("The gateway has no API key for this provider.")


@pytest.mark.parametrize("name", ["openai", "responses", "anthropic"])
def test_an_error_does_not_repeat_why_a_stream_was_cancelled(name: str) -> None:
    opening = Opening(stream_id=SECRET, epoch="e", created=0)
    event = StreamCancelled(stream_id=SECRET, seq=1, partial="", reason=SECRET, timestamp=0.0)
    frames = PROTOCOLS[name].projection(opening).feed(event)
    errors = [frame.data for frame in frames if b'"error"' in frame.data and b"stream_cancelled" in frame.data]
    assert all(SECRET.encode() not in data for data in errors)
    assert errors or name == "responses"


def test_the_providers_own_sentence_reaches_the_one_it_is_for() -> None:
    problem = problem_of(errors.BadRequestError(400, "max_tokens is too large", code="invalid_value"))
    assert (problem.status, problem.code) == (400, "invalid_value")
    assert "max_tokens is too large" in problem.message


def test_a_full_buffer_says_how_many_tokens_were_taken() -> None:
    assert "first 7 were taken" in problem_of(errors.BufferFull("s", 10, 0.0, 7)).message
