"""`sse_response` for Flask and other WSGI frameworks. A thread serves one stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from penstock.config.gateway import GatewayOptions
from penstock.errors import CallTimeout
from penstock.events import Event, TerminalEvent
from penstock.gateway.channels import abandon_unread
from penstock.gateway.embedding import Embedded, OnDisconnect
from penstock.gateway.problems import UNSHOWN, RequestRefused
from penstock.gateway.projections.frames import Projection, joined
from penstock.gateway.projector import projection_failed, tokens_lost
from penstock.gateway.resume import GAP_HEADER, told_epoch
from penstock.stream import Stream

__all__ = ["EventBody", "sse_response"]


class EventBody(Iterator[bytes]):
    """The body of a response, for a WSGI server: it iterates it, and closes it when the client has left.

    A WSGI server notices that only when it writes, so the signs of life are what notices it.

    Args:
        embedded: the stream and the protocol.
        projection: makes the frames.
        after: frames of events up to this one are left out.
        prelude: comes before all frames.
        is_gap: the reader does not go on exactly after its cursor; the response says so by ``x-penstock-gap: 1``.
    """

    def __init__(
        self, embedded: Embedded, projection: Projection, after: int, prelude: bytes = b"", *, is_gap: bool = False
    ) -> None:
        self._embedded = embedded
        self._projection = projection
        self._after = after
        self._prelude = prelude
        self.is_gap = is_gap
        self._events: Any = None
        self._is_over = False

    def __next__(self) -> bytes:
        if self._is_over:
            raise StopIteration
        if self._events is None:
            self._events = _events(self._embedded)
        if self._prelude:
            prelude, self._prelude = self._prelude, b""
            return prelude
        while True:
            try:
                event: Event = self._events.next(self._embedded.options.heartbeat)
            except CallTimeout:
                return self._projection.heartbeat
            except StopIteration:
                self._is_over = True
                raise
            try:
                frames = [frame for frame in self._projection.feed(event) if frame.seq > self._after]
                if isinstance(event, TerminalEvent):
                    tokens_lost(self._embedded.record, self._projection)
                if frames:
                    return joined(frames, self._projection)
            except Exception as error:
                projection_failed(self._embedded.record, self._projection, error)
                self.close()
                return self._projection.cut(UNSHOWN)

    def close(self) -> None:
        """Leave the stream. Its ``on_orphan`` applies if this was the last reader, also before the first iteration."""
        events, self._events = self._events, None
        has_left = not self._is_over
        self._is_over = True
        if events is not None:
            events.close()
        elif has_left:
            abandon_unread(self._embedded.record)
        if has_left:
            self._embedded.client_left()


def _events(embedded: Embedded) -> Any:
    return Stream(embedded.record, 5.0).events(slow="coalesce", window=64)


def sse_response(
    stream: Stream,
    protocol: str = "native",
    request: Any = None,
    after: int | str | None = None,
    on_disconnect: OnDisconnect = None,
    *,
    options: GatewayOptions | None = None,
    variant: Mapping[str, str] | None = None,
) -> Any:
    """Serve a stream from a Flask view, as server-sent events.

    Give the server as many threads as streams are read at once, or use gevent.

    Args:
        stream: the stream.
        protocol: as for `penstock.gateway.starlette.sse_response`, like the arguments below.
        request: the request, from which ``Last-Event-ID`` and ``?after=`` are read; None takes Flask's present one.
        after: go on after this event.
        on_disconnect: what happens when the client leaves.
        options: heartbeat and bounds.
        variant: what the protocol lets a reader choose.

    Raises:
        OptionError: an argument is not allowed.
        ModuleNotFoundError: Flask is not installed; see `event_body` for other frameworks.
    """
    import flask

    asked = flask.request if request is None else request
    embedded = Embedded(stream, protocol, after, on_disconnect, options, variant or {})
    headers = {name.lower(): value for name, value in asked.headers.items()}
    try:
        body = event_body(embedded, headers, asked.query_string.decode("latin-1"))
    except RequestRefused as error:
        data = embedded.protocol.error(error.problem, "")
        return flask.Response(
            data, status=embedded.protocol.status(error.problem), content_type=embedded.protocol.error_kind
        )
    if body is None:
        return flask.Response(status=204)
    response = flask.Response(body, direct_passthrough=True)
    for name, value in [*embedded.headers, *([GAP_HEADER] if body.is_gap else ())]:
        response.headers[name] = value
    return response


def event_body(embedded: Embedded, headers: Mapping[str, str], query: str) -> EventBody | None:
    """The body for a request; None: its cursor is the end of the stream, and the answer is 204 without a body.

    Args:
        embedded: the stream and the protocol.
        headers: of the request, with names in lower case.
        query: of the request's URL.

    Raises:
        RequestRefused: the cursor is none (400), or it is strict and there is a gap (410).
    """
    point = embedded.point(headers, dict(parse_qsl(query)))
    log, projection = embedded.record.log, embedded.new_projection()
    last = log.last_seq if point.seq is None else point.seq
    is_other = bool(point.epoch) and point.epoch != embedded.epoch
    if embedded.is_at_end(point):
        return None
    is_gap = embedded.is_gap(point)
    prelude = told_epoch(projection, embedded.epoch) if is_other else b""
    after = 0 if is_other or projection.rejoin != "after" else last
    return EventBody(embedded, projection, after, prelude, is_gap=is_gap)
