"""Every fault at every provider: one terminal event, a typed error, the text so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import product
from typing import Any

import pytest

import penstock
from penstock.adapters.loopback.faults import (
    DelayFirstByte,
    ErrorFrame,
    HangUp,
    HoldOpen,
    HugeEvent,
    InvalidUtf8,
    MalformedJson,
    NotAStream,
    ResetAfter,
    StallAfter,
    Status,
    TruncateAfter,
)
from penstock.adapters.loopback.replay import Replay
from penstock.adapters.loopback.script import Replies, Reply
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.events import ToolCallCompleted
from penstock.testing import Collector
from tests.contract.providers import (
    ANSWER,
    ANTHROPIC,
    CALLED,
    EVERY,
    FIVE,
    GEMINI,
    ONCE,
    OPENAI,
    REASONED,
    RESPONSES,
    SOON,
    TEXT,
    WIRES,
    WORDS,
    House,
    Wire,
    completed,
    failed,
    house,
    on_the_way,
    serving,
)

pytestmark = pytest.mark.usefixtures("each_reader")


@dataclass(frozen=True)
class Case:
    """A reply, and its outcome."""

    reply: Reply
    error: type[penstock.ProviderError]
    partial: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the error contains."""

    options: penstock.RequestOptions = ONCE
    wires: tuple[Wire, ...] = tuple(WIRES)


def refused(status: int, error: type[penstock.ProviderError], *, retryable: bool = False, **more: Any) -> Case:
    return Case(Status(status, **more), error, facts={"status": status, "retryable": retryable})


BLOCKED = (
    b'data: {"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"usageMetadata":{"promptTokenCount":4}}\r\n\r\n'
)

