"""The log events of a stream's life."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

import penstock
from penstock.errors import ApiError
from penstock.events import Usage
from penstock.ports import TextDelta, ToolCallFragment, UsageDelta
from penstock.telemetry.lifecycle import EVENTS, log_streams
from penstock.testing import HANG, ScriptedAttempt, ScriptedProvider, SimulatedSystem
from tests.conformance.common import FAST

BUSY = ApiError(503, "the key sk-123 is busy", retryable=False)
PRIVATE = "a private matter"


class Kept:
    """A logger that keeps what it gets."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.said.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.said.append(("warning", event, fields))

    @property
    def events(self) -> list[str]:
        return [event for _, event, _ in self.said]


def double(x: int) -> int:
    """Double a number."""
    return 2 * x


def ask(system: SimulatedSystem, *script: Any, **more: Any) -> penstock.Stream:
    provider = ScriptedProvider([*script], name="p")
    stream = system.chat("m", PRIVATE, provider=provider, options=FAST, stream_id="s", **more)
    system.advance(2.0)
    return stream


def test_a_stream_is_logged_from_its_opening_to_its_end() -> None:
    log = Kept()
    with SimulatedSystem(3) as system:
        log_streams(system, log)
        ask(system, 0.5, TextDelta(PRIVATE), UsageDelta(Usage(input_tokens=7, output_tokens=2)))
    assert log.said[0] == ("info", "stream_opened", {"stream_id": "s", "provider": "p", "model": "m"})
    about = {"stream_id": "s", "provider": "p", "model": "m"}
    assert log.said[1] == ("info", "provider_call_ended", about | {"round": 1, "attempts": 1})
    level, event, fields = log.said[2]
    assert (level, event) == ("info", "stream_ended")
    assert fields == about | {
        "outcome": "completed",
        "token_count": 1,
        "input_token_count": 7,
        "output_token_count": 2,
        "time_to_first_token_s": pytest.approx(0.5, abs=0.06),
        "duration_s": pytest.approx(0.5, abs=0.06),
        "attempts": 1,
        "error_count": 0,
        "tool_count": 0,
        "finish_reason": "stop",
    }
    assert len(log.said) == 3


def test_a_failure_is_a_warning_with_the_name_of_the_error() -> None:
    log = Kept()
    with SimulatedSystem(3) as system:
        log_streams(system, log)
        ask(system, BUSY)
    assert [(level, event, fields.get("error")) for level, event, fields in log.said] == [
        ("info", "stream_opened", None),
        ("warning", "provider_call_ended", "ApiError"),
        ("warning", "stream_ended", "ApiError"),
    ]


def test_a_cancelled_stream_ends_as_such() -> None:
    log = Kept()
    with SimulatedSystem(3) as system:
        log_streams(system, log)
        ask(system, TextDelta("a"), HANG).cancel(PRIVATE)
    assert log.said[-1][2]["outcome"] == "cancelled"
    assert log.said[-1][0] == "info"


def test_tools_and_resets_are_logged() -> None:
    log = Kept()
    with SimulatedSystem(3) as system:
        log_streams(system, log)
        fragment = ToolCallFragment(index=0, id="c", name="double", arguments='{"x": 4}')
        provider = ScriptedProvider(ScriptedAttempt((fragment,), finish="tool_calls"), [PRIVATE], name="p")
        agent = system.agent("helper", model="m", provider=provider, tools=[double], options=FAST)
        agent.stream_chat(PRIVATE)
        system.advance(5.0)
        agent.stop()
        stream = system.open_stream("pushed")
        stream.reset(PRIVATE)
        stream.stop()
    assert log.events == [
        "stream_opened", "provider_call_ended", "tools_started", "tool_ended", "provider_call_ended", "stream_ended",
        "stream_opened", "stream_reset", "stream_ended",
    ]  # fmt: skip
    tool = next(fields for _, event, fields in log.said if event == "tool_ended")
    assert (tool["tool"], tool["status"]) == ("double", "ok")
    assert [fields["round"] for _, event, fields in log.said if event == "provider_call_ended"] == [1, 2]


def test_every_event_and_field_is_in_the_table_and_nothing_private_is_in_it() -> None:
    log = Kept()
    with SimulatedSystem(3) as system:
        log_streams(system, log)
        ask(system, TextDelta(PRIVATE), 0.5, BUSY, metadata={"user": PRIVATE})
        ask(system, TextDelta(PRIVATE), 0.5, TextDelta(PRIVATE)).result()
    for _, event, fields in log.said:
        assert set(fields) <= set(EVENTS[event]), event
    assert PRIVATE not in repr(log.said)
    assert "sk-123" not in repr(log.said)


def test_by_default_they_go_to_the_log_of_the_standard_library(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "penstock")
    with SimulatedSystem(3) as system:
        log_streams(system)
        log_streams(system)  # changes nothing
        ask(system, TextDelta(PRIVATE))
    records = [record for record in caplog.records if record.message.startswith("stream_ended")]
    assert len(records) == 1
    assert records[0].name == "penstock"
    assert records[0].penstock["token_count"] == 1  # type: ignore[attr-defined]
    assert PRIVATE not in caplog.text


@pytest.fixture
def own_structlog() -> Iterator[None]:
    """`capture_logs` configures structlog; other tests find it as it was."""
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("own_structlog")
def test_structlog_gets_them_as_its_own() -> None:
    with structlog.testing.capture_logs() as said, SimulatedSystem(3) as system:
        log_streams(system, structlog.get_logger("llm"))
        ask(system, TextDelta("a"))
    assert [entry["event"] for entry in said] == ["stream_opened", "provider_call_ended", "stream_ended"]
    assert said[-1]["outcome"] == "completed"
    assert said[-1]["log_level"] == "info"


def test_a_model_named_like_a_key_is_scrubbed() -> None:
    log = Kept()
    with SimulatedSystem(3) as system:
        log_streams(system, log)
        system.chat("sk-abcdefghijkl", "Hi", provider=ScriptedProvider(["a"]), options=FAST)
        system.advance(1.0)
    assert "abcdefghijkl" not in repr(log.said)
