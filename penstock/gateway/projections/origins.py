"""The inputs of a stream that is made from several, for protocols that know of one answer only. Pure.

Such a protocol can void a whole answer at most. If one input begins again, the answer is void, and what the other
inputs have said is told again.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from penstock.events import (
    Citation,
    Event,
    MediaPart,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamSnapshot,
    TokenEvent,
    ToolApprovalRequested,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionStarted,
    ToolResult,
)

__all__ = ["Origins"]

_CALLS: Final = (ToolCallStarted, ToolCallDelta, ToolCallCompleted)
_KEPT: Final = (
    *(TokenEvent, *_CALLS, ToolApprovalRequested, ToolExecutionStarted, ToolResult),
    *(Citation, MediaPart, ReasoningBlockClosed, ServerToolCall, ServerToolResult),
)


class Origins:
    """What has come of each input since its last reset, in the order in which it came."""

    __slots__ = ("_indexes", "_kept")

    def __init__(self) -> None:
        self._kept: list[_SaidRun | Event] = []
        self._indexes: dict[tuple[str | None, int], int] = {}

    def note(self, event: Any) -> Any:
        """Note an event that has an origin; returns it, with an index of its call that no other input has."""
        if type(event) is TokenEvent:
            last = self._kept[-1] if self._kept else None
            if type(last) is _SaidRun and last.is_of(event):
                last.pieces.append(event.text)
            else:
                self._kept.append(_SaidRun(event))
            return event
        if isinstance(event, _CALLS):
            place = (event.origin, event.index)
            index = self._indexes.setdefault(place, len(self._indexes))
            event = msgspec.structs.replace(event, index=index)
        if isinstance(event, _KEPT) and not (isinstance(event, MediaPart) and event.is_partial):
            self._kept.append(event)
        return event

    def fold(self, snapshot: StreamSnapshot) -> None:
        """Note what a snapshot has in place of the events up to it. Of its calls it does not say the origin."""
        self.clear()
        if all(part.origin is None for part in snapshot.parts):
            return
        calls = (
            ToolCallCompleted(stream_id=snapshot.stream_id, timestamp=snapshot.timestamp, index=-1, call=call)
            for call in snapshot.tool_calls
        )
        self._kept += [*calls, *snapshot.tool_results]
        for part in snapshot.parts:
            text = getattr(snapshot, part.kind)[part.start : part.end]
            self._kept.append(
                _SaidRun(
                    TokenEvent(
                        *(snapshot.stream_id, snapshot.seq, (text,), text, part.kind, snapshot.timestamp, {}),
                        part=part.index,
                        phase=part.phase,
                        origin=part.origin,
                    )
                )
            )
        self._kept += snapshot.answer_events

    def without(self, origin: str, seq: int) -> list[Event] | None:
        """Forget an origin; returns the events of the others, numbered ``seq``. None: nothing of it has come."""
        left = [one for one in self._kept if one.origin != origin]
        if len(left) == len(self._kept):
            return None
        self._kept = []
        for one in left:
            last = self._kept[-1] if self._kept else None
            if type(one) is _SaidRun and type(last) is _SaidRun and last.is_of(one.event):
                last.pieces += one.pieces
            else:
                self._kept.append(one)
        return [
            one.whole(seq) if isinstance(one, _SaidRun) else msgspec.structs.replace(one, seq=seq) for one in self._kept
        ]

    def clear(self) -> None:
        """The whole answer begins again."""
        self._kept = []
        self._indexes = {}


class _SaidRun:
    """Text of one origin, kind and part that came without a break."""

    __slots__ = ("event", "pieces")

    def __init__(self, event: TokenEvent) -> None:
        self.event = event
        self.pieces = [event.text]

    @property
    def origin(self) -> str | None:
        return self.event.origin

    def is_of(self, event: TokenEvent) -> bool:
        """Whether the event's text goes on with it."""
        own = self.event
        return (
            own.origin == event.origin
            and own.kind == event.kind
            and own.part == event.part
            and own.phase == event.phase
        )

    def whole(self, seq: int) -> TokenEvent:
        """All of it as one event."""
        text = "".join(self.pieces)
        self.pieces = [text]
        return msgspec.structs.replace(self.event, seq=seq, tokens=(text,), text=text)
