"""W3C Trace Context: the headers ``traceparent`` and ``tracestate``. Pure.

See https://www.w3.org/TR/trace-context/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

__all__ = ["Trace", "read_trace"]

_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LONGEST_STATE: Final = 512


class Trace(msgspec.Struct, frozen=True):
    """A place in a trace: this request's span; its parent is the caller's."""

    trace_id: str
    span_id: str
    flags: str = "01"
    state: str = ""
    parent: str = ""
    """The caller's own ``traceparent``; "" if it sent none that is valid."""

    @property
    def headers(self) -> dict[str, str]:
        """The headers for calls that this request makes."""
        parent = {"traceparent": f"00-{self.trace_id}-{self.span_id}-{self.flags}"}
        return parent | ({"tracestate": self.state} if self.state else {})


def read_trace(headers: Mapping[str, str], trace_id: str, span_id: str) -> Trace:
    """Continue the caller's trace, or begin ``trace_id`` if its header is missing or not valid.

    Of a version that is not known yet, the first four fields count.

    >>> parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    >>> read_trace({"traceparent": parent}, "f" * 32, "e" * 16).headers
    {'traceparent': '00-0af7651916cd43dd8448eb211c80319c-eeeeeeeeeeeeeeee-00'}
    """
    found = _PARENT.fullmatch(headers.get("traceparent", "").strip())
    if found is None:
        return Trace(trace_id, span_id)
    version, trace, parent, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or trace == "0" * 32 or parent == "0" * 16:
        return Trace(trace_id, span_id)
    state = headers.get("tracestate", "").strip()
    state = state if len(state) <= _LONGEST_STATE and state.isprintable() else ""
    return Trace(trace, span_id, flags, state, headers["traceparent"].strip())
