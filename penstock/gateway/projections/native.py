"""The native protocol: every event as it is, with the cursor as its id."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from penstock.errors import ProviderTimeout, StreamCancelledError, StreamTimeout
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
from penstock.gateway.projections.frames import Frame, Opening, Projection, encode, shown_error, sse
from penstock.gateway.projections.shown import shown_fields

__all__ = ["NativeProjection", "cut_fields", "event_name", "named_fields", "simple_name"]

_TERMINAL: Final = (StreamCompleted, StreamFailed, StreamCancelled)


def event_name(event: Event) -> str:
    """The name of an event in the protocol: ``"token"``, ``"tool_call_started"``, ``"end"`` …

    >>> event_name(TokenEvent("s", 1, ("Hi",), "Hi", "text", 0.0, {}))
    'token'
    """
    if isinstance(event, _TERMINAL):
        return "end"
    return _NAMES.get(type(event).__name__) or _snake(type(event).__name__)


def simple_name(event: Event) -> str | None:
    """The name of an event with ``events=simple``; None: it is left out.

    >>> simple_name(TokenEvent("s", 1, ("Hi",), "Hi", "text", 0.0, {}))
    'token'
    """
    if isinstance(event, StreamFailed):
        return "timeout" if isinstance(event.error, (ProviderTimeout, StreamTimeout)) else "error"
    return _SIMPLE.get(type(event).__name__)


def named_fields(event: Event, *, is_simple: bool) -> tuple[str, dict[str, Any]] | None:
    """The name of an event and what it has, on every way of the native protocol; None: it is left out."""
    name = simple_name(event) if is_simple else event_name(event)
    if name is None:
        return None
    fields = shown_fields(event)
    if is_simple and isinstance(event, StreamCancelled):
        fields["error"] = shown_error(StreamCancelledError(event.stream_id, event.reason))
    if isinstance(event, StreamSnapshot):
        fields["replaces"] = True
    return name, fields


def cut_fields(problem: Problem, *, is_simple: bool) -> tuple[str, dict[str, Any]]:
    """The name of the last event of a reader that is cut off, and what it has."""
    about = {"code": problem.code, "message": problem.message}
    return ("error", {"error": about}) if is_simple else ("cut", about)


_SIMPLE: Final = {
    "TokenEvent": "token",
    "ToolCallStarted": "function_start",
    "StreamCompleted": "complete",
    "StreamCancelled": "error",
    "StreamReset": "reset",
    "StreamSnapshot": "snapshot",
}
_NAMES: Final = {"TokenEvent": "token", "StreamSnapshot": "snapshot", "StreamReset": "reset"}


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


class NativeProjection(Projection):
    """One frame for each event: ``id`` is the cursor (``epoch-seq``), ``event`` its name, ``data`` what it has.

    ``data`` has no ``stream_id``, which the reader knows, no ``metadata``, which the stream's own resource has, and no
    ``tokens``: ``text`` is all of them. ``origin`` is there in a stream that is made from several.

    The variant ``events=simple`` has few names: ``token``, ``function_start``, ``complete``, ``error``, ``timeout`` (of
    the provider, or of `Stream.with_timeout`), and ``reset`` and ``snapshot``, after which the text is another one. All
    other events are left out.
    """

    name = "native"

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._id = f"{opening.epoch}-"
        self._is_simple = opening.variant.get("events") == "simple"

    def feed(self, event: Event) -> list[Frame]:
        seq = event.seq
        if type(event) is TokenEvent and not event.dropped:
            about = (event.kind, event.part, event.phase, event.origin)
            return [Frame(seq, self._token(*about, event.text, seq), ("token", *about), event.text)]
        if isinstance(event, ToolCallDelta) and not self._is_simple:
            piece: tuple[Any, ...] = ("call", event.index, event.origin)
            return [Frame(seq, self.delta(piece, event.text, seq, 0), piece, event.text)]
        self.note_lost(event)
        named = named_fields(event, is_simple=self._is_simple)
        if named is None:
            return []
        return [Frame(seq, sse(encode(named[1]), event=named[0], id=f"{self._id}{seq}"))]

    def delta(self, key: Any, text: str, seq: int, number: int) -> bytes:
        if key[0] == "token":
            _, kind, part, phase, origin = key
            return self._token(kind, part, phase, origin, text, seq)
        named = {} if key[2] is None else {"origin": key[2]}
        data = encode({"type": "ToolCallDelta", "seq": seq, "index": key[1], "text": text, **named})
        return sse(data, event="tool_call_delta", id=f"{self._id}{seq}")

    def _token(self, kind: str, part: int, phase: str | None, origin: str | None, text: str, seq: int) -> bytes:
        data = encode(_Token(seq=seq, kind=kind, text=text, part=part, phase=phase, origin=origin))
        return b"id: %b%d\nevent: token\ndata: %b\n\n" % (self._id.encode(), seq, data)

    def cut(self, problem: Problem) -> bytes:
        name, fields = cut_fields(problem, is_simple=self._is_simple)
        return sse(encode(fields), event=name)


class _Token(msgspec.Struct, omit_defaults=True, tag_field="type", tag="TokenEvent"):
    seq: int
    kind: str
    text: str
    part: int = 0
    phase: str | None = None
    origin: str | None = None
