"""What the start of a call says of its kind decides how each protocol tells of it."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.events import ToolCallDelta, ToolCallStarted
from penstock.gateway.protocols import PROTOCOLS
from tests.unit.gateway.reading import fed, opening

STARTED = ToolCallStarted(stream_id="s1", seq=1, id="call_1", name="sql", index=0, call_type="custom")
HOSTED = ToolCallStarted(stream_id="s1", seq=1, id="call_1", name="find", index=0, is_server=True)


def sent(name: str, *events: Any) -> str:
    frames = fed(PROTOCOLS[name].projection(opening(None)), list(events))
    return b"".join(frame.data for frame in frames).decode()


@pytest.mark.parametrize("name", ["openai", "responses", "anthropic"])
def test_a_call_that_the_provider_runs_is_not_begun_for_the_client(name: str) -> None:
    delta = ToolCallDelta(stream_id="s1", seq=2, index=0, text="{}")
    assert "call_1" not in sent(name, HOSTED, delta)
    other = ToolCallStarted(stream_id="s1", seq=1, id="call_1", name="find", index=0)
    assert "call_1" in sent(name, other, delta)


def test_a_call_that_the_provider_runs_says_so_to_the_ui() -> None:
    assert '"providerExecuted":true' in sent("ui", HOSTED)
    assert "providerExecuted" not in sent("ui", STARTED)


def test_a_custom_call_is_one_from_its_start_though_the_request_declares_none() -> None:
    assert '"custom":{"name":"sql","input":""}' in sent("openai", STARTED)
    assert "custom_tool_call" in sent("responses", STARTED)
