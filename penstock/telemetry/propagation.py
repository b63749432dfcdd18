"""Where a trace that a stream belongs to comes from. Pure; needs no OpenTelemetry."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

__all__ = ["caller_traceparent"]

caller_traceparent: Final[ContextVar[str]] = ContextVar("penstock_traceparent", default="")
"""The W3C ``traceparent`` of the request that is served, as its caller sent it; "" if it sent none that is valid.

The gateway sets it. Set it around `System.chat` where a trace comes in by other ways than OpenTelemetry's context."""
