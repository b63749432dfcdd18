"""The connection of one client: h11 parses requests, a timeline says what is sent and when."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from enum import Enum
from http.client import responses as reasons
from typing import Final

import h11
import msgspec

from penstock.adapters.loopback.endpoints import Endpoints
from penstock.adapters.loopback.framing import BodyFraming
from penstock.adapters.loopback.ledger import Ledger
from penstock.adapters.loopback.timeline import (
    EndEarly,
    FaultBegins,
    Head,
    ResetConnection,
    Stall,
    TimelineStep,
    WaitUntil,
)

__all__ = ["Connection", "ConnectionLimits", "OpenConnections"]


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits for clients."""

    body_bytes: int
    header_bytes: int
    connections: int


class OpenConnections:
    """The set of open connections."""

    def __init__(self) -> None:
        self.members: set[Connection] = set()
        self.closed = False
        """New connections are aborted."""

        self.empty = asyncio.Event()
        """Set when the last connection is removed."""

    def add(self, connection: Connection) -> None:
        """Add a connection."""
        self.members.add(connection)
        self.empty.clear()

    def discard(self, connection: Connection) -> None:
        """Remove a connection."""
        self.members.discard(connection)
        if not self.members:
            self.empty.set()


class _Mark(Enum):
    END = "no more steps"
    SENT = "no more steps, and the kernel has taken everything"


_END: Final = _Mark.END
_SENT: Final = _Mark.SENT

_BLOCK = 65_536
"""Bytes of events written before other connections get their turn."""

_REFUSED_AT_ONCE = 100
"""Connections over the limit that get a 503; connections beyond these are just closed."""

_PIPELINED = 1 << 20
"""Bytes a client may send ahead during a response. Reading never stops, so that a disconnect is noticed."""

_LINGER_S = 2.0
"""How long the rest of a refused request is read and discarded, so that a reset does not destroy the refusal."""


