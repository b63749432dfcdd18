"""Events about function calls, and the first event of an agent's answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from penstock.events.values import ToolCall

__all__ = [
    "StreamStarted",
    "ToolApprovalRequested",
    "ToolCallCompleted",
    "ToolCallDelta",
    "ToolCallStarted",
    "ToolEvent",
    "ToolExecutionStarted",
    "ToolProgress",
    "ToolResult",
    "ToolResultStatus",
]


class StreamStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The first event of an agent's answer. ``model`` is the one that is asked."""

    stream_id: str = ""
    seq: int = 0
    model: str | None = None
    timestamp: float = 0.0
    metadata: Mapping[str, Any] = {}


class ToolCallStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The model begins to call a function. ``index`` counts the calls of one answer, from 0."""

    stream_id: str = ""
    seq: int = 0
    id: str
    name: str
    index: int
    timestamp: float = 0.0
    metadata: Mapping[str, Any] = {}


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a call's arguments, as text; never empty."""

    stream_id: str = ""
    seq: int = 0
    index: int
    text: str
    timestamp: float = 0.0
    metadata: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"ToolCallDelta(stream_id={self.stream_id!r}, seq={self.seq}, index={self.index})"


class ToolCallCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """All of a call is there. Its arguments may still be no JSON (``call.arguments`` is None then)."""

    stream_id: str = ""
    seq: int = 0
    index: int
    call: ToolCall
    timestamp: float = 0.0
    metadata: Mapping[str, Any] = {}


class ToolApprovalRequested(msgspec.Struct, frozen=True, kw_only=True):
    """A call waits for ``Agent.approve(call.id)`` or ``deny(call.id)``; it is denied after ``approval_timeout``."""

    stream_id: str = ""
    seq: int = 0
    call: ToolCall
    timestamp: float = 0.0
    metadata: Mapping[str, Any] = {}


class ToolExecutionStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The provider has finished a round of its answer, and these calls are run now. ``round`` counts from 1."""

    stream_id: str = ""
    seq: int = 0
    round: int
    calls: tuple[ToolCall, ...]
    timestamp: float = 0.0
    metadata: Mapping[str, Any] = {}


class ToolProgress(msgspec.Struct, frozen=True, kw_only=True):
    """What a running tool reports of itself: ``progress`` is what it gave to ``ToolContext.report``, as it is."""

    stream_id: str = ""
    seq: int = 0
    call_id: str
    name: str
    progress: Any
    timestamp: float = 0.0
    metadata: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"ToolProgress(stream_id={self.stream_id!r}, seq={self.seq}, name={self.name!r})"


ToolResultStatus: TypeAlias = Literal[
    "ok", "error", "timeout", "invalid_arguments", "unknown_tool", "denied", "cancelled"
]


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the model is told of one call: the tool's result as text, or what went wrong. In the order of the calls.

    Attributes:
        call_id: the call's ``id``.
        name: the function's.
        status: ``"ok"``; ``"error"`` (it raised, or its process died), ``"timeout"``; not run at all:
            ``"invalid_arguments"``, ``"unknown_tool"``, ``"denied"``, ``"cancelled"``.
        content: the text for the model; not in the repr.
        duration_s: seconds that the tool ran.
    """

    stream_id: str = ""
    seq: int = 0
    call_id: str
    name: str
    status: ToolResultStatus = "ok"
    content: str = ""
    duration_s: float = 0.0
    timestamp: float = 0.0
    metadata: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return (
            f"ToolResult(stream_id={self.stream_id!r}, seq={self.seq}, call_id={self.call_id!r}, name={self.name!r}, "
            f"status={self.status!r}, chars={len(self.content)})"
        )


ToolEvent: TypeAlias = (
    StreamStarted
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallCompleted
    | ToolApprovalRequested
    | ToolExecutionStarted
    | ToolProgress
    | ToolResult
)
"""Events about function calls, and an agent's start. Who pushes one leaves stream, number, time and metadata open."""