CASES: dict[str, Case] = {
    # --- instead of an answer
    "400": refused(400, penstock.BadRequestError),
    "401": refused(401, penstock.AuthenticationError),
    "403": refused(403, penstock.AuthenticationError),
    "404": refused(404, penstock.BadRequestError),
    "408": refused(408, penstock.ApiError, retryable=True),
    "413": refused(413, penstock.BadRequestError),
    "422": refused(422, penstock.BadRequestError),
    "429": refused(429, penstock.RateLimited, retryable=True),
    "500": refused(500, penstock.ApiError, retryable=True),
    "502": refused(502, penstock.ApiError, retryable=True),
    "503": refused(503, penstock.ApiError, retryable=True),
    "529": refused(529, penstock.ApiError, retryable=True),
    "context-length": refused(400, penstock.ContextLengthExceeded, code="context_length_exceeded"),
    "filtered-request": Case(
        Status(400, code="content_filter", message="The response was filtered."),
        penstock.ContentFilterError,
        facts={"status": 400, "retryable": False, "code": "content_filter"},
        wires=(OPENAI, RESPONSES),
    ),
    "blocked-prompt": Case(
        Replay(BLOCKED),
        penstock.ContentFilterError,
        facts={"status": 200, "retryable": False, "code": "PROHIBITED_CONTENT"},
        wires=(GEMINI,),
    ),
    "hang-up": Case(HangUp(), penstock.ConnectError, facts={"retryable": True}),
    "hang-up-reset": Case(HangUp(reset=True), penstock.ConnectError, facts={"retryable": True}),
    "not-a-stream": Case(NotAStream(), penstock.ProtocolError, facts={"retryable": False}),
    # --- the clocks
    "no-first-byte": Case(
        on_the_way(DelayFirstByte(None)),
        penstock.ProviderTimeout,
        facts={"which": "first_token", "retryable": True},
        options=ONCE.replace(first_token_timeout=0.25),
    ),
    "no-start": Case(
        on_the_way(StallAfter(0)),
        penstock.ProviderTimeout,
        facts={"which": "first_token", "retryable": True},
        options=ONCE.replace(first_token_timeout=0.25),
    ),
    "idle": Case(
        on_the_way(StallAfter(5)),
        penstock.ProviderTimeout,
        partial=FIVE,
        facts={"which": "idle", "retryable": True},
        options=ONCE.replace(idle_timeout=1.0),
    ),
    "total": Case(
        on_the_way(StallAfter(5)),
        penstock.ProviderTimeout,
        partial=FIVE,
        facts={"which": "total"},
        options=ONCE.replace(total_timeout=2.0),
    ),
    "pings-are-no-progress": Case(
        ANSWER.replace(comments=1, first_token_delay=60),
        penstock.ProviderTimeout,
        facts={"which": "first_token"},
        options=ONCE.replace(first_token_timeout=0.25),
    ),
    # --- in the middle
    "reset": Case(on_the_way(ResetAfter(5)), penstock.IncompleteStream, FIVE, {"retryable": True}),
    "cut": Case(on_the_way(TruncateAfter(5)), penstock.IncompleteStream, FIVE),
    "truncated": Case(on_the_way(TruncateAfter(5, clean=True)), penstock.IncompleteStream, FIVE),
    "cut-close": Case(on_the_way(TruncateAfter(5), framing="close"), penstock.IncompleteStream, FIVE),
    "cut-length": Case(on_the_way(TruncateAfter(5), framing="length"), penstock.IncompleteStream, FIVE),
    "truncated-gzip": Case(on_the_way(TruncateAfter(5, clean=True), framing="gzip"), penstock.IncompleteStream, FIVE),
    "cut-bytes": Case(on_the_way(TruncateAfter(5), split="bytes"), penstock.IncompleteStream, FIVE),
    "without-an-end": Case(on_the_way(TruncateAfter(99, clean=True)), penstock.IncompleteStream, TEXT),
    "without-a-beginning": Case(on_the_way(TruncateAfter(0, clean=True)), penstock.IncompleteStream),
    "huge": Case(
        on_the_way(HugeEvent(200_000, after=5)),
        penstock.ProtocolError,
        FIVE,
        {"retryable": False},
        ONCE.replace(max_event_bytes=100_000),
    ),
    "too-long": Case(
        ANSWER.replace(repeat=2_000), penstock.ProtocolError, options=ONCE.replace(max_answer_bytes=1_000)
    ),
    "error-frame": Case(
        on_the_way(ErrorFrame(5, message="It broke.")),
        penstock.ApiError,
        FIVE,
        {"status": 200, "message": "It broke."},
    ),
    "error-frame-then-nothing": Case(
        on_the_way(ErrorFrame(5, message="It broke.", then_done=False), HoldOpen(0)),
        penstock.ApiError,
        FIVE,
        {"status": 200, "message": "It broke."},
    ),
    "first-an-error-frame": Case(on_the_way(ErrorFrame(0)), penstock.ApiError, facts={"status": 200}),
    "error-frame-overloaded": Case(
        on_the_way(ErrorFrame(5, 529)), penstock.ApiError, FIVE, {"retryable": True}, wires=(OPENAI, ANTHROPIC)
    ),
    "error-frame-of-a-server": Case(
        on_the_way(ErrorFrame(5)),
        penstock.ApiError,
        FIVE,
        {"retryable": True},
        wires=(OPENAI, RESPONSES, ANTHROPIC, GEMINI),
    ),
    "error-frame-rate-limit": Case(
        on_the_way(ErrorFrame(5, "rate_limit_exceeded")),
        penstock.RateLimited,
        FIVE,
        {"retryable": True, "code": "rate_limit_exceeded"},
        wires=(OPENAI, RESPONSES),
    ),
    "error-frame-rate-limit-own": Case(
        on_the_way(ErrorFrame(5, "rate_limit_error")),
        penstock.RateLimited,
        FIVE,
        {"retryable": True, "code": "rate_limit_error"},
        wires=(ANTHROPIC,),
    ),
    "error-frame-quota": Case(
        on_the_way(ErrorFrame(5, 429)),
        penstock.RateLimited,
        FIVE,
        {"retryable": True, "code": "RESOURCE_EXHAUSTED"},
        wires=(GEMINI,),
    ),
    "error-frame-filter": Case(
        on_the_way(ErrorFrame(5, "content_filter")), penstock.ContentFilterError, FIVE, wires=(OPENAI, RESPONSES)
    ),
    "error-frame-key": Case(
        on_the_way(ErrorFrame(5, "authentication_error")),
        penstock.AuthenticationError,
        FIVE,
        wires=(OPENAI, RESPONSES, ANTHROPIC),
    ),
    "error-frame-length": Case(
        on_the_way(ErrorFrame(0, message="prompt is too long: 9 tokens > 8 maximum")), penstock.ContextLengthExceeded
    ),
}