class Connection(asyncio.Protocol):
    """Serves one connection, in the provider's thread.

    The kernel must have taken everything before the next step is performed. So a fault never overtakes the text before
    it, and a client that does not read delays only itself.
    """

    def __init__(
        self, endpoints: Endpoints, ledger: Ledger, limits: ConnectionLimits, connections: OpenConnections
    ) -> None:
        self._endpoints = endpoints
        self._ledger = ledger
        self._limits = limits
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.header_bytes)
        self._transport: asyncio.Transport
        # The request being read
        self._request: h11.Request | None = None
        self._body = bytearray()
        # The response being sent
        self._steps: Iterator[TimelineStep] | None = None
        self._held: TimelineStep | _Mark | None = None
        self._framing: BodyFraming | None = None
        self._stream = False
        self._cut_short = False
        self._origin = 0.0
        self._timer: asyncio.Handle | None = None
        # The connection
        self._paused = False
        self._waiting = False
        self._over_limit = False
        self._lingering = False
        self._closing = False
        self._ended_by_us = False

    # --- called by the transport ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept a client. Over the limit its first request gets a 503; far over the limit it is aborted."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer: socket.socket = transport.get_extra_info("socket")
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio sets it only if `proto` is given
        transport.set_write_buffer_limits(high=0)  # `pause_writing` then means: the kernel has not taken all
        others = len(self._connections.members)
        self._over_limit = others >= self._limits.connections
        self._connections.add(self)
        self._ledger.count(connections=1, active_connections=1, refused_connections=int(self._over_limit))
        if self._connections.closed or others >= self._limits.connections + _REFUSED_AT_ONCE:
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Parse bytes of a request."""
        if self._lingering or self._ended_by_us:
            return
        self._http.receive_data(data)
        if self._steps is None:
            self._read_request()
        elif len(self._http.trailing_data[0]) > _PIPELINED:
            self.abort()

    def eof_received(self) -> bool:
        """Treat the end of the client's data as a disconnect: no LLM client closes only one direction."""
        self._client_left()
        self._transport.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after either side has closed the socket."""
        self._client_left()
        self._cancel_timer()
        self._drop_response()
        self._connections.discard(self)
        self._ledger.count(active_connections=-1)

    def pause_writing(self) -> None:
        """Note that the kernel has not taken everything."""
        self._paused = True

    def resume_writing(self) -> None:
        """Note that the kernel has taken everything, and continue the response."""
        self._paused = False
        if self._steps is not None and not self._waiting:
            # Not directly: if the transport is closed during this call, asyncio closes it twice.
            self._wait(self._loop.call_soon(self._play))

    # --- called by the server ---------------------------------------------------------------------------------

    def finish(self) -> None:
        """Close as soon as the current response is sent; immediately if there is none."""
        self._closing = True
        if self._steps is None:
            self.abort()

    def abort(self) -> None:
        """Close immediately."""
        self._ended_by_us = True
        self._transport.abort()

    # --- requests ---------------------------------------------------------------------------------------------

    def _read_request(self) -> None:
        while self._steps is None and not (self._lingering or self._transport.is_closing()):
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(error.error_status_hint, f"Bad request: {error}.")
                return
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
                return
            if isinstance(event, h11.Request):
                self._request = event
                self._body.clear()
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._respond()
                return
            else:
                return  # paused or closed: nothing more is expected
            if self._announced() > self._limits.body_bytes or len(self._body) > self._limits.body_bytes:
                self._refuse(413, f"The request body is larger than {self._limits.body_bytes} bytes.")
                return

    def _announced(self) -> int:
        assert self._request is not None
        lengths = [value for name, value in self._request.headers if name == b"content-length"]
        return int(lengths[0]) if lengths else 0

    def _respond(self) -> None:
        assert self._request is not None
        if self._over_limit:
            self._refuse(503, f"More than {self._limits.connections} connections.")
            return
        body = bytes(self._body)
        self._body.clear()
        self._begin(self._endpoints.respond(self._request.method.decode("latin-1"), *self._asked(), body))

    def _asked(self) -> tuple[str, dict[str, str]]:
        """Return target and headers of the request; both empty if there is none."""
        if self._request is None:
            return "", {}
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._request.headers}
        return self._request.target.decode("latin-1"), headers

    def _refuse(self, status: int, message: str) -> None:
        """Answer a request that is incomplete or not to be served with an error, then close."""
        self._closing = True
        if self._http.our_state is h11.SEND_BODY or self._http.our_state is h11.ERROR:
            self.abort()
            return
        self._begin(self._endpoints.refuse(*self._asked(), status, message))

    # --- responses --------------------------------------------------------------------------------------------

    def _begin(self, steps: Iterator[TimelineStep]) -> None:
        self._steps = steps
        self._origin = self._loop.time()
        self._ledger.count(active_responses=1)
        self._play()

    def _play(self) -> None:
        """Perform the steps that are due, and schedule the next call for the rest."""
        self._timer = None
        self._waiting = False
        try:
            self._play_due()
        except BaseException:
            self.abort()  # a bug here must not leave the client waiting
            raise

    def _play_due(self) -> None:
        assert self._steps is not None
        events: list[bytes] = []
        size = 0
        while not self._paused:
            step = self._held if self._held is not None else next(self._steps, _END)
            self._held = None
            if isinstance(step, bytes):
                events.append(step)
                size += len(step)
                if size >= _BLOCK:
                    self._send(events, flush=False)
                    self._wait(self._loop.call_soon(self._play))
                    return
            elif isinstance(step, FaultBegins):
                self._ledger.count(faults_injected=1)
            elif isinstance(step, WaitUntil):
                due = self._origin + step.seconds
                if due > self._loop.time():
                    self._send(events, flush=True)
                    self._wait(self._loop.call_at(due, self._play))
                    return
            elif step is _END:
                self._send_end(events)
                events = []
                self._held = _SENT
            else:
                self._send(events, flush=True)
                events = []
                if self._paused:
                    self._held = step
                elif not self._perform(step):
                    return

    def _wait(self, timer: asyncio.Handle | None) -> None:
        self._waiting = True
        self._timer = timer

    def _perform(self, step: Head | Stall | ResetConnection | EndEarly | _Mark) -> bool:
        """Perform one step, after everything before it has been sent; returns whether to continue immediately."""
        if isinstance(step, Head):
            self._send_head(step)
            return True
        if isinstance(step, Stall):
            self._origin += step.seconds or 0.0
            self._wait(None if step.seconds is None else self._loop.call_later(step.seconds, self._play))
            return False
        if isinstance(step, EndEarly) and step.clean:
            self._cut_short = True
            self._send_end([])
            self._held = _SENT
            return True
        if step is _SENT:
            self._complete()
            return False
        if isinstance(step, ResetConnection):
            peer: socket.socket = self._transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()  # nothing is buffered, so without the linger option this is an ordinary FIN
        return False

    def _send_head(self, head: Head) -> None:
        self._framing, self._stream = head.framing, head.stream
        framing = head.framing
        headers = [*head.headers, ("server", "penstock-loopback")]
        reason = reasons.get(head.status, "")
        if framing.framing == "close":
            # h11 would use chunks for a client that knows them. This connection does not need h11 any more.
            lines = [f"HTTP/1.1 {head.status} {reason}", *(f"{name}: {value}" for name, value in headers), "", ""]
            self._write("\r\n".join(lines).encode("latin-1"))
            return
        if framing.chunked and self._http.their_http_version == b"1.0":
            framing.unchunk()
        response = h11.Response(status_code=head.status, headers=headers, reason=reason.encode())
        self._write(self._http.send(response))

    def _send(self, events: list[bytes], *, flush: bool) -> None:
        if self._framing is None or (not events and not flush):
            return
        self._write_body(self._framing.feed(events, flush=flush))
        if events:
            self._ledger.count(events_sent=len(events))

    def _send_end(self, events: list[bytes]) -> None:
        """Send the last events and the end of the HTTP body, in one write unless the framing splits them."""
        assert self._framing is not None
        *writes, last = [b"", *self._framing.feed(events, flush=True), *self._framing.end()]
        self._write_body([*writes, last + b"0\r\n\r\n" if self._framing.chunked else last])
        if events:
            self._ledger.count(events_sent=len(events))

    def _write_body(self, writes: list[bytes]) -> None:
        assert self._framing is not None
        if self._request is not None and self._request.method == b"HEAD":
            return
        for data in writes:
            if self._framing.framing == "length":
                self._http.send(h11.Data(data=data))  # h11 checks the length
            self._write(data)
        if writes:
            self._ledger.count(bytes_sent=sum(map(len, writes)))

    def _write(self, data: bytes | None) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _complete(self) -> None:
        """Count a response that the kernel has taken, then read the next request or close."""
        if self._transport.is_closing():
            return  # the client disconnected meanwhile; `connection_lost` follows and counts it
        assert self._framing is not None
        framing, whole_stream = self._framing, self._stream and not self._cut_short
        self._drop_response(responses_completed=1, streams_completed=int(whole_stream))
        if framing.framing == "close":
            self._leave()
            return
        self._http.send(h11.EndOfMessage())  # its bytes, if any, are already sent
        if self._closing or self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            self._leave()
            return
        self._http.start_next_cycle()
        self._loop.call_soon(self._read_request)  # directly, pipelined requests would recurse deeply

    def _drop_response(self, **counts: int) -> None:
        """Forget the response and its request, if any. The counters change together, so that no reader sees a half."""
        if self._steps is not None:
            self._steps = None
            self._held = self._framing = None
            self._stream = self._cut_short = False
            counts["active_responses"] = -1
        self._request = None
        if counts:
            self._ledger.count(**counts)

    def _leave(self) -> None:
        """Close the connection. The rest of a refused request is read and discarded first."""
        if self._http.their_state in (h11.SEND_BODY, h11.ERROR) and not self._lingering:
            self._lingering = True
            self._transport.write_eof()
            self._timer = self._loop.call_later(_LINGER_S, self.abort)
        else:
            self._ended_by_us = True
            self._transport.close()

    def _client_left(self) -> None:
        """Count a disconnect, once, and only if a request was being read or answered."""
        if self._request is not None and not self._ended_by_us and not self._lingering:
            self._ended_by_us = True
            self._cancel_timer()
            self._drop_response(client_disconnects=1)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
