"""Timelines: the steps a connection takes to send a response, and when. Pure; the connection has the clock."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

from penstock.adapters.loopback.answer import Answer, Framing
from penstock.adapters.loopback.encoder import AnswerEncoder, ErrorEncoder, Segment, encode_openai_error
from penstock.adapters.loopback.faults import (
    DelayFirstByte,
    ErrorFrame,
    HangUp,
    HoldOpen,
    HugeEvent,
    InvalidUtf8,
    MalformedJson,
    NotAStream,
    ResetAfter,
    StallAfter,
    Status,
    StreamFault,
    TruncateAfter,
)
from penstock.adapters.loopback.framing import BodyFraming
from penstock.adapters.loopback.replay import Replay

__all__ = [
    "EndEarly",
    "FaultBegins",
    "Head",
    "ResetConnection",
    "Stall",
    "TimelineStep",
    "WaitUntil",
    "fault_timeline",
    "replay_timeline",
    "small_response",
    "stream_timeline",
    "whole_timeline",
]


class Head(msgspec.Struct, frozen=True):
    """Send the status line and the headers."""

    status: int
    headers: tuple[tuple[str, str], ...]
    framing: BodyFraming
    stream: bool = False


class WaitUntil(msgspec.Struct, frozen=True, gc=False):
    """Wait until so many seconds have passed since the request, stalls not counted."""

    seconds: float


class Stall(msgspec.Struct, frozen=True):
    """Send nothing for so many seconds; None: until the client disconnects."""

    seconds: float | None


class ResetConnection(msgspec.Struct, frozen=True):
    """Send a TCP reset."""


class EndEarly(msgspec.Struct, frozen=True):
    """End the response early: end the body properly (``clean``), or only close the connection."""

    clean: bool


class FaultBegins(msgspec.Struct, frozen=True):
    """Count a fault; the next steps are its effect."""


TimelineStep: TypeAlias = bytes | Head | WaitUntil | Stall | ResetConnection | EndEarly | FaultBegins
"""One step of a response; bytes are one event. After the last step the body ends properly."""

_FAULT: Final = FaultBegins()


def small_response(
    status: int, body: bytes, headers: tuple[tuple[str, str], ...] = (), kind: str = "application/json"
) -> Iterator[TimelineStep]:
    """Yield the steps of a small response that is sent immediately."""
    yield Head(status, (("content-type", kind), ("content-length", str(len(body))), *headers), BodyFraming())
    yield body


def fault_timeline(
    fault: Status | HangUp | NotAStream, encode_error: ErrorEncoder = encode_openai_error
) -> Iterator[TimelineStep]:
    """Yield the steps of a fault that replaces an answer."""
    yield _FAULT
    match fault:
        case Status(status=status, retry_after=retry_after):
            seconds = retry_after if isinstance(retry_after, (int, float)) else None
            after = f"{seconds:g}" if seconds is not None else retry_after
            headers = (*fault.headers, *(() if after is None else (("retry-after", str(after)),)))
            body = encode_error(status, fault.message, fault.code, retry_after=seconds)
            yield from small_response(status, body, headers)
        case NotAStream(body=body):
            yield from small_response(200, body.encode(), kind="text/html; charset=utf-8")
        case HangUp(reset=reset):
            yield ResetConnection() if reset else EndEarly(clean=False)


def stream_timeline(answer: Answer, make_encoder: Callable[[], AnswerEncoder]) -> Iterator[TimelineStep]:
    """Yield the steps of a streamed answer.

    ``make_encoder`` is called twice if the length must be known before the first byte.
    """
    yield from _delays(answer)
    length = 0
    if answer.framing == "length":
        # All time stamps have the same length, so the length also holds for the second encoding.
        kept = tuple(fault for fault in answer.faults if not _breaks_off(fault))
        steps = _StreamedBody(answer.replace(faults=kept), make_encoder()).steps()
        length = sum(len(step) for step in steps if isinstance(step, bytes))
    encoder = make_encoder()
    kind = (("content-type", encoder.content_type), ("cache-control", "no-cache"))
    headers = (*kind, *answer.headers, *_framing_headers(answer.framing, length))
    yield Head(200, headers, BodyFraming(answer.framing, answer), stream=True)
    yield from _StreamedBody(answer, encoder).steps()


def whole_timeline(
    answer: Answer, encoder: AnswerEncoder, encode_error: ErrorEncoder = encode_openai_error
) -> Iterator[TimelineStep]:
    """Yield the steps of an answer that is not streamed; it is sent when its last token would be.

    Faults that count tokens happen in the middle of the body; an `ErrorFrame` becomes a status 500.
    """
    yield from _delays(answer)
    for fault in answer.faults:
        if isinstance(fault, ErrorFrame):
            yield _FAULT
            yield from small_response(500, encode_error(500, fault.message, fault.code))
            return
    body = encoder.whole()
    for fault in answer.faults:
        if isinstance(fault, (MalformedJson, InvalidUtf8, HugeEvent)):
            yield _FAULT
            body = _spoil(body, fault)
    yield WaitUntil(answer.first_token_delay + answer.paused_s + max(answer.paced_count - 1, 0) * answer.interval_s)
    kind = (("content-type", "application/json"), *answer.headers)
    headers = (*kind, ("content-length", str(len(body))))
    yield Head(200, headers, BodyFraming())
    yield body[: len(body) // 2]
    for fault in answer.faults:
        if isinstance(fault, (StallAfter, ResetAfter, TruncateAfter)):
            yield _FAULT
            if isinstance(fault, StallAfter):
                yield Stall(fault.seconds)
            else:
                yield ResetConnection() if isinstance(fault, ResetAfter) else EndEarly(clean=False)
                return
    yield body[len(body) // 2 :]


def replay_timeline(replay: Replay) -> Iterator[TimelineStep]:
    """Yield the steps of a recording, byte for byte; its faults count bytes."""
    yield from _delays(replay)
    faults = sorted(_in_body(replay.faults), key=_position)
    end = len(replay.recorded)
    clean_ends = [fault.tokens for fault in faults if isinstance(fault, TruncateAfter) and fault.clean]
    framing = _framing_headers(replay.framing, min([end, *clean_ends]))
    headers = (("content-type", replay.media_type), *replay.headers, *framing)
    yield Head(replay.status, headers, BodyFraming(replay.framing, batch=1), stream=True)
    position, due = 0, 0.0
    for write in replay.writes():
        if due:
            yield WaitUntil(due)
        due += replay.pace
        # A fault splits the write that it falls into.
        while faults and _position(faults[0]) < position + len(write):
            fault = faults.pop(0)
            before = max(_position(fault) - position, 0)
            yield from filter(None, (write[:before],))
            write, position = write[before:], position + before
            yield from _break(fault)
            if not isinstance(fault, StallAfter):
                return
        yield write
        position += len(write)
    for fault in faults:
        yield from _break(fault)
        if not isinstance(fault, StallAfter):
            return
    yield from _hold_open(replay)


def _in_body(faults: Sequence[StreamFault]) -> Iterator[StreamFault]:
    return (fault for fault in faults if not isinstance(fault, (DelayFirstByte, HoldOpen)))


def _break(fault: StreamFault) -> Iterator[TimelineStep]:
    """Yield the steps of a fault that ends or delays the response."""
    yield _FAULT
    match fault:
        case StallAfter(seconds=seconds):
            yield Stall(seconds)
        case TruncateAfter(clean=clean):
            yield EndEarly(clean)
        case _:
            yield ResetConnection()


def _hold_open(reply: Answer | Replay) -> Iterator[TimelineStep]:
    for fault in reply.faults:
        if isinstance(fault, HoldOpen):
            yield _FAULT
            yield Stall(fault.seconds)


def _framing_headers(framing: Framing, length: int) -> tuple[tuple[str, str], ...]:
    match framing:
        case "gzip":
            return (("content-encoding", "gzip"),)
        case "length":
            return (("content-length", str(length)),)
        case "close":
            return (("connection", "close"),)
        case "chunked":
            return ()


def _breaks_off(fault: StreamFault) -> bool:
    return isinstance(fault, ResetAfter) or (isinstance(fault, TruncateAfter) and not fault.clean)


def _delays(reply: Answer | Replay) -> Iterator[TimelineStep]:
    for fault in reply.faults:
        if isinstance(fault, DelayFirstByte):
            yield _FAULT
            yield Stall(fault.seconds)


def _spoil(body: bytes, fault: MalformedJson | InvalidUtf8 | HugeEvent) -> bytes:
    match fault:
        case MalformedJson():
            return body[: -len(body) // 3]
        case InvalidUtf8():
            return body.replace(b'":"', b'":"\xff\xfe', 1)
        case HugeEvent(size=size):
            return b" " * size + body  # JSON allows white space before a document


def _position(fault: StreamFault) -> int:
    match fault:
        case StallAfter(tokens=tokens) | ResetAfter(tokens=tokens) | TruncateAfter(tokens=tokens):
            return tokens
        case MalformedJson(after=after) | ErrorFrame(after=after) | InvalidUtf8(after=after) | HugeEvent(after=after):
            return after
        case DelayFirstByte() | HoldOpen():
            return 0


class _StreamedBody:
    """Produces the steps of one streamed body, without its head."""

    def __init__(self, answer: Answer, encoder: AnswerEncoder) -> None:
        self._answer = answer
        self._encoder = encoder
        self._faults = sorted(_in_body(answer.faults), key=_position)
        self._events = 0
        self._first = answer.first_token_delay  # and the pauses so far
        self._count = 0  # tokens of parts
        self._mark = b"\xef\xbb\xbf" if answer.bom else b""

    def steps(self) -> Iterator[TimelineStep]:
        for event in self._encoder.opening():
            yield from self._sent(event)
        if (yield from self._tokens()):
            return
        for event in self._encoder.closing():
            yield from self._sent(event)
        yield from _hold_open(self._answer)

    def _tokens(self) -> Generator[TimelineStep, None, bool]:
        """Yield the steps between opening and closing; returns whether a fault has ended the answer."""
        answer = self._answer
        first, interval, batch = answer.first_token_delay, answer.interval_s, answer.batch or 1
        paced = bool(first or interval)
        simple = not (answer.comments or answer.timestamps or answer.bom)
        last = answer.paced_count - 1
        count = 0
        waited = -1
        for segment in self._encoder.segments():
            if segment.has_parts:
                if (yield from self._parts(segment)):
                    return True
                continue
            events = segment.events
            while True:
                while self._faults and _position(self._faults[0]) <= count:
                    if (yield from self._fault(self._faults.pop(0))):
                        return True
                if paced and count > waited and count <= last and count % batch == 0:
                    # Before the event is encoded, so that its time stamp is the time it is sent.
                    yield WaitUntil(first + min(count + batch - 1, last) * interval)
                    waited = count
                token, event = next(events, (False, b""))
                if not event:
                    break
                if simple:
                    yield event
                else:
                    yield from self._sent(event)
                count += token
        for fault in self._faults:
            if (yield from self._fault(fault)):
                return True
        return False

    def _parts(self, segment: Segment) -> Generator[TimelineStep, None, bool]:
        """Yield the steps of parts after a pause. A token waits for its time; other events do not."""
        interval, batch = self._answer.interval_s, self._answer.batch or 1
        paced = bool(self._answer.first_token_delay or interval)
        last = self._answer.paced_count - 1
        if segment.pause:
            self._first += segment.pause
            yield WaitUntil(self._first + max(self._count - 1, 0) * interval)
        while True:
            while self._faults and _position(self._faults[0]) <= self._count:
                if (yield from self._fault(self._faults.pop(0))):
                    return True
            token, event = next(segment.events, (False, b""))
            if not event:
                return False
            count = self._count
            if token and paced and count % batch == 0:
                yield WaitUntil(self._first + max(count, min(count + batch - 1, last)) * interval)
            yield from self._sent(event)
            self._count += token

    def _sent(self, event: bytes) -> Iterator[bytes]:
        comments = self._answer.comments
        first, self._mark = self._mark, b""
        if comments and self._events % comments == 0 and (sign := self._encoder.keep_alive()):
            yield first + sign
            first = b""
        self._events += 1
        yield first + (self._encoder.stamped(event) if self._answer.timestamps else event)

    def _fault(self, fault: StreamFault) -> Generator[TimelineStep, None, bool]:
        """Yield the steps of one fault; returns whether it ends the response."""
        if isinstance(fault, (StallAfter, ResetAfter, TruncateAfter)):
            yield from _break(fault)
            return not isinstance(fault, StallAfter)
        yield _FAULT
        match fault:
            case ErrorFrame(code=code, message=message, then_done=then_done):
                yield from self._encoder.error(code, message, then_done)
                return True
            case MalformedJson():
                event = self._encoder.text("this JSON breaks off")
                yield event[: event.index(b"breaks off")] + self._encoder.event_end
            case InvalidUtf8():
                yield self._encoder.text("invalid: @@").replace(b"@@", b"\xff\xc3")
            case HugeEvent(size=size):
                yield self._encoder.text("x" * size)
            case _:
                raise AssertionError(fault)  # `_in_body` excludes the others
        return False
