"""The WebSocket mode of the Responses API, as a machine without I/O: messages in, actions out.

A connection has lanes, named by the ``stream_id`` of ``response.create``; requests without one share a lane of their
own. A lane answers one request at a time, in the order in which they came; lanes do not wait for each other. Every
message of a lane repeats its name.

``response.steer`` adds input of the user to a response under way. The response is stopped, if it can be, and ends as
``incomplete``; one more response follows it by itself, with the same settings and the further input. If the response
ends because the model waits for results of the client's tools, the input waits for the request that has them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from penstock.events import TerminalEvent
from penstock.gateway.problems import Problem, RequestRefused
from penstock.gateway.projections.frames import encode
from penstock.gateway.projections.responses_object import STEERED, error_body
from penstock.gateway.projections.steering import (
    MOST_STEERS,
    input_items,
    required_input,
    what_follows,
    wrong_steer,
)
from penstock.gateway.requests.asked import Asked
from penstock.gateway.requests.responses import parse

__all__ = ["Action", "LaneBook", "Send", "StartResponse", "StopResponse", "socket_messages"]

MOST_LANES: Final = 32
MOST_WAITING: Final = 64
MOST_WAITING_BYTES: Final = 16 * 1_048_576
_LONGEST_LANE: Final = 256  # characters


class Send(msgspec.Struct, frozen=True):
    """Send a message to the client."""

    data: bytes


class StartResponse(msgspec.Struct, frozen=True):
    """Begin a response, and report it with `LaneBook.began` or `LaneBook.refused`.

    Attributes:
        lane: where its frames belong.
        body: the request, as ``POST /v1/responses`` takes it.
        asked: the same, read.
        generates: False: nothing is generated. The response is complete at once, without text, and only its input can
            be continued.
        is_successor: it follows a response into which input was steered, and was admitted with that input.
        size: bytes of the message.
    """

    lane: str | None
    body: Mapping[str, Any]
    asked: Asked
    generates: bool = True
    is_successor: bool = False
    size: int = 0


class StopResponse(msgspec.Struct, frozen=True):
    """Cancel a response with the reason `STEERED`; another one follows it. If it cannot be, it ends by itself."""

    response_id: str
    reason: str = STEERED


Action: TypeAlias = Send | StartResponse | StopResponse


class _Steer(msgspec.Struct, frozen=True):
    id: str
    input: Any
    size: int  # bytes of the message


class _Active:
    """The response that a lane answers at present."""

    __slots__ = ("body", "follows", "number", "response_id", "steers")

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.body = body
        self.response_id: str | None = None
        self.number = 0  # of its last event that was sent
        self.steers: list[_Steer] = []
        self.follows: tuple[str, list[_Steer]] | None = None  # the response into which its input was steered


class _Lane:
    __slots__ = ("active", "name", "waiting")

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.waiting: deque[StartResponse] = deque()
        self.active: _Active | None = None


class LaneBook:
    """The lanes of one connection. Used by one thread at a time.

    Args:
        why_none_follows: called with the id of a response before it is stopped for one that follows it; returns why
            none could be begun (the response then goes on, and the input is given back), or None.
        most_bytes: of the messages of all requests and inputs that wait; a single one may be larger.
    """

    def __init__(
        self,
        why_none_follows: Callable[[str], Problem | None] = lambda response_id: None,
        most_bytes: int = MOST_WAITING_BYTES,
    ) -> None:
        self._why_none_follows = why_none_follows
        self._most_bytes = most_bytes
        self._lanes: dict[str | None, _Lane] = {}
        self._owed: dict[str, tuple[str | None, list[_Steer]]] = {}  # by the response that waits for results
        self._ended: deque[str] = deque(maxlen=MOST_WAITING)
        self._steers = 0

    # --- from the client ---------------------------------------------------------------------------------------------

    def malformed(self, problem: Problem) -> list[Action]:
        """Answer a message that is not read at all."""
        return [_error(None, problem)]

    def receive(self, data: bytes | str) -> list[Action]:
        """Read a message of the client. One that is wrong is answered with an error, and changes nothing."""
        try:
            message = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return [_error(None, RequestRefused.bad_request("The message is not JSON.").problem)]
        if not isinstance(message, dict):
            return [_error(None, RequestRefused.bad_request("The message must be an object.").problem)]
        lane = message.get("stream_id")
        if lane is not None and not (isinstance(lane, str) and 0 < len(lane) <= _LONGEST_LANE):
            text = f"stream_id must be a text of 1 to {_LONGEST_LANE} characters."
            return [_error(None, RequestRefused.bad_request(text, "stream_id").problem)]
        match message.get("type"):
            case "response.create":
                try:
                    return self._create(message, lane, _size(data))
                except RequestRefused as refused:
                    return [_error(lane, refused.problem)]
            case "response.steer":
                return self._steer(message, _size(data))
            case _:
                text = "type must be response.create or response.steer."
                return [_error(lane, RequestRefused.bad_request(text, "type").problem)]

    def _create(self, message: dict[str, Any], name: str | None, size: int) -> list[Action]:
        generates = message.get("generate")
        if generates is not None and not isinstance(generates, bool):
            raise RequestRefused.bad_request("generate must be true or false.", "generate")
        for field in ("background", "stream"):
            if message.get(field) not in (None, field == "stream"):
                raise RequestRefused.bad_request(f"{field} is not supported over a WebSocket: leave it out.", field)
        body = {key: value for key, value in message.items() if key not in ("type", "stream_id", "generate", "stream")}
        asked = msgspec.structs.replace(parse(body), is_streamed=True)  # also of what waits: it is refused at once
        lane = self._lanes.get(name)
        if lane is None:
            if len(self._lanes) >= MOST_LANES:
                raise _too_many(f"More than {MOST_LANES} lanes are in use.", "stream_id")
            lane = self._lanes[name] = _Lane(name)
        if len(lane.waiting) >= MOST_WAITING:
            raise _too_many(f"More than {MOST_WAITING} requests wait in this lane.", "stream_id")
        if lane.active is not None and not self._has_room(size):
            raise _too_many(self._no_room, code="too_many_pending_bytes")
        lane.waiting.append(StartResponse(name, body, asked, generates is not False, size=size))
        return self._next(lane)

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes more may wait: what is alone always may."""
        waiting = sum(start.size for lane in self._lanes.values() for start in lane.waiting)
        steers = [lane.active.steers for lane in self._lanes.values() if lane.active is not None]
        steers += [owed for _, owed in self._owed.values()]
        waiting += sum(steer.size for some in steers for steer in some)
        return not waiting or waiting + size <= self._most_bytes

    @property
    def _no_room(self) -> str:
        return f"Requests and inputs that wait may have {self._most_bytes} bytes together."

    def _next(self, lane: _Lane) -> list[Action]:
        """Begin the next request of a lane that has none under way."""
        if lane.active is not None:
            return []
        if not lane.waiting:
            del self._lanes[lane.name]
            return []
        start = self._with_steers(lane.waiting.popleft())
        lane.active = _Active(start.body)
        return [start]

    def _with_steers(self, start: StartResponse) -> StartResponse:
        """The request with the input that waits for it, before its own."""
        previous = start.body.get("previous_response_id")
        if not isinstance(previous, str) or (owed := self._owed.get(previous)) is None or owed[0] != start.lane:
            return start
        del self._owed[previous]
        items = [item for steer in owed[1] for item in input_items(steer.input)]
        body = {**start.body, "input": items + input_items(start.body.get("input"))}
        return msgspec.structs.replace(start, body=body, asked=msgspec.structs.replace(parse(body), is_streamed=True))

    # --- steering ----------------------------------------------------------------------------------------------------

    def _steer(self, message: dict[str, Any], size: int) -> list[Action]:
        target, given = message.get("previous_response_id"), message.get("input")
        target = target if isinstance(target, str) else ""
        lane = next((lane for lane in self._lanes.values() if _is_under_way(lane, target)), None)
        code = text = ""
        active = lane.active if lane is not None else None
        if wrong := wrong_steer(message):
            code, text = "invalid_input", wrong
        elif lane is None or active is None:
            is_over = target in self._ended or target in self._owed
            code = "response_already_completed" if is_over else "response_not_found"
            text = "The response has ended." if is_over else "No response with this id is under way on this connection."
        elif len(active.steers) >= MOST_STEERS:
            code, text = "too_many_pending_steers", f"{MOST_STEERS} inputs wait for this response already."
        elif not self._has_room(size):
            code, text = "too_many_pending_bytes", self._no_room
        if code or lane is None or active is None:
            steer = {"input": given, "previous_response_id": target}
            return [self._steer_failed(lane, code, text, steer)]
        is_first = not active.steers
        if is_first and (problem := self._why_none_follows(target)) is not None:
            steer = {"input": given, "previous_response_id": target}
            return [self._steer_failed(lane, problem.code, problem.message, steer, problem.type)]
        steer_id = f"steer_{target}_{self._steers}"
        self._steers += 1
        active.steers.append(_Steer(steer_id, given, size))
        accepted = {"id": steer_id, "previous_response_id": target}
        actions: list[Action] = [self._send(lane, "response.steer.accepted", steer=accepted)]
        return [*actions, StopResponse(target)] if is_first else actions

    def _steer_failed(
        self, lane: _Lane | None, code: str, text: str, steer: dict[str, Any], kind: str = "invalid_request_error"
    ) -> Send:
        error = {"type": kind, "code": code, "message": text}
        return self._send(lane, "response.steer.failed", error=error, steer=steer)

    def _send(self, lane: _Lane | None, kind: str, **fields: Any) -> Send:
        number = lane.active.number if lane is not None and lane.active is not None else 0
        named = {} if lane is None or lane.name is None else {"stream_id": lane.name}
        return Send(encode({"type": kind, "sequence_number": number, **fields, **named}))

    # --- from the gateway --------------------------------------------------------------------------------------------

    def began(self, lane: str | None, response_id: str) -> None:
        """Note the id of the response that was begun."""
        active = self._lanes[lane].active
        assert active is not None
        active.response_id = response_id

    def refused(self, lane: str | None, problem: Problem) -> list[Action]:
        """The response could not be begun, or shown to its end. The next request of the lane follows."""
        record = self._lanes[lane]
        actions: list[Action] = [_error(lane, problem)]
        active = record.active
        if active is not None and active.follows is not None and active.response_id is None:
            actions += self._give_back(record, *active.follows, problem.message)
        elif active is not None and active.response_id is not None:
            actions += self._give_back(record, active.response_id, active.steers, _NOT_CONTINUED)
        record.active = None
        return actions + self._next(record)

    def not_stopped(self, lane: str | None, response_id: str, problem: Problem) -> list[Action]:
        """A response could not be stopped: it goes on, and what was steered into it is given back."""
        record = self._lanes.get(lane)
        if record is None or record.active is None or not _is_under_way(record, response_id):
            return []
        steers, record.active.steers = record.active.steers, []
        return list(self._give_back(record, response_id, steers, problem.message, problem.code, problem.type))

    def frames(self, lane: str | None, data: bytes, number: int) -> list[Action]:
        """Frames of the response under way, the last of which has ``number``."""
        active = self._lanes[lane].active
        if active is not None:
            active.number = number
        return [Send(message) for message in socket_messages(data, lane)]

    def ended(self, lane: str | None, event: TerminalEvent) -> list[Action]:
        """The response has ended, and its last frame was sent. What was steered into it follows, or waits."""
        record = self._lanes[lane]
        active = record.active
        assert active is not None
        response_id = active.response_id or event.stream_id
        self._ended.append(response_id)
        actions: list[Action] = []
        follows = what_follows(event) if active.steers else None
        if follows == "results":
            actions += self._owe(record, active, response_id, required_input(event))
        elif follows == "nothing":
            actions += self._give_back(record, response_id, active.steers, _NOT_CONTINUED)
        elif follows == "successor":
            record.waiting.appendleft(_successor(lane, active, response_id))
        record.active = None
        actions += self._next(record)
        if follows == "successor" and record.active is not None:
            record.active.follows = (response_id, active.steers)
        return actions

    def _owe(self, lane: _Lane, active: _Active, response_id: str, owed: list[dict[str, Any]]) -> Iterator[Action]:
        """Keep what was steered until the request that has the results. The oldest gives way if there is too much."""
        self._owed[response_id] = (lane.name, active.steers)
        for steer in active.steers:
            told = {"id": steer.id, "previous_response_id": response_id}
            fields: dict[str, Any] = {"reason": "waiting_for_required_input", "required_input": owed, "steer": told}
            yield self._send(lane, "response.steer.pending", **fields)
        if len(self._owed) > MOST_WAITING:
            oldest = next(iter(self._owed))
            name, steers = self._owed.pop(oldest)
            yield from self._give_back(_Lane(name), oldest, steers, "Too many inputs wait for results.")

    def _give_back(
        self,
        lane: _Lane,
        response_id: str,
        steers: list[_Steer],
        text: str,
        code: str = "successor_creation_failed",
        kind: str = "invalid_request_error",
    ) -> Iterator[Action]:
        for steer in steers:
            told = {"id": steer.id, "input": steer.input, "previous_response_id": response_id}
            yield self._steer_failed(lane, code, text, told, kind)

    @property
    def under_way(self) -> list[str]:
        """The ids of the responses that are answered at present: those that lose their reader with the connection."""
        found = (lane.active.response_id for lane in self._lanes.values() if lane.active is not None)
        return [response_id for response_id in found if response_id is not None]

    def expired(self) -> list[Action]:
        """The connection is as old as it may be; close it after this."""
        text = "The connection has reached its longest duration. Open a new one and continue there."
        code = "websocket_connection_limit_reached"
        return [_error(None, Problem(status=400, type="invalid_request_error", code=code, message=text))]


