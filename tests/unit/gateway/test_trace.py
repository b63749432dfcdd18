"""Trace context: what of a caller's headers is continued."""

from __future__ import annotations

import pytest

from penstock.gateway.trace import read_trace

TRACE, PARENT, OWN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "e" * 16


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{OWN}-01"),
        (f"00-{TRACE}-{PARENT}-00", f"00-{TRACE}-{OWN}-00"),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-will-bring", f"00-{TRACE}-{OWN}-01"),
        (f" 00-{TRACE}-{PARENT}-01 ", f"00-{TRACE}-{OWN}-01"),
    ],
)
def test_a_valid_parent_is_continued(given: str, expected: str) -> None:
    assert read_trace({"traceparent": given}, "f" * 32, OWN).headers["traceparent"] == expected


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-1",
    ],
)
def test_any_other_begins_a_new_trace_and_its_state_is_dropped(given: str) -> None:
    headers = {"traceparent": given, "tracestate": "a=b"}
    assert read_trace(headers, "f" * 32, OWN).headers == {"traceparent": f"00-{'f' * 32}-{OWN}-01"}


@pytest.mark.parametrize(("state", "kept"), [("a=b,c=d", "a=b,c=d"), ("", None), ("x" * 513, None), ("a=b\x01", None)])
def test_a_state_is_passed_on_with_a_valid_parent(state: str, kept: str | None) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": state}
    assert read_trace(headers, "f" * 32, OWN).headers.get("tracestate") == kept
