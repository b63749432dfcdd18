"""Events of OpenAI's Responses API as frames: numbered from 0 without gaps, one event a frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from penstock.events import TokenLogprob
from penstock.gateway.projections.frames import Frame, encode, sse

__all__ = ["ResponsesWire", "Slot", "bounded", "logprob_entries"]

_HEAD: Final = 'event: %s\ndata: {"type":"%s","sequence_number":'


class Slot(NamedTuple):
    """The bytes around the number and the text of a delta: what one delta has in common with the next one.

    It is the `Frame.key` of a piece of text, so pieces with equal slots may be merged.
    """

    head: bytes
    middle: bytes
    tail: bytes

    @classmethod
    def of(cls, kind: str, place: dict[str, Any], *, has_logprobs: bool = False) -> Slot:
        """The slot of a delta of type ``kind``; ``place`` says which text it belongs to."""
        middle = b"," + encode(place)[1:-1] + b',"delta":'
        return cls((_HEAD % (kind, kind)).encode(), middle, b',"logprobs":[]}\n\n' if has_logprobs else b"}\n\n")

    def filled(self, text: str, number: int) -> bytes:
        """The whole event."""
        return b"%b%d%b%b%b" % (self.head, number, self.middle, encode(text), self.tail)


class ResponsesWire:
    """Numbers the events of one response, and collects their frames until `take`."""

    __slots__ = ("_frames", "number", "seq")

    def __init__(self) -> None:
        self.number = 0
        """The number of the next event."""
        self.seq = 0
        """The number of the stream's event that frames are made of at present."""
        self._frames: list[Frame] = []

    def send(self, kind: str, **fields: Any) -> None:
        """Add an event."""
        data = encode({"type": kind, "sequence_number": self.number, **fields})
        self._frames.append(Frame(self.seq, sse(data, event=kind), None, "", self.number))
        self.number += 1

    def piece(self, slot: Slot, text: str) -> None:
        """Add a piece of text, which may be merged with the next one."""
        self._frames.append(Frame(self.seq, slot.filled(text, self.number), slot, text, self.number))
        self.number += 1

    def end(self, data: bytes) -> None:
        """Add bytes that are no event. Their number is the next one, so that they follow every event."""
        self._frames.append(Frame(self.seq, data, None, "", self.number))

    def take(self) -> list[Frame]:
        """The frames since the last call."""
        frames, self._frames = self._frames, []
        return frames


_DEEPEST: Final = 64


def bounded(value: Any, deepest: int = _DEEPEST) -> Any:
    """A value that came as JSON, without what is nested too deeply to be part of a frame.

    >>> bounded({"a": [1, [2]]}, 2)
    {'a': [1, '[nested too deeply]']}
    """
    if isinstance(value, Mapping):
        if deepest == 0:
            return "[nested too deeply]"
        return {name: bounded(one, deepest - 1) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [bounded(one, deepest - 1) for one in value] if deepest else "[nested too deeply]"
    return value


def logprob_entries(tokens: tuple[TokenLogprob, ...]) -> list[dict[str, Any]]:
    """Probabilities in the form of the API. ``bytes`` are those of the token's text."""
    return [
        _entry(token.token, token.logprob) | {"top_logprobs": [_entry(other, value) for other, value in token.top]}
        for token in tokens
    ]


def _entry(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "bytes": list(token.encode("utf-8", "replace")), "logprob": logprob}