# --- steering --------------------------------------------------------------------------------------------------------

_NOT_CONTINUED: Final = "The response did not end in a way that can be continued."


def _is_under_way(lane: _Lane, response_id: str) -> bool:
    return lane.active is not None and response_id != "" and lane.active.response_id == response_id


def _successor(lane: str | None, active: _Active, response_id: str) -> StartResponse:
    items = [item for steer in active.steers for item in input_items(steer.input)]
    body = {**active.body, "previous_response_id": response_id, "input": items}
    return StartResponse(lane, body, msgspec.structs.replace(parse(body), is_streamed=True), is_successor=True)


# --- messages --------------------------------------------------------------------------------------------------------


def socket_messages(data: bytes, lane: str | None) -> list[bytes]:
    r"""Server-sent events as messages of a WebSocket, each with the name of its lane. The end marker is left out.

    >>> socket_messages(b'event: a\ndata: {"type":"a"}\n\ndata: [DONE]\n\n', "x")
    [b'{"type":"a","stream_id":"x"}']
    """
    tail = b"}" if lane is None else b',"stream_id":' + encode(lane) + b"}"
    messages = []
    for event in data.split(b"\n\n"):
        at = event.find(b"data: {")
        if at >= 0:
            messages.append(event[at + 6 : -1] + tail)
    return messages


def _too_many(text: str, param: str | None = None, code: str = "too_many_pending_requests") -> RequestRefused:
    return RequestRefused(Problem(status=429, type="rate_limit_error", code=code, message=text, param=param))


def _size(data: bytes | str) -> int:
    return len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode("utf-8", "surrogatepass"))


def _error(lane: str | None, problem: Problem) -> Send:
    fields: dict[str, Any] = {"type": "error", "status": problem.status, "error": error_body(problem)["error"]}
    if problem.retry_after is not None:
        fields["error"]["headers"] = {"retry-after": f"{problem.retry_after:g}"}
    if lane is not None:
        fields["stream_id"] = lane
    return Send(encode(fields))
