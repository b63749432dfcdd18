"""The Responses API on a WebSocket: the lanes of `LaneBook`, connected to streams."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from penstock.config.logs import get_logger
from penstock.errors import PenstockError, describe_reason
from penstock.gateway.bodies import decode_object
from penstock.gateway.call import HttpCall
from penstock.gateway.channels import Channel
from penstock.gateway.problems import INTERNAL, UNSHOWN, Problem, RequestRefused, problem_of
from penstock.gateway.projections.responses_socket import Action, LaneBook, Send, StartResponse, StopResponse
from penstock.gateway.projector import Projector
from penstock.gateway.protocols import PROTOCOLS
from penstock.gateway.reader import Backlog, Waiter
from penstock.gateway.responses import begin_response
from penstock.gateway.stored import StoredResponse
from penstock.telemetry.gateway import ReaderInfo

__all__ = ["ResponsesConnection"]

_LONGEST: Final = 3_600.0
"""Seconds that a connection may last, as at OpenAI."""
_SHARE: Final = 65_536
_MOST_KEPT: Final = 64
"""Responses of the connection that can be continued though they are not stored."""
_DRAINING: Final = 1001
_TOO_BIG: Final = 1009
_LAST_MOMENT: Final = 1.0  # seconds


class _LaneReading:
    __slots__ = ("channel", "place", "projector")

    def __init__(self, channel: Channel, projector: Projector) -> None:
        self.channel = channel
        self.projector = projector
        self.place = 0


class ResponsesConnection(Waiter):
    """One connection. It is a reader of each response that is under way."""

    def __init__(self, call: HttpCall, receive: Any, send: Any) -> None:
        super().__init__(asyncio.get_running_loop())
        self.call = call
        self.gateway = call.gateway
        self._receive = receive
        self._send_message = send
        self._book = LaneBook()
        self._lanes: dict[str | None, _LaneReading] = {}
        self._own: dict[str, StoredResponse] = {}
        self._outgoing: deque[bytes] = deque()
        self._backlog = Backlog()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closes: int | None = None
        self._began = self._loop.time()
        self._writer: asyncio.Task[None] | None = None

    key = None  # `look` looks after it

    @property
    def is_reading(self) -> bool:
        """Whether a response is under way."""
        return bool(self._lanes or self._tasks or self._outgoing)

    def abandon(self) -> None:
        """Close the connection whatever waits to be sent."""
        if self._writer is not None:
            self._writer.cancel()

    def cut(self, problem: Problem) -> None:
        """Close the connection."""
        self._closes = _DRAINING
        self.wake()

    @property
    def protocols(self) -> tuple[str, ...]:
        return ("responses",) * len(self._lanes)

    def infos(self) -> tuple[ReaderInfo, ...]:
        """What telemetry is told of it."""
        key = self.call.key.id
        return tuple(lane.projector.reader_info(lane.place, key) for lane in list(self._lanes.values()))

    def look(self, now: float) -> None:
        """Close the connection if it is too old, or its key has been revoked. Called about once a second."""
        if self._closes is None and now - self._began > _LONGEST:
            self._do(self._book.expired())
            self._closes = 1000
        elif not self.gateway.guard.is_valid(self.call.key):
            self._closes = 4001
        self.wake()

    async def run(self) -> None:
        """Serve the connection until it is closed."""
        await self._send_message({"type": "websocket.accept"})
        writer = self._writer = asyncio.create_task(self._write())
        listener = asyncio.create_task(self._listen())
        self.gateway.readers.add(self)
        try:
            await asyncio.wait([writer, listener], return_when=asyncio.FIRST_COMPLETED)
            if self._closes is not None:
                await asyncio.wait([writer], timeout=_LAST_MOMENT)  # for the code of the closing
        finally:
            self.gateway.readers.discard(self)
            tasks = [writer, listener, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for lane in self._lanes.values():
                lane.projector.detach(self)
                self.gateway.tally.reader_gone("responses", "left" if self._closes is None else "drained")

    async def _listen(self) -> None:
        while (message := await self._receive())["type"] == "websocket.receive":
            data = message.get("text") or message.get("bytes") or ""
            if len(data) > self.call.exchange.max_body:
                self._closes = _TOO_BIG
                self.wake()
                return
            try:
                decode_object(data, self.gateway.options)
            except RequestRefused as error:
                self._do(self._book.malformed(error.problem))
            else:
                self._do(self._book.receive(data))
            await self._backlog.room()

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(data=data):
                    self._outgoing.append(data)
                    self._backlog.add(len(data))
                case StartResponse():
                    self._run(self._start(action))
                case StopResponse(response_id=response_id, reason=reason):
                    self._run(self._stop(response_id, reason))
        self.wake()

    def _run(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, start: StartResponse) -> None:
        try:
            self.gateway.limits.admit(self.call.key, self._loop.time())
            self.gateway.guard.check_scope(self.call.key, "write")
            channel, stored = await begin_response(
                self.call, start.body, start.asked, self._own, generates=start.generates
            )
        except PenstockError as error:
            self._do(self._book.refused(start.lane, problem_of(error)))
            return
        except Exception as error:  # a fault of ours: the lane must go on
            get_logger(request_id=self.call.request_id).error(
                "response_failed", reason=describe_reason(error), exc_info=error
            )
            self._do(self._book.refused(start.lane, INTERNAL))
            return
        self._own[channel.stream_id] = stored
        while len(self._own) > _MOST_KEPT:
            del self._own[next(iter(self._own))]
        projector = channel.projector(PROTOCOLS["responses"], {}, self.gateway.ticker, self.gateway.options)
        self._book.began(start.lane, channel.stream_id)
        self._lanes[start.lane] = _LaneReading(channel, projector)
        projector.attach(self, self.wake)
        self.wake()

    async def _stop(self, response_id: str, reason: str) -> None:
        for lane in list(self._lanes.values()):
            if lane.channel.stream_id == response_id:
                await self.gateway.in_thread(lane.channel.stream.cancel, reason)

    async def _write(self) -> None:
        while True:
            self._collect()
            if self._outgoing:
                data = self._outgoing.popleft()
                await self._send_message({"type": "websocket.send", "text": data.decode()})
                self._backlog.add(-len(data))
            elif self._closes is not None:
                await self._send_message({"type": "websocket.close", "code": self._closes})
                return
            else:
                await self.wait()

    def _collect(self) -> None:
        """Take a share of each lane's frames, once everything before them has been sent."""
        if self._outgoing:
            return
        for name, lane in list(self._lanes.items()):
            shelf = lane.projector.shelf
            if lane.place < shelf.end:
                data, lane.place, last = shelf.read_some(lane.place, _SHARE)
                self._do(self._book.frames(name, data, last.number if last is not None else 0))
            if lane.projector.error is not None and lane.place == shelf.end:
                del self._lanes[name]
                lane.projector.detach(self)
                self.gateway.tally.reader_gone("responses", "finished")
                self._do(self._book.refused(name, UNSHOWN))
            elif lane.projector.terminal is not None and lane.place == shelf.end:
                del self._lanes[name]
                lane.projector.detach(self)
                self.gateway.tally.reader_gone("responses", "finished")
                self._do(self._book.ended(name, lane.projector.terminal))