RETRY_INFO = (
    b'{"error":{"code":429,"message":"Quota.","status":"RESOURCE_EXHAUSTED",'
    b'"details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.5s"}]}}'
)


@pytest.fixture(scope="module")
def server(each_reader: str) -> Iterator[LoopbackProvider]:
    models: dict[str, Replies] = {name: case.reply for name, case in CASES.items()}
    models |= {f"wait-{name}": reply for name, (reply, _, _) in WAITS.items()}
    for wire, status in product(WIRES, (429, 503)):
        models[f"waits-{status}-{wire.name}"] = [Status(status, retry_after=0.3), ANSWER]
    models |= {
        "malformed": on_the_way(MalformedJson(5)),
        "malformed-first": on_the_way(MalformedJson(0)),
        "invalid": on_the_way(InvalidUtf8(5)),
        "large": on_the_way(HugeEvent(len(STRANGE), after=5)),
        "late": on_the_way(DelayFirstByte(0.05)),
        "pause": on_the_way(StallAfter(5, 0.05)),
        "no-marker": ANSWER.replace(done_marker=False, send_usage="always"),
        "held-open": on_the_way(HoldOpen(), send_usage="always"),
        "no-marker-held-open": on_the_way(HoldOpen(), done_marker=False, send_usage="always"),
        "broken-reasoning": REASONED.replace(faults=(TruncateAfter(2, clean=True),)),
        "broken-call": CALLED.replace(faults=(TruncateAfter(4, clean=True),)),
        "gemini-retry-info": Replay(RETRY_INFO, status=429, content_type="application/json"),
    }
    with serving(models) as running:
        yield running


@pytest.fixture
def here(server: LoopbackProvider) -> Iterator[House]:
    with house(server) as made:
        yield made


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_one_typed_error_with_the_text_that_had_come(here: House, name: str) -> None:
    case = CASES[name]
    streams = {wire: here.ask(wire, name, request_options=case.options) for wire in case.wires}
    collectors = {wire: Collector(stream) for wire, stream in streams.items()}
    for wire, collector in collectors.items():
        end = failed(collector)
        assert type(end.error) is case.error, wire.name
        assert {fact: getattr(end.error, fact) for fact in case.facts} == case.facts, wire.name
        if name == "too-long":
            assert (TEXT * 20).startswith(end.partial)
            assert len(end.partial) <= 1_000
        else:
            assert end.partial == case.partial, wire.name
        assert (end.provider, end.tool_calls, end.refusal) == (wire.name, (), "")
        with pytest.raises(case.error):
            streams[wire].result()
    assert len(here.requests(name)) % len(case.wires) == 0
    assert len(here.requests(name)) == len(case.wires), "it is not tried again"


# --- what is no failure --------------------------------------------------------------------------------------------

STRANGE = "x" * 200_000


@EVERY
def test_an_event_that_is_not_understood_is_skipped_or_mended(here: House, wire: Wire) -> None:
    rest = "".join(WORDS[5:])
    expected = {
        "malformed": TEXT,
        "malformed-first": TEXT,
        "invalid": FIVE + "invalid: \ufffd\ufffd" + rest,
        "large": FIVE + STRANGE + rest,
    }
    watched = {name: here.watch(wire, name) for name in expected}
    for name, collector in watched.items():
        end = completed(collector)
        assert end.text == expected[name], name
        assert (end.finish_reason, end.raw_finish_reason) == wire.finish["stop"], name


@EVERY
def test_a_pause_that_is_short_enough_is_no_failure(here: House, wire: Wire) -> None:
    watched = [here.watch(wire, name) for name in ("late", "pause")]
    assert [completed(collector).text for collector in watched] == [TEXT, TEXT]


@EVERY
def test_all_that_is_said_is_the_answer_though_the_end_marker_or_the_end_of_the_body_never_comes(
    here: House, wire: Wire
) -> None:
    options = ONCE.replace(finish_grace=0.5)
    names = ("no-marker", "held-open", "no-marker-held-open")
    watched = [here.watch(wire, name, request_options=options) for name in names]
    for collector in watched:
        end = completed(collector)
        assert end.text == TEXT
        assert (end.finish_reason, end.raw_finish_reason) == wire.finish["stop"]
        assert end.usage is not None
    here.server.wait_for(lambda counts: counts.active_responses == 0)


