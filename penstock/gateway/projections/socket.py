"""The native protocol on a WebSocket: every event as a JSON object, for several streams on one connection."""

from __future__ import annotations

from typing import Any, Final

from penstock.events import (
    Event,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamSnapshot,
    TokenEvent,
    ToolCallDelta,
)
from penstock.gateway.problems import Problem
from penstock.gateway.projections.frames import Frame, Opening, Projection, encode
from penstock.gateway.projections.native import event_name, simple_name
from penstock.gateway.projections.shown import shown_fields

__all__ = ["SocketProjection"]

_OUTCOMES: Final[dict[type[Event], str]] = {
    StreamCompleted: "completed",
    StreamFailed: "failed",
    StreamCancelled: "cancelled",
}


class SocketProjection(Projection):
    """One frame for each event: an object with ``sid``, ``seq`` and ``type``, followed by a comma.

    The fields are those of the native server-sent events; ``type`` is the name of the event. ``end`` has an
    ``outcome``: ``"completed"``, ``"failed"`` or ``"cancelled"``. The variant
    ``events=simple`` is that of `NativeProjection`.
    """

    name = "socket"
    heartbeat = b""

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._is_simple = opening.variant.get("events") == "simple"
        self._head = b'{"sid":%b,"seq":' % encode(opening.stream_id)

    def feed(self, event: Event) -> list[Frame]:
        seq = event.seq
        if type(event) is TokenEvent and not event.dropped:
            key: tuple[Any, ...] = ("token", event.kind, event.part, event.phase, event.origin)
            return [Frame(seq, self.delta(key, event.text, seq, 0), key, event.text)]
        kind = simple_name(event) if self._is_simple else event_name(event)
        if kind is None:
            return []
        if isinstance(event, ToolCallDelta):
            key = ("call", event.index, event.origin)
            return [Frame(seq, self.delta(key, event.text, seq, 0), key, event.text)]
        fields = shown_fields(event)
        del fields["seq"]
        fields["type"] = kind
        if type(event) in _OUTCOMES:
            fields["outcome"] = _OUTCOMES[type(event)]
        if isinstance(event, StreamSnapshot):
            fields["replaces"] = True
        return [Frame(seq, b"%b%d,%b," % (self._head, seq, encode(fields)[1:]))]

    def delta(self, key: Any, text: str, seq: int, number: int) -> bytes:
        if key[0] == "call":
            about = b'"type":"tool_call_delta","index":%d' % key[1]
        else:
            about = b'"type":"token","kind":"%b"' % key[1].encode()
            if key[2]:
                about += b',"part":%d' % key[2]
            if key[3]:
                about += b',"phase":"%b"' % key[3].encode()
        if key[-1] is not None:
            about += b',"origin":%b' % encode(key[-1])
        return b'%b%d,%b,"text":%b},' % (self._head, seq, about, encode(text))

    def cut(self, problem: Problem) -> bytes:
        fields = {"sid": self.opening.stream_id, "type": "cut", "code": problem.code, "message": problem.message}
        return encode(fields) + b","
