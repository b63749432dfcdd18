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


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What all of these say. The repr leaves out what may be somebody's secret: texts, results, metadata."""

    stream_id: str = ""
    seq: int = 0
    timestamp: float = 0.0
    metadata: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        shown = [f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in _HIDDEN]
        return f"{type(self).__name__}({', '.join(shown)})"


_HIDDEN = frozenset({"timestamp", "metadata", "text", "progress", "content"})


class StreamStarted(_Told, frozen=True, kw_only=True):
    """The first event of an agent's answer. ``model`` is the one that is asked."""

    model: str | None = None


class ToolCallStarted(_Told, frozen=True, kw_only=True):
    """The model begins to call a function. ``index`` counts the calls of one answer, from 0."""

    id: str
    name: str
    index: int


class ToolCallDelta(_Told, frozen=True, kw_only=True):
    """A piece of a call's arguments, as text; never empty."""

    index: int
    text: str


class ToolCallCompleted(_Told, frozen=True, kw_only=True):
    """All of a call is there. Its arguments may still be no JSON (``call.arguments`` is None then)."""

    index: int
    call: ToolCall


class ToolApprovalRequested(_Told, frozen=True, kw_only=True):
    """A call waits for ``Agent.approve(call.id)`` or ``deny(call.id)``; it is denied after ``approval_timeout``."""

    call: ToolCall


class ToolExecutionStarted(_Told, frozen=True, kw_only=True):
    """The provider has finished a round of its answer, and these calls are run now. ``round`` counts from 1."""

    round: int
    calls: tuple[ToolCall, ...]


class ToolProgress(_Told, frozen=True, kw_only=True):
    """What a running tool reports of itself: ``progress`` is what it gave to ``ToolContext.report``, as it is."""

    call_id: str
    name: str
    progress: Any


ToolResultStatus: TypeAlias = Literal[
    "ok", "error", "timeout", "invalid_arguments", "unknown_tool", "denied", "cancelled"
]


class ToolResult(_Told, frozen=True, kw_only=True):
    """What the model is told of one call: the tool's result as text, or what went wrong. In the order of the calls.

    Attributes:
        call_id: the call's ``id``.
        name: the function's.
        status: ``"ok"``; ``"error"`` (it raised, or its process died), ``"timeout"``; not run at all:
            ``"invalid_arguments"``, ``"unknown_tool"``, ``"denied"``, ``"cancelled"``.
        content: the text for the model; not in the repr.
        duration_s: seconds that the tool ran.
    """

    call_id: str
    name: str
    status: ToolResultStatus = "ok"
    content: str = ""
    duration_s: float = 0.0


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
