"""The native protocol on a WebSocket: many streams, commands, and credit for each stream.

See ``docs/gateway.md`` for the messages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from penstock.config.logs import get_logger
from penstock.errors import PenstockError, describe_reason
from penstock.events import StreamSnapshot
from penstock.gateway.board.desk import desk_of, is_topic
from penstock.gateway.board.topics import Topics
from penstock.gateway.bodies import decode_object
from penstock.gateway.call import HttpCall
from penstock.gateway.channels import Channel
from penstock.gateway.operations import OPERATIONS, SocketCall
from penstock.gateway.problems import Problem, RequestRefused, problem_of
from penstock.gateway.projections.frames import encode
from penstock.gateway.projector import Projector
from penstock.gateway.protocols import PROTOCOLS, events_in
from penstock.gateway.requests.own_fields import whole_field
from penstock.gateway.websocket import DENIED, WebSocket
from penstock.telemetry.gateway import ReaderInfo

__all__ = ["StreamSocket"]

_SUBPROTOCOL: Final = "penstock.v1"
_AUTH_TIME: Final = 5.0  # seconds for the first message, if the handshake had no key
_MOST_STREAMS: Final = 1_000  # that one socket reads
_MOST_COMMANDS: Final = 32  # that run at once
_MOST_BYTES: Final = 16 * 1_048_576  # of their messages; a single one may be larger
_SHARE: Final = 65_536  # bytes of one stream in one message, before they are joined
_LARGEST: Final = 262_144  # bytes of all streams in one message, before they are joined; one event may be larger
_LONGEST_REF: Final = 256


class _Reading:
    """One stream that the socket reads. ``flight``: what was sent and not acknowledged, by event and bytes."""

    __slots__ = ("channel", "credit", "flight", "place", "projector")

    def __init__(self, channel: Channel, projector: Projector, place: int, credit: int) -> None:
        self.channel = channel
        self.projector = projector
        self.place = place
        self.credit = credit
        self.flight: deque[tuple[int, int]] = deque()

    def acknowledge(self, seq: int) -> None:
        while self.flight and self.flight[0][0] <= seq:
            self.credit += self.flight.popleft()[1]


class StreamSocket(WebSocket):
    """One connection. It is a reader of each stream that it has subscribed to.

    Accepts: the operations of `penstock.gateway.operations`, and ``auth``, ``subscribe``, ``unsubscribe``, ``ack``,
    ``ping``. Sends: answers with the message's ``ref``, and lists of events.
    """

    def __init__(self, call: HttpCall, receive: Any, send: Any) -> None:
        super().__init__(call, receive, send)
        self._readings: dict[str, _Reading] = {}
        self._topics = Topics(self.wake)

    @property
    def is_reading(self) -> bool:
        """Whether it has a stream to read or an answer to send."""
        return bool(self._readings) or super().is_reading

    @property
    def protocols(self) -> tuple[str, ...]:
        return ("socket",) * len(self._readings)

    def infos(self) -> tuple[ReaderInfo, ...]:
        """What is reported to telemetry about it."""
        key = self.call.key.id
        return tuple(one.projector.reader_info(one.place, key) for one in list(self._readings.values()))

    async def run(self, *, is_authenticated: bool) -> None:
        """Serve the connection until it is closed. Unless it is authenticated, the first message must have the key."""
        offered = self.call.exchange.scope.get("subprotocols", ())
        await self._send_message(
            {"type": "websocket.accept", "subprotocol": _SUBPROTOCOL if _SUBPROTOCOL in offered else None}
        )
        if is_authenticated or await self._authenticated():
            await self._run()
        else:
            await self._turn_away(DENIED)

    def _detach(self) -> None:
        self._topics.close()
        for reading in self._readings.values():
            reading.projector.detach(self)
            self.gateway.tally.reader_gone("socket", "drained" if self._closing.done() else "left")

    async def _authenticated(self) -> bool:
        try:
            async with asyncio.timeout(_AUTH_TIME):
                data = await self._next()
        except TimeoutError:
            return False
        message = self._decoded(data) if data is not None else {}
        if message.get("op") != "auth" or not isinstance(message.get("key"), str):
            return False
        try:
            self.call.key = key = self.gateway.guard.key(message["key"])
            if key.max_body is not None:
                self.call.exchange.max_body = min(key.max_body, self.call.exchange.max_body)
            self.gateway.guard.check_scope(self.call.key, "read")
        except RequestRefused:
            return False
        self._answer(message.get("ref"), {"ok": True})
        return True

    def _decoded(self, data: bytes) -> dict[str, Any]:
        try:
            return decode_object(data, self.gateway.options)
        except RequestRefused:
            return {"op": None}

    async def _handle(self, data: bytes) -> None:
        message = self._decoded(data)
        ref, operation = message.get("ref"), message.get("op")
        if not _is_ref(ref):
            ref = None
        try:
            if operation == "ack":
                self._acknowledge(message)
            elif operation == "ping":
                self._answer(ref, {"ok": True})
            elif operation == "subscribe":
                self._answer(ref, await self._subscribe(message))
            elif operation == "unsubscribe":
                self._topics.shut(sid := _text(message, "sid"))
                self._unsubscribe(sid)
                self._answer(ref, {"ok": True})
            elif isinstance(operation, str) and operation in OPERATIONS:
                self._start(ref, operation, message, len(data))
            else:
                known = ", ".join(("subscribe", "unsubscribe", "ack", "ping", *OPERATIONS))
                raise RequestRefused.bad_request(f"op must be one of {known}.", "op", "unknown_op")
        except PenstockError as error:
            self._refuse(ref, error)

    # --- streams -------------------------------------------------------------------------------------------------

    async def _subscribe(self, message: Mapping[str, Any]) -> dict[str, Any]:
        sid = _text(message, "sid")
        if is_topic(sid):
            desk_of(self.gateway).open(sid, self.call, self._topics)
            return {"ok": True, "sid": sid}
        channel = await self.gateway.find(self.call.key, sid)
        after = whole_field(message, "after", 0, 0)
        window = whole_field(message, "window", 1_000, self.gateway.options.reader_bytes)
        is_gap = message.get("epoch") not in (None, channel.epoch)
        variant = events_in(message)
        projector = channel.projector(PROTOCOLS["socket"], variant, self.gateway.ticker, self.gateway.options)
        await projector.catch_up()  # else the place of a number is not known
        self.read(channel, 0 if is_gap else after, window, variant)
        if after or is_gap:
            is_folded = isinstance(projector.first, StreamSnapshot) and after < projector.first.seq
            self.gateway.tally.resumed("gap" if is_gap else "snapshot" if is_folded else "exact")
        answer = {"ok": True, "sid": channel.stream_id, "epoch": channel.epoch, "state": channel.stream.state}
        if projector.is_over and projector.error is None and self._readings[sid].place == projector.shelf.end:
            answer["at_end"] = True  # nothing follows
        return answer | ({"gap": "epoch"} if is_gap else {})

    def read(self, channel: Channel, after: int, window: int, variant: Mapping[str, str]) -> None:
        """Read a stream, from the event after a number on; an earlier subscription to it ends.

        Raises:
            RequestRefused: the socket reads as many streams as it may.
        """
        if channel.stream_id not in self._readings and len(self._readings) >= _MOST_STREAMS:
            text = f"A socket reads at most {_MOST_STREAMS} streams."
            raise RequestRefused(Problem(status=429, type="rate_limit_error", code="too_many_streams", message=text))
        self._unsubscribe(channel.stream_id)
        projector = channel.projector(PROTOCOLS["socket"], variant, self.gateway.ticker, self.gateway.options)
        projector.attach(self, self.wake)
        self._readings[channel.stream_id] = _Reading(channel, projector, projector.shelf.after_seq(after), window)
        self.wake()

    def _unsubscribe(self, stream_id: str) -> None:
        reading = self._readings.pop(stream_id, None)
        if reading is not None:
            reading.projector.detach(self)
            self.gateway.tally.reader_gone("socket", "left")

    def _acknowledge(self, message: Mapping[str, Any]) -> None:
        reading, seq = self._readings.get(_text(message, "sid")), message.get("seq")
        if not isinstance(seq, int) or isinstance(seq, bool):
            raise RequestRefused.bad_request("seq must be the number of the last event that was handled.", "seq")
        if reading is not None:
            reading.acknowledge(seq)
            self.wake()

    # --- commands ------------------------------------------------------------------------------------------------

    def _start(self, ref: Any, operation: str, message: dict[str, Any], size: int) -> None:
        text = ""
        if len(self._tasks) >= _MOST_COMMANDS:
            text = f"A socket runs at most {_MOST_COMMANDS} operations at once."
        elif self._tasks and sum(self._tasks.values()) + size > _MOST_BYTES:
            text = f"The operations that a socket runs at once may have {_MOST_BYTES} bytes together."
        if text:
            raise RequestRefused(Problem(status=429, type="rate_limit_error", code="too_many_operations", message=text))
        self._begin(self._run_operation(ref, operation, message), size)

    async def _run_operation(self, ref: Any, operation: str, message: dict[str, Any]) -> None:
        try:
            scope, run = OPERATIONS[operation]
            if not self._admits(scope):
                return
            self._answer(ref, {"ok": True} | await run(SocketCall(self.call, self.read), message))
        except PenstockError as error:
            self._refuse(ref, error)
        except Exception as error:
            get_logger(request_id=self.call.request_id).error(
                "operation_failed", operation=operation, reason=describe_reason(error), exc_info=error
            )
            self._answer(ref, {"error": {"type": "server_error", "code": "internal_error", "message": "It failed."}})

    def _refuse(self, ref: Any, error: PenstockError) -> None:
        problem = problem_of(error)
        fields = {"type": problem.type, "code": problem.code, "message": problem.message, "param": problem.param}
        self._answer(ref, {"error": {name: value for name, value in fields.items() if value is not None}})

    def _answer(self, ref: Any, fields: Mapping[str, Any]) -> None:
        self._put(encode(({} if ref is None else {"ref": ref}) | dict(fields)))

    # --- writing -------------------------------------------------------------------------------------------------

    async def _send_share(self) -> bool:
        has_answered = await self._send_outgoing()
        if self._outgoing and not self._closing.done():
            return True  # the answer to a subscription comes before its events
        data = self._events()
        if data:
            await self._send(b"[%b]" % data[:-1])
        for frame in self._topics.frames() if not self._closing.done() else ():
            await self._send(b"[%b]" % frame)
        return has_answered or bool(data)

    def _events(self) -> bytes:
        """What all streams have for the next message: a share of each that has credit."""
        made: list[bytes] = []
        size = 0
        for stream_id, reading in list(self._readings.items()):
            shelf = reading.projector.shelf
            if size >= _LARGEST:
                break
            if reading.place < shelf.end and reading.credit > 0:
                self._readings[stream_id] = self._readings.pop(stream_id)  # the others come first the next time
                data, reading.place, last = shelf.read_some(reading.place, min(_SHARE, reading.credit))
                size += len(data)
                reading.credit -= len(data)
                reading.flight.append((last.seq if last is not None else 0, len(data)))
                made.append(data)
            if reading.projector.is_over and reading.place == shelf.end:
                del self._readings[stream_id]
                reading.projector.detach(self)
                self.gateway.tally.reader_gone("socket", "finished")
                if reading.projector.error is not None:
                    made.append(shelf.projection.cut(reading.projector.problem))
        return b"".join(made)


def _is_ref(ref: object) -> bool:
    return isinstance(ref, int) or (isinstance(ref, str) and len(ref) <= _LONGEST_REF)


def _text(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not value:
        raise RequestRefused.bad_request(f"{name} must be a text.", name)
    return value
