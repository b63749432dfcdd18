"""Kept answers of the Responses API (``background``), and what a further connection gets of one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from penstock.adapters.loopback.answer import Answer
from penstock.adapters.loopback.encoder import AnswerContext, Segment
from penstock.adapters.loopback.responses_parts import make_responses_encoder

__all__ = ["KeptResponse", "KeptResponses", "ResumedEncoder"]

_KEPT = 256
"""The number of answers kept; the oldest is dropped for a new one."""


class KeptResponse(msgspec.Struct, frozen=True):
    """An answer, and the context of the request it was first sent for."""

    answer: Answer
    context: AnswerContext

    def again(self, connection: int) -> Answer:
        """Return the answer for a further connection, counted from 0: with its own faults, and without delay."""
        faults = self.answer.resumptions[connection : connection + 1]
        return self.answer.replace(faults=faults[0] if faults else (), first_token_delay=0.0, resumptions=())


class KeptResponses:
    """The kept answers by the id of the response, each with a count of its resumptions."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, KeptResponse] = OrderedDict()
        self._resumed: dict[str, int] = {}

    def keep(self, answer: Answer, context: AnswerContext) -> None:
        """Keep an answer."""
        response_id = make_responses_encoder(answer, context).response_id
        self._kept[response_id] = KeptResponse(answer, context)
        self._resumed[response_id] = 0
        if len(self._kept) > _KEPT:
            oldest, _ = self._kept.popitem(last=False)
            del self._resumed[oldest]

    def resume(self, response_id: str) -> tuple[Answer, AnswerContext] | None:
        """Return the answer for one more connection, or None if there is no such response."""
        kept = self._kept.get(response_id)
        if kept is None:
            return None
        self._resumed[response_id] += 1
        return kept.again(self._resumed[response_id] - 1), kept.context


class ResumedEncoder:
    """Encodes the events numbered above ``after``, with the numbers and ids they had on the first connection.

    Implements `AnswerEncoder`.
    """

    def __init__(self, answer: Answer, context: AnswerContext, after: int) -> None:
        self._encoder = make_responses_encoder(answer, context)
        self._after = after

    @property
    def content_type(self) -> str:
        """That of the response."""
        return self._encoder.content_type

    @property
    def event_end(self) -> bytes:
        """That of the response."""
        return self._encoder.event_end

    def opening(self) -> Iterator[bytes]:
        """Yield the rest of the opening."""
        return (event for event in self._encoder.opening() if self._is_new())

    def body(self) -> Iterator[tuple[bool, bytes]]:
        """Yield the rest of the answer."""
        return (event for event in self._encoder.body() if self._is_new())

    def segments(self) -> Iterator[Segment]:
        """Yield the rest of the answer, without its pauses."""
        yield Segment(self.body())

    def closing(self) -> Iterator[bytes]:
        """Yield the rest of the closing."""
        return (event for event in self._encoder.closing() if self._is_new())

    def text(self, text: str) -> bytes:
        """Encode a text delta that is not part of the answer."""
        return self._encoder.text(text)

    def keep_alive(self) -> bytes:
        """Encode a comment."""
        return self._encoder.keep_alive()

    def stamped(self, event: bytes) -> bytes:
        """Return the event with the time added."""
        return self._encoder.stamped(event)

    def error(self, code: str | int | None, message: str, then_done: bool) -> Iterator[bytes]:
        """Yield an ``error`` event."""
        return self._encoder.error(code, message, then_done)

    def whole(self) -> bytes:
        """Return the response object."""
        return self._encoder.whole()

    def _is_new(self) -> bool:
        return self._encoder.last_number > self._after
