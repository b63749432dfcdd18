"""Events about function calls, and the first event of an agent's answer."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from penstock.events.envelope import Envelope
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


class StreamStarted(Envelope, frozen=True, kw_only=True):
    """The first event of an agent's answer. ``model`` is the model that is asked."""

    model: str | None = None


class ToolCallStarted(Envelope, frozen=True, kw_only=True):
    """The model has begun to write a function call.

    Attributes:
        id: the call's id.
        name: the function's name.
        index: numbers the calls of one answer from 0.
        call_type: the call's ``type``, if the provider says it by now; else ``"function"``.
        is_server: whether the provider is known by now to run the call itself.

    `ToolCallCompleted` says both surely.
    """

    id: str
    name: str
    index: int
    call_type: str = "function"
    is_server: bool = False


class ToolCallDelta(Envelope, frozen=True, kw_only=True):
    """A piece of a call's arguments: JSON text, never empty."""

    index: int
    text: str


class ToolCallCompleted(Envelope, frozen=True, kw_only=True):
    """A call is complete. If its arguments are not valid JSON, ``call.arguments`` is None."""

    index: int
    call: ToolCall


class ToolApprovalRequested(Envelope, frozen=True, kw_only=True):
    """A call waits for ``Agent.approve(call.id)`` or ``deny(call.id)``.

    A call that is not approved within ``approval_timeout`` is denied.
    """

    call: ToolCall


class ToolExecutionStarted(Envelope, frozen=True, kw_only=True):
    """The model has finished one round of its answer, and these calls are run now. ``round`` counts from 1."""

    round: int
    calls: tuple[ToolCall, ...]


class ToolProgress(Envelope, frozen=True, kw_only=True):
    """A running tool reports progress: ``progress`` is the value it passed to ``ToolContext.report``, unchanged."""

    call_id: str
    name: str
    progress: Any


ToolResultStatus: TypeAlias = Literal[
    "ok", "error", "timeout", "invalid_arguments", "unknown_tool", "denied", "cancelled"
]


class ToolResult(Envelope, frozen=True, kw_only=True):
    """The result of one call as it is sent to the model: the tool's result as text, or what went wrong.

    The results of a round come in the order of its calls.

    Attributes:
        call_id: the call's ``id``.
        name: the function's name.
        status: ``"ok"``, ``"error"`` (it raised, or its process died) or ``"timeout"``. Tools that were not run have
            ``"invalid_arguments"``, ``"unknown_tool"``, ``"denied"`` or ``"cancelled"``.
        content: the text for the model; not in the repr.
        duration_s: how long the tool ran, in seconds.
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
"""Events about function calls, and an agent's start.

The stream they are pushed into sets ``stream_id``, ``seq``, ``timestamp`` and ``metadata``.
"""
