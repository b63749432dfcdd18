"""Logs with events in them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.actors.stream.log import StreamLog
from penstock.actors.stream.outcome import Outcome
from penstock.events import (
    Event,
    Phase,
    SideEvent,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    TokenEvent,
    TokenKind,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolEvent,
    ToolProgress,
    ToolResult,
)

OUTCOME = Outcome()
CALL = ToolCall(id="c", name="f", arguments={}, arguments_raw="{}")
TOOL_EVENTS: dict[str, ToolEvent] = {
    "started": ToolCallStarted(id="c", name="f", index=0),
    "delta": ToolCallDelta(index=0, text="x"),
    "progress": ToolProgress(call_id="c", name="f", progress=1),
    "completed": ToolCallCompleted(index=0, call=CALL),
    "result": ToolResult(call_id="c", name="f", content="42"),
}
KEEP_ALL = 1 << 40
KINDS: tuple[TokenKind, ...] = ("text", "reasoning", "refusal")


class Writer:
    """Appends to a log, and knows what its text ought to be."""

    def __init__(self, retain_bytes: int = KEEP_ALL, log: StreamLog | None = None) -> None:
        self.log = StreamLog("s", {"user": 1}, retain_bytes) if log is None else log
        self.epoch = self.log.new_epoch()
        self.texts: dict[str, str] = dict.fromkeys(KINDS, "")
        self.dropped = 0
        self.calls = 0
        self.results = 0
        self.story: list[str] = []  # the text, and in between the tool events that are never forgotten

    def add(self, *tokens: str, kind: TokenKind = "text", dropped: int = 0) -> bool:
        self.texts[kind] += "".join(tokens)
        self.dropped += dropped
        self.story += ["".join(tokens)] if kind == "text" else []
        seq = self.log.last_seq + 1
        event = TokenEvent("s", seq, tokens, "".join(tokens), kind, float(seq), self.log.metadata, dropped)
        return self.log.append(self.epoch, event)

    def tell(self, name: str) -> bool:
        """Append a tool event, one of those above."""
        seq = self.log.last_seq + 1
        event = msgspec.structs.replace(
            TOOL_EVENTS[name], stream_id="s", seq=seq, timestamp=float(seq), metadata=self.log.metadata
        )
        self.calls += name == "completed"
        self.results += name == "result"
        self.story += story_of(event)
        return self.log.append(self.epoch, event)

    def say(
        self, text: str, part: int, kind: TokenKind = "text", phase: Phase | None = None, origin: str | None = None
    ) -> None:
        """Append text of a part, as one token."""
        seq, metadata = self.log.last_seq + 1, self.log.metadata
        event = TokenEvent("s", seq, (text,), text, kind, float(seq), metadata, 0, part, phase, origin)
        assert self.log.append(self.epoch, event)

    def put(self, event: SideEvent) -> None:
        """Append any other event."""
        seq, metadata = self.log.last_seq + 1, self.log.metadata
        event = msgspec.structs.replace(event, stream_id="s", seq=seq, timestamp=float(seq), metadata=metadata)
        assert self.log.append(self.epoch, event)

    def reset(self) -> bool:
        self.texts = dict.fromkeys(KINDS, "")
        self.calls = self.results = 0
        self.story = []
        return self.log.append(self.epoch, StreamReset("s", self.log.last_seq + 1, "again", 0.0, self.log.metadata))

    def reset_origin(self, origin: str | None) -> None:
        """Void what was said and put of one origin, or all of it."""
        event = StreamReset("s", self.log.last_seq + 1, "again", 0.0, self.log.metadata, origin)
        assert self.log.append(self.epoch, event)

    def complete(self, dropped: int = 0) -> bool:
        self.dropped += dropped
        return self.log.complete(OUTCOME, dropped, 9.0)


class Reader:
    """Puts together what a subscriber is given, as the events' documentation says to."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.texts: dict[str, str] = dict.fromkeys(KINDS, "")
        self.dropped = 0
        self.seq = 0
        self.calls = 0
        self.results = 0
        self.pieces = 0
        self.story: list[str] = []
        self.knows_story = True

    def read(self, event: Event) -> None:
        assert event.seq > self.seq, (self.seq, event)
        self.seq = event.seq
        self.events.append(event)
        if isinstance(event, StreamSnapshot):
            self.texts = {"text": event.text, "reasoning": event.reasoning, "refusal": event.refusal}
            self.dropped = event.dropped
            self.calls, self.results = len(event.tool_calls), len(event.tool_results)
            self.knows_story = False
        elif isinstance(event, TokenEvent):
            assert "".join(event.tokens) == event.text
            self.texts[event.kind] += event.text
            self.story += [event.text] if event.kind == "text" else []
            self.dropped += event.dropped
        elif isinstance(event, StreamReset):
            self.texts = dict.fromkeys(KINDS, "")
            self.calls = self.results = self.pieces = 0
            self.story, self.knows_story = [], True
        elif isinstance(event, (StreamCompleted, StreamFailed, StreamCancelled)):
            self.dropped += event.dropped
        elif isinstance(event, ToolCallDelta):
            self.pieces += len(event.text)
        else:
            self.calls += isinstance(event, ToolCallCompleted)
            self.results += isinstance(event, ToolResult)
            self.story += story_of(event)


def story_of(event: Event) -> list[str]:
    """What must be found in this place by every reader from the start."""
    return [] if isinstance(event, (ToolCallDelta, ToolProgress)) else [f"[{type(event).__name__}]"]


def steps(work: Callable[[], Any]) -> int:
    """How many lines of Python are executed; unlike time, that is the same every time."""
    count = 0

    def trace(_frame: object, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count
