"""Events to project onto the Responses API, and what the frames say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from penstock.events import (
    Citation,
    Event,
    Phase,
    StreamCompleted,
    StreamReset,
    TerminalEvent,
    TokenEvent,
    TokenKind,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from penstock.gateway.projections.frames import Frame, Opening
from penstock.gateway.projections.responses import ResponsesProjection

SID = "resp_1"


def opening(request: Mapping[str, Any] | None = None, **fields: Any) -> Opening:
    given: dict[str, Any] = {"stream_id": SID, "epoch": "e", "created": 1_700_000_000, "model": "m", **fields}
    return Opening(request=request or {}, **given)


def text(piece: str, kind: TokenKind = "text", part: int = 0, phase: Phase | None = None) -> TokenEvent:
    return TokenEvent(SID, 0, (piece,), piece, kind, 5.0, {}, 0, part, phase)


def started(index: int = 0, identifier: str = "c1", name: str = "add") -> ToolCallStarted:
    return ToolCallStarted(id=identifier, name=name, index=index)


def piece(arguments: str, index: int = 0) -> ToolCallDelta:
    return ToolCallDelta(index=index, text=arguments)


def call_of(raw: str = '{"x":1}', identifier: str = "c1", name: str = "add", **more: Any) -> ToolCall:
    fields: dict[str, Any] = {"arguments": json.loads(raw) if raw else {}, "arguments_raw": raw, **more}
    return ToolCall(id=identifier, name=name, **fields)


def completed(call: ToolCall, index: int = 0) -> ToolCallCompleted:
    return ToolCallCompleted(index=index, call=call)


def cited(start: int | None = None, end: int | None = None, url: str = "https://x.test") -> Citation:
    return Citation(kind="url", url=url, title="X", start=start, end=end)


def restarted() -> StreamReset:
    return StreamReset(SID, 0, "IncompleteStream", 5.0, {})


def done(said: str = "", **fields: Any) -> StreamCompleted:
    fields = {"usage": Usage(input_tokens=3, output_tokens=2, total_tokens=5), "timestamp": 9.0, **fields}
    return StreamCompleted(stream_id=SID, seq=0, text=said, **fields)


def numbered(events: Iterable[Any]) -> list[Any]:
    """The events with the numbers of a log."""
    made = []
    for seq, event in enumerate(events, 1):
        fields = {name: getattr(event, name) for name in event.__struct_fields__}
        made.append(type(event)(**fields | {"seq": seq}))
    return made


class Projected:
    """The frames of a sequence of events, and what they say."""

    def __init__(self, events: Sequence[Any], *, at: Opening | None = None, are_numbered: bool = False) -> None:
        self.events: list[Event] = list(events) if are_numbered else numbered(events)
        self.projection = ResponsesProjection(at or opening())
        self.frames: list[Frame] = []
        for event in self.events:
            self.frames += self.projection.feed(event)

    @property
    def said(self) -> list[dict[str, Any]]:
        return read(b"".join(frame.data for frame in self.frames))

    @property
    def kinds(self) -> list[str]:
        """The types of the events without ``response.``, after the first two."""
        return [event["type"].removeprefix("response.") for event in self.said[2:]]

    @property
    def last(self) -> dict[str, Any]:
        return self.said[-1]

    @property
    def output(self) -> list[dict[str, Any]]:
        """The items of the whole response, or of the response so far."""
        found: list[dict[str, Any]] = self.projection.response["output"]
        return found

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of a type."""
        return [event for event in self.said if event["type"] == f"response.{kind}"]


def read(data: bytes) -> list[dict[str, Any]]:
    """The events of a body, each checked to be one event with its type as its name."""
    found = []
    for block in data.decode().split("\n\n"):
        if not block or block == "data: [DONE]":
            continue
        name, _, line = block.partition("\n")
        assert name.startswith("event: "), block
        assert line.startswith("data: "), block
        assert "\n" not in line
        assert "\r" not in line
        event = json.loads(line[6:])
        assert event["type"] == name[7:]
        found.append(event)
    return found


def end_of(event: TerminalEvent) -> Projected:
    return Projected([event])