@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire is not GEMINI], ids=lambda wire: wire.name)
def test_behind_an_end_marker_nothing_is_waited_for(here: House, wire: Wire) -> None:
    """Gemini has none."""
    end = completed(here.watch(wire, "held-open", request_options=ONCE.replace(finish_grace=60)))
    assert end.text == TEXT


# --- what had come -------------------------------------------------------------------------------------------------


@EVERY
def test_a_broken_answer_keeps_its_reasoning_and_its_calls_and_no_call_that_is_not_whole_can_be_run(
    here: House, wire: Wire
) -> None:
    thought, asked = here.watch(wire, "broken-reasoning"), here.watch(wire, "broken-call")
    end = failed(thought)
    assert (end.text, end.reasoning) == ("", "so it")
    end = failed(asked)
    assert end.text == "a b c"
    [call] = end.tool_calls
    piece = '{"city":"Zürich"}' if wire.sends_whole_calls else '{"city":'
    assert (call.id, call.name, call.arguments_raw) == ("call_1", "f", piece)
    assert call.arguments == ({"city": "Zürich"} if wire.sends_whole_calls else None)
    assert not any(isinstance(event, ToolCallCompleted) for event in asked.events)


# --- how long to wait ----------------------------------------------------------------------------------------------


def in_an_hour(form: Callable[[datetime], str]) -> str:
    return form(datetime.now(UTC) + timedelta(hours=1))


def _http(when: datetime) -> str:
    return format_datetime(when, usegmt=True)


def _rfc3339(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


OPENAI_LIMITS = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-reset-requests": "1h0m0s",
    "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-tokens": "6ms",
}
ANTHROPIC_LIMITS = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "0",
    "anthropic-ratelimit-requests-reset": in_an_hour(_rfc3339),
    "anthropic-ratelimit-tokens-remaining": "40000",
    "anthropic-ratelimit-tokens-reset": in_an_hour(_rfc3339),
}
WAITS: dict[str, tuple[Replies, tuple[Wire, ...], float]] = {
    "seconds": (Status(429, retry_after=3600), tuple(WIRES), 3600),
    "date": (Status(429, retry_after=in_an_hour(_http)), tuple(WIRES), 3600),
    "busy-seconds": (Status(503, retry_after=3600), tuple(WIRES), 3600),
    "openai": (Status(429, headers=tuple(OPENAI_LIMITS.items())), (OPENAI, RESPONSES), 3600),
    "milliseconds": (Status(429, headers=(("retry-after-ms", "3600000"),)), (OPENAI, RESPONSES), 3600),
    "anthropic": (Status(429, headers=tuple(ANTHROPIC_LIMITS.items())), (ANTHROPIC,), 3600),
}


@pytest.mark.parametrize("name", WAITS)
def test_how_long_to_wait_is_read_as_each_provider_says_it(server: LoopbackProvider, name: str) -> None:
    _, wires, seconds = WAITS[name]
    for wire in wires:
        # With retries, except after such a long wait. A separate system, since the gate of this one stays closed.
        with house(server, SOON) as here:
            error = failed(here.watch(wire, f"wait-{name}")).error
            assert isinstance(error, penstock.ApiError)
            assert error.retry_after is not None, wire.name
            assert seconds - 600 < error.retry_after <= seconds + 1, wire.name
    assert len(here.requests(f"wait-{name}")) == len(wires)


@EVERY
@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_waits_as_long_as_it_is_asked_to(server: LoopbackProvider, wire: Wire, status: int) -> None:
    model = f"waits-{status}-{wire.name}"
    with house(server, SOON) as here:
        begun = time.monotonic()
        assert completed(here.watch(wire, model)).text == TEXT
        assert time.monotonic() - begun >= 0.3
        assert len(here.requests(model)) == 2


def test_gemini_says_how_long_in_the_body(here: House) -> None:
    error = failed(here.watch(GEMINI, "gemini-retry-info")).error
    assert isinstance(error, penstock.RateLimited)
    assert (error.retry_after, error.code) == (34.5, "RESOURCE_EXHAUSTED")
