"""The Responses API on a WebSocket: the lanes of `LaneBook`, connected to streams."""

from __future__ import annotations

from typing import Any, Final

from penstock.config.logs import get_logger
from penstock.errors import PenstockError, describe_reason
from penstock.gateway.bodies import decode_object
from penstock.gateway.call import HttpCall
from penstock.gateway.channels import Channel
from penstock.gateway.problems import INTERNAL, Problem, RequestRefused, problem_of
from penstock.gateway.projections.responses_socket import Action, LaneBook, Send, StartResponse, StopResponse
from penstock.gateway.projector import Projector
from penstock.gateway.protocols import PROTOCOLS
from penstock.gateway.responses import begin_response
from penstock.gateway.steering import check_successor, note_unstopped
from penstock.gateway.stored import StoredResponse
from penstock.gateway.websocket import EXPIRED, WebSocket
from penstock.telemetry.gateway import ReaderInfo

__all__ = ["ResponsesConnection"]

_LONGEST: Final = 3_600.0
"""Seconds that a connection may last, as at OpenAI."""
_SHARE: Final = 65_536
_MOST_KEPT: Final = 64
_LARGEST_KEPT: Final = 16 * 1_048_576  # bytes of their inputs and answers; the newest may be larger
"""Responses of the connection that can be continued though they are not stored."""


_REVOKED: Final = RequestRefused.unauthenticated("The API key has been revoked.").problem


class _LaneReading:
    __slots__ = ("channel", "place", "projector")

    def __init__(self, channel: Channel, projector: Projector) -> None:
        self.channel = channel
        self.projector = projector
        self.place = 0


class ResponsesConnection(WebSocket):
    """One connection. It is a reader of each response that is under way."""

    def __init__(self, call: HttpCall, receive: Any, send: Any) -> None:
        super().__init__(call, receive, send)
        self._book = LaneBook(self._why_none_follows)
        self._lanes: dict[str | None, _LaneReading] = {}
        self._own: dict[str, StoredResponse] = {}
        self._began = self._loop.time()

    @property
    def is_reading(self) -> bool:
        """Whether a response is under way."""
        return bool(self._lanes) or super().is_reading

    @property
    def protocols(self) -> tuple[str, ...]:
        return ("responses",) * len(self._lanes)

    def infos(self) -> tuple[ReaderInfo, ...]:
        """What telemetry is told of it."""
        key = self.call.key.id
        return tuple(lane.projector.reader_info(lane.place, key) for lane in list(self._lanes.values()))

    def look(self, now: float) -> None:
        """Close the connection if it is too old, or its key has been revoked. Called about once a second."""
        super().look(now)
        if not self._closing.done() and now - self._began > _LONGEST:
            self._do(self._book.expired())
            self._end(EXPIRED)

    async def run(self) -> None:
        """Serve the connection until it is closed."""
        await self._send_message({"type": "websocket.accept"})
        await self._run()

    def _detach(self) -> None:
        for lane in self._lanes.values():
            lane.projector.detach(self)
            self.gateway.tally.reader_gone("responses", "drained" if self._closing.done() else "left")

    async def _handle(self, data: bytes) -> None:
        try:
            decode_object(data, self.gateway.options)
        except RequestRefused as error:
            self._do(self._book.malformed(error.problem))
        else:
            self._do(self._book.receive(data))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(data=data):
                    self._put(data)
                case StartResponse():
                    self._begin(self._start(action))
                case StopResponse(response_id=response_id, reason=reason):
                    self._begin(self._stop(response_id, reason))
        self.wake()

    async def _start(self, start: StartResponse) -> None:
        try:
            if not self._admits("write", is_counted=start.is_successor):  # else the input that it follows was counted
                return
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
        self._keep(channel.stream_id, stored)
        projector = channel.projector(PROTOCOLS["responses"], {}, self.gateway.ticker, self.gateway.options)
        self._book.began(start.lane, channel.stream_id)
        self._lanes[start.lane] = _LaneReading(channel, projector)
        projector.attach(self, self.wake)
        self.wake()

    def _keep(self, response_id: str, stored: StoredResponse) -> None:
        self._own[response_id] = stored
        size = sum(one.size for one in self._own.values())
        for oldest in list(self._own)[:-1]:
            if len(self._own) <= _MOST_KEPT and size <= _LARGEST_KEPT:
                break
            size -= self._own.pop(oldest).size

    def _why_none_follows(self, response_id: str) -> Problem | None:
        """Why no response could follow one under way; None: one can, and is counted as a request."""
        try:
            for lane in self._lanes.values():
                if lane.channel.stream_id == response_id:
                    check_successor(self.call, lane.channel)
            if not self._admits("write"):
                return _REVOKED
        except RequestRefused as refused:
            return refused.problem
        return None

    async def _stop(self, response_id: str, reason: str) -> None:
        for name, lane in list(self._lanes.items()):
            if lane.channel.stream_id == response_id:
                try:
                    await self.gateway.where_it_runs(lane.channel, lane.channel.stream.cancel, reason)
                except PenstockError as error:  # it goes on
                    note_unstopped(lane.channel, error)
                    self._do(self._book.not_stopped(name, response_id, problem_of(error)))

    async def _send_share(self) -> bool:
        self._collect()
        return await self._send_outgoing()

    def _collect(self) -> None:
        """Take a share of each lane's frames."""
        for name, lane in list(self._lanes.items()):
            shelf = lane.projector.shelf
            if lane.place < shelf.end:
                data, lane.place, last = shelf.read_some(lane.place, _SHARE)
                self._do(self._book.frames(name, data, last.number if last is not None else 0))
            if lane.projector.error is not None and lane.place == shelf.end:
                del self._lanes[name]
                lane.projector.detach(self)
                self.gateway.tally.reader_gone("responses", "finished")
                self._do(self._book.refused(name, lane.projector.problem))
            elif lane.projector.terminal is not None and lane.place == shelf.end:
                del self._lanes[name]
                lane.projector.detach(self)
                self.gateway.tally.reader_gone("responses", "finished")
                self._do(self._book.ended(name, lane.projector.terminal))
