"""Logs with events in them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from penstock.actors.flow.log import Outcome, StreamLog
from penstock.events import (
    Event,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    TokenEvent,
    TokenKind,
)

OUTCOME = Outcome()
KEEP_ALL = 1 << 40
KINDS: tuple[TokenKind, ...] = ("text", "reasoning", "refusal")


class Writer:
    """Appends to a log, and knows what its text ought to be."""

    def __init__(self, retain_bytes: int = KEEP_ALL, log: StreamLog | None = None) -> None:
        self.log = StreamLog("s", {"user": 1}, retain_bytes) if log is None else log
        self.epoch = self.log.new_epoch()
        self.texts: dict[str, str] = dict.fromkeys(KINDS, "")
        self.dropped = 0

    def add(self, *tokens: str, kind: TokenKind = "text", dropped: int = 0) -> bool:
        self.texts[kind] += "".join(tokens)
        self.dropped += dropped
        seq = self.log.last_seq + 1
        event = TokenEvent("s", seq, tokens, "".join(tokens), kind, float(seq), self.log.metadata, dropped)
        return self.log.append(self.epoch, event)

    def reset(self) -> bool:
        self.texts = dict.fromkeys(KINDS, "")
        return self.log.append(self.epoch, StreamReset("s", self.log.last_seq + 1, "again", 0.0, self.log.metadata))

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

    def read(self, event: Event) -> None:
        assert event.seq > self.seq, (self.seq, event)
        self.seq = event.seq
        self.events.append(event)
        if isinstance(event, StreamSnapshot):
            self.texts = {"text": event.text, "reasoning": event.reasoning, "refusal": event.refusal}
            self.dropped = event.dropped
        elif isinstance(event, TokenEvent):
            assert "".join(event.tokens) == event.text
            self.texts[event.kind] += event.text
            self.dropped += event.dropped
        elif isinstance(event, StreamReset):
            self.texts = dict.fromkeys(KINDS, "")
        elif isinstance(event, (StreamCompleted, StreamFailed, StreamCancelled)):
            self.dropped += event.dropped


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
