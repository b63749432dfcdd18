"""How the projections for browsers are fed: a snapshot becomes the events that it stands for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

from penstock.events import (
    Citation,
    Event,
    Logprobs,
    MediaPart,
    ProviderEvent,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    StreamStarted,
    TerminalEvent,
    TokenEvent,
    ToolApprovalRequested,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
)
from penstock.gateway.projections.calls import CallTeller
from penstock.gateway.projections.catching_up import Emitted
from penstock.gateway.projections.frames import Frame, Opening, Projection
from penstock.gateway.projections.origins import Origins

__all__ = ["FedProjection"]

_METHODS: Final[Mapping[type, str]] = {
    StreamStarted: "_nothing",
    Logprobs: "_nothing",
    ToolCallStarted: "_call_started",
    ToolCallDelta: "_call_delta",
    ToolCallCompleted: "_call_completed",
    ToolApprovalRequested: "_approval",
    ToolExecutionStarted: "_execution",
    ToolProgress: "_progress",
    ToolResult: "_result",
    ServerToolCall: "_server_call",
    ServerToolResult: "_server_result",
    Citation: "_citation",
    MediaPart: "_media_part",
    ReasoningBlockClosed: "_reasoning_block",
    ProviderEvent: "_raw",
    StreamCompleted: "_completed",
    StreamFailed: "_failed",
    StreamCancelled: "_cancelled",
}
"""The method of each protocol that makes the frames of an event, by the event's class; the others go to `_other`."""


class FedProjection(Projection):
    """What the projections onto the UI message stream and onto AG-UI have in common.

    One of a protocol makes the frames of an event that stands alone, and keeps open what text of each origin goes into.

    The variant ``from`` is the number of the last event of the answer before this one, which ended to ask the user:
    earlier events are read, and make no frames.
    """

    _handlers: ClassVar[Mapping[type, Callable[[Any, Any], list[Frame]]]]
    """What makes the frames of events other than text, snapshots and resets, by the event's class."""
    _tools: CallTeller

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._handlers = {kind: getattr(cls, name) for kind, name in _METHODS.items()}

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._after = int(text) if (text := opening.variant.get("from", "")).isdecimal() else -1
        self._has_begun = False
        self._open: dict[str | None, Any] = {}  # what takes the text of each origin
        self._origins = Origins()
        self._media: set[tuple[str | None, ...]] = set()
        self._emitted = Emitted()

    # --- of each protocol ----------------------------------------------------------------------------------------

    def _begin(self, event: Event) -> list[Frame]:
        """The frames before all others. ``event``: the first one."""
        raise NotImplementedError

    def _token(self, event: TokenEvent) -> list[Frame]:
        """The frames of a piece of text."""
        raise NotImplementedError

    def _other(self, event: Event) -> list[Frame]:
        """The frames of an event that has no handler."""
        raise NotImplementedError

    def _close(self, seq: int, origin: str | None) -> list[Frame]:
        """End what is open of an origin, if there is anything."""
        raise NotImplementedError

    def _void(self, event: StreamReset) -> list[Frame]:
        """Begin the whole answer again."""
        raise NotImplementedError

    # --- feeding -------------------------------------------------------------------------------------------------

    def feed(self, event: Event) -> list[Frame]:
        if self.is_over:
            return []
        if type(event) is TokenEvent and self._has_begun and not event.dropped:
            if event.origin is not None:
                self._origins.note(event)
            self._emitted.seq = event.seq
            return self._token(event)
        self.note_lost(event)
        if getattr(event, "origin", None) is not None:
            event = self._origins.note(event)
        is_earlier = event.seq <= self._after and not isinstance(event, TerminalEvent)
        first = [] if self._has_begun or is_earlier else self._begin(event)
        if isinstance(event, StreamSnapshot):
            frames = self._snapshot(event)
        elif isinstance(event, StreamReset):
            frames = self._reset(event)
        else:
            frames = self._handle(event)
        self._emitted.seq = event.seq
        if is_earlier:
            self._was_earlier()
            return []
        return [*first, *frames] if first else frames

    def _was_earlier(self) -> None:
        """The event was of the answer before this one."""
        self._tools.was_earlier()
        self.is_over = False

    def _handle(self, event: Event) -> list[Frame]:
        """The frames of an event that stands alone."""
        if type(event) is TokenEvent:
            return self._token(event)
        handle = self._handlers.get(type(event))
        return self._other(event) if handle is None else handle(self, event)

    def _handle_all(self, events: Iterable[Event]) -> list[Frame]:
        return [frame for event in events for frame in self._handle(event)]

    def _snapshot(self, event: StreamSnapshot) -> list[Frame]:
        frames: list[Frame] = []
        self._origins.fold(event)
        events = self._emitted.beyond(event)
        if events is None:
            frames = self._void(StreamReset(event.stream_id, event.seq, "reset", event.timestamp, event.metadata))
            events = [] if self.is_over else self._emitted.beyond(event) or []
        return frames + self._handle_all(events)

    def _reset(self, event: StreamReset) -> list[Frame]:
        if event.origin is None:
            self._origins.clear()
            return self._void(event)
        rest = self._origins.without(event.origin, event.seq)
        if rest is None:
            return []
        frames = self._void(event)
        return frames if self.is_over else frames + self._handle_all(rest)

    # --- what both need ------------------------------------------------------------------------------------------

    def _nothing(self, event: Event) -> list[Frame]:
        return []

    def _close_all(self, seq: int) -> list[Frame]:
        """End what is open of all origins."""
        return [frame for origin in list(self._open) for frame in self._close(seq, origin)]

    def _is_told(self, part: MediaPart) -> bool:
        """Whether a medium has been sent; from now on, it has, unless it is a piece of one."""
        name = (part.kind, part.id, part.url, part.data)
        if name in self._media:
            return True
        if not part.is_partial:
            self._media.add(name)
        return False

    def _forget_all(self) -> None:
        """Forget what has been sent: the answer begins again."""
        self._tools.clear()
        self._emitted.clear()
        self._media.clear()
