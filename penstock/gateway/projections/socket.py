"""The native protocol on a WebSocket: every event as a JSON object, for several streams on one connection."""

from __future__ import annotations

from typing import Any, Final

from penstock.events import (
    Event,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    TokenEvent,
    ToolCallDelta,
)
from penstock.gateway.problems import Problem
from penstock.gateway.projections.frames import Frame, Opening, Projection, encode
from penstock.gateway.projections.native import cut_fields, named_fields

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
        if isinstance(event, ToolCallDelta) and not self._is_simple:
            key = ("call", event.index, event.origin)
            return [Frame(seq, self.delta(key, event.text, seq, 0), key, event.text)]
        self.note_lost(event)
        named = named_fields(event, is_simple=self._is_simple)
        if named is None:
            return []
        fields = named[1]
        del fields["seq"]
        fields["type"] = named[0]
        if type(event) in _OUTCOMES:
            fields["outcome"] = _OUTCOMES[type(event)]
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
        name, fields = cut_fields(problem, is_simple=self._is_simple)
        return encode({"sid": self.opening.stream_id, "type": name, **fields}) + b","
