"""Frames, and what every projection is.

A projection is fed the events of one stream in order and makes frames of them. The same events make the same frames,
so that frames can be made once for all readers of a protocol, and again after a restart from the log.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, TypeAlias

import msgspec

from penstock.config.surrogates import mend_surrogates
from penstock.errors import PenstockError
from penstock.events import Event, FrozenDict, StreamReset, StreamSnapshot, TerminalEvent, TokenEvent
from penstock.gateway.problems import Problem, problem_of

__all__ = ["DONE", "Frame", "Opening", "Projection", "Rejoin", "encode", "joined", "shown_error", "sse"]

DONE: Final = b"data: [DONE]\n\n"

_encode: Final = msgspec.json.Encoder(enc_hook=repr).encode


def encode(value: Any) -> bytes:
    """Encode a value as JSON without spaces. Line breaks are escaped, so it can be the data of a server-sent event.

    A lone surrogate, which UTF-8 cannot encode, becomes U+FFFD.
    """
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(mend_surrogates(msgspec.to_builtins(value, enc_hook=repr)))


Rejoin: TypeAlias = Literal["after", "start", "prelude"]
"""How a reader that joins a running stream begins.

``"after"``: with the frames after its cursor. ``"start"``: with all frames, wherever its cursor was. ``"prelude"``:
with `Projection.prelude`, which puts it in the state at its cursor.
"""


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What a projection gets besides events.

    Attributes:
        stream_id: the stream's id.
        epoch: identifies this log of the stream; part of the native cursor.
        created: when the stream was opened, in whole seconds since the epoch of Unix.
        model: the model, as the request names it; ``""`` if nothing was asked.
        request: the body of the request that opened the stream, if it was in this protocol; else empty.
        variant: what the reader chose that changes the frames, by name.
        is_turn: whether an agent answers by the stream: its calls have been run, and are none for the client.
    """

    stream_id: str
    epoch: str
    created: int
    model: str = ""
    request: Mapping[str, Any] = FrozenDict()
    variant: Mapping[str, str] = FrozenDict()
    is_turn: bool = False


class Frame(msgspec.Struct, frozen=True, gc=False):
    """Bytes that are sent together or not at all.

    Attributes:
        seq: the number of the event that it was made of; a reader that has it has everything up to this event, unless
            a further frame has the same number.
        data: the bytes. Of a frame with a ``key``, they are ``projection.delta(key, text, seq, number)``.
        key: what ``text`` is a piece of. Frames that follow one another and have the same key may be sent as one, with
            the joined text and the last one's numbers. None: never.
        text: the piece.
        number: the protocol's own number, where it has one.
    """

    seq: int
    data: bytes
    key: Hashable = None
    text: str = ""
    number: int = 0


class Projection:
    """Makes frames of the events of one stream, in order. Used by one thread at a time."""

    name: ClassVar[str]
    """The protocol's name in URLs and settings."""
    heartbeat: ClassVar[bytes] = b": hb\n"
    """Sent while nothing happens. One line break: two would make an empty event of it for some clients."""
    rejoin: ClassVar[Rejoin] = "after"
    is_over: bool = False
    """Whether its frames have come to the protocol's end. The stream may go on: where a call waits for approval, the
    answer of some protocols ends, and the request that answers gets the rest."""
    lost: int = 0
    """How many tokens of the answer have been dropped (``overflow="drop_…"``) before what was fed."""

    def __init__(self, opening: Opening) -> None:
        self.opening = opening

    def feed(self, event: Event) -> list[Frame]:
        """The frames that an event makes. A `StreamSnapshot` makes those of what it has besides the earlier events."""
        raise NotImplementedError

    def note_lost(self, event: Event) -> None:
        """Count the tokens that have been dropped before an event."""
        if isinstance(event, StreamSnapshot):
            self.lost = event.dropped  # of all that it replaces
        elif isinstance(event, (TokenEvent, TerminalEvent)):
            self.lost += event.dropped
        elif isinstance(event, StreamReset) and event.origin is None:
            self.lost = 0  # they belong to the void answer

    def caught_up(self) -> list[Frame]:
        """The frames to add now that there is no further event; called each time when all events so far were fed."""
        return []

    def delta(self, key: Any, text: str, seq: int, number: int) -> bytes:
        """The bytes of a piece of text, or of several joined ones."""
        raise NotImplementedError

    def prelude(self) -> list[Frame]:
        """The frames that bring a reader without any to the present state; only with ``rejoin = "prelude"``."""
        raise NotImplementedError

    def cut(self, problem: Problem) -> bytes:
        """The last frame for one reader, if its connection ends before the stream does. It is no end of the answer."""
        raise NotImplementedError


def sse(data: bytes, *, event: str = "", id: str = "") -> bytes:
    r"""A server-sent event.

    >>> sse(b'{"a":1}', event="token", id="7")
    b'id: 7\nevent: token\ndata: {"a":1}\n\n'
    """
    head = (f"id: {id}\n" if id else "") + (f"event: {event}\n" if event else "")
    return b"%bdata: %b\n\n" % (head.encode(), data)


def shown_error(error: PenstockError) -> dict[str, Any]:
    """An error as the native protocol shows it: its class, the sentence that all protocols show, and its facts."""
    problem = problem_of(error)
    facts = {name: value for name in _FACTS if (value := getattr(error, name, None)) is not None}
    return {"type": type(error).__name__, "message": problem.message, "code": problem.code} | facts


_FACTS: Final = ("status", "code", "retryable", "retry_after", "which", "timeout")


def joined(frames: Sequence[Frame], projection: Projection) -> bytes:
    """Frames as few as possible: pieces of the same text become one.

    Frames without a ``key`` stay as they are, in their places.
    """
    made: list[bytes] = []
    at, count = 0, len(frames)
    while at < count:
        first = frames[at]
        end = at + 1
        if first.key is not None:
            while end < count and frames[end].key == first.key:
                end += 1
        if end == at + 1:
            made.append(first.data)
        else:
            last = frames[end - 1]
            text = "".join([frame.text for frame in frames[at:end]])
            made.append(projection.delta(first.key, text, last.seq, last.number))
        at = end
    return b"".join(made)
