"""The events of every stream: tokens, resets, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from penstock.errors import PenstockError
from penstock.events.tools import ToolEvent, ToolResult
from penstock.events.values import Choice, Cost, FinishReason, ReasoningBlock, StreamMetrics, ToolCall, Usage

__all__ = [
    "Disconnected",
    "Event",
    "StreamCancelled",
    "StreamCompleted",
    "StreamFailed",
    "StreamReset",
    "StreamSnapshot",
    "TerminalEvent",
    "TokenEvent",
    "TokenKind",
    "to_dict",
]

TokenKind: TypeAlias = Literal["text", "reasoning", "refusal"]


class TokenEvent(msgspec.Struct, frozen=True, gc=False):
    """A batch of tokens of one kind.

    Attributes:
        stream_id: whose it is.
        seq: its number in the stream's log; of a merged event, the last number it stands for.
        tokens: the tokens, in order. ``"".join(tokens) == text``.
        text: the same as one string.
        kind: ``"text"``, ``"reasoning"`` (kept apart from the text) or ``"refusal"``.
        timestamp: when it was delivered, in seconds since the epoch, for display.
        metadata: what the stream was opened with; read-only.
        dropped: how many tokens were dropped just before this event (by ``overflow`` or ``slow="drop"``).
    """

    stream_id: str
    seq: int
    tokens: tuple[str, ...]
    text: str
    kind: TokenKind
    timestamp: float
    metadata: Mapping[str, Any]
    dropped: int = 0

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(stream_id={self.stream_id!r}, seq={self.seq}, kind={self.kind!r}, "
            f"tokens={len(self.tokens)}, chars={len(self.text)}, dropped={self.dropped})"
        )


class StreamSnapshot(TokenEvent, frozen=True, gc=False):
    """Everything up to ``seq`` in one event, for a subscriber that joins after its start is no longer kept singly.

    It *is* a `TokenEvent` whose ``text`` is all the text so far, so a reader that only knows `TokenEvent` misses
    nothing; ``reasoning`` and ``refusal`` hold the other kinds, ``tool_calls`` the calls that are complete, and
    ``tool_results`` what their tools gave. Who had read some of it before must put this in the place of it, not behind
    it. Of a call that is still on its way, the pieces so far are not told again; its `ToolCallCompleted` has it whole.
    """

    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_results: tuple[ToolResult, ...] = ()


class StreamReset(msgspec.Struct, frozen=True):
    """The provider's answer broke and starts again: all text before this event is void (``on_interrupt="restart"``)."""

    stream_id: str
    seq: int
    reason: str
    timestamp: float
    metadata: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"StreamReset(stream_id={self.stream_id!r}, seq={self.seq}, reason={self.reason!r})"


class _End(msgspec.Struct, frozen=True, kw_only=True):
    """What all terminal events say. ``usage`` is None where the provider told none."""

    stream_id: str
    seq: int
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    model: str | None = None
    provider: str | None = None
    reasoning_blocks: tuple[ReasoningBlock, ...] = ()
    choices: tuple[Choice, ...] = ()
    cost: Cost | None = None
    metrics: StreamMetrics | None = None
    timestamp: float = 0.0
    metadata: Mapping[str, Any] = {}
    dropped: int = 0


class _CutShort(_End, frozen=True, kw_only=True):
    """``partial`` is the text that came before the end, whole."""

    partial: str = ""

    @property
    def text(self) -> str:
        """The same as ``partial``."""
        return self.partial


class StreamCompleted(_End, frozen=True, kw_only=True):
    """The stream ended well. ``usage`` is None and ``finish_reason`` "stop" where nobody told otherwise."""

    text: str
    finish_reason: FinishReason = "stop"
    raw_finish_reason: str | None = None

    def __repr__(self) -> str:
        return (
            f"StreamCompleted(stream_id={self.stream_id!r}, seq={self.seq}, finish_reason={self.finish_reason!r}, "
            f"chars={len(self.text)}, tool_calls={len(self.tool_calls)})"
        )


class StreamFailed(_CutShort, frozen=True, kw_only=True):
    """The stream ended with ``error``; ``partial`` is the text that came before, whole."""

    error: PenstockError

    def __repr__(self) -> str:
        return (
            f"StreamFailed(stream_id={self.stream_id!r}, seq={self.seq}, error={type(self.error).__name__}, "
            f"chars={len(self.partial)})"
        )


class StreamCancelled(_CutShort, frozen=True, kw_only=True):
    """Somebody cancelled the stream; ``reason`` is what they said, ``partial`` the text that came before."""

    reason: str | None = None

    def __repr__(self) -> str:
        return (
            f"StreamCancelled(stream_id={self.stream_id!r}, seq={self.seq}, reason={self.reason!r}, "
            f"chars={len(self.partial)})"
        )


class Disconnected(msgspec.Struct, frozen=True):
    """Told to one subscriber only, and in no log: it was too slow (``slow="disconnect"``) and gets nothing any more.

    ``seq`` is the last event it got; it may subscribe again from there.
    """

    stream_id: str
    seq: int
    error: PenstockError


TerminalEvent: TypeAlias = StreamCompleted | StreamFailed | StreamCancelled
"""The last event of a stream; there is exactly one."""

Event: TypeAlias = TokenEvent | ToolEvent | StreamReset | TerminalEvent
"""Whatever a subscriber may get."""


def to_dict(event: Event) -> dict[str, Any]:
    """Turn an event into plain JSON types, ``"type"`` first (the event's class name).

    An error becomes ``{"type": its class, "message": its text}`` with the facts it has (status, code, which …).

    >>> to_dict(TokenEvent("s", 1, ("Hi",), "Hi", "text", 0.0, {}))["type"]
    'TokenEvent'
    """
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return {"type": type(event).__name__} | {name: _plain(value) for name, value in fields.items()}


_ERROR_FACTS = ("status", "code", "retryable", "retry_after", "which", "timeout", "detail")


def _plain(value: Any) -> Any:
    if isinstance(value, PenstockError):
        facts = {name: getattr(value, name) for name in _ERROR_FACTS if getattr(value, name, None) is not None}
        return {"type": type(value).__name__, "message": str(value)} | facts
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return msgspec.to_builtins(value, enc_hook=repr)
