"""`sse_response` for Django, in async views under ASGI."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from penstock.config.gateway import GatewayOptions
from penstock.errors import OptionError
from penstock.gateway.channels import abandon_unread
from penstock.gateway.embedding import Embedded, OnDisconnect
from penstock.gateway.problems import RequestRefused
from penstock.gateway.reader import AT_ONCE, Waiter
from penstock.gateway.resume import GAP_HEADER, ResumePoint, start_of
from penstock.gateway.ticker import Ticker
from penstock.stream import Stream

__all__ = ["AsyncEventBody", "sse_response"]


class AsyncEventBody(AsyncIterator[bytes]):
    """The body of a response: a reader of the stream from the first iteration to its end.

    Django closes it at the end of the request, in whatever thread, also if it was not iterated.
    """

    def __init__(self, embedded: Embedded, point: ResumePoint) -> None:
        loop = asyncio.get_running_loop()
        self._embedded = embedded
        self._point = point
        self._loop = loop
        self._ticker = Ticker(loop, embedded.options.tick)
        self._projector = embedded.projector(self._ticker)
        self._place = 0
        self._waiter = Waiter(loop)
        self._is_attached = self._is_cut = self._is_over = False

    async def __anext__(self) -> bytes:
        if self._is_over:
            raise StopAsyncIteration
        try:
            if not self._is_attached and (prelude := await self._begin()):
                return prelude
            return await self._next()
        except BaseException:
            self._close()
            raise

    async def _begin(self) -> bytes:
        """Read what there is of the stream, in slices; returns what comes before the first frame."""
        self._is_attached = True
        self._projector.attach(self, self._waiter.wake)
        await self._projector.catch_up()
        start = start_of(self._point, self._projector, self._embedded.epoch)
        self._place = start.place
        return start.prelude

    async def _next(self) -> bytes:
        shelf = self._projector.shelf
        while self._place >= shelf.end:
            if self._projector.is_over:
                return self._last()
            try:
                async with asyncio.timeout(self._embedded.options.heartbeat):
                    await self._waiter.wait()
            except TimeoutError:
                return shelf.projection.heartbeat
        data, self._place, _ = shelf.read_some(self._place, AT_ONCE)
        return data

    def _last(self) -> bytes:
        """What says that the frames are not all, if they cannot be made; nothing comes after it."""
        if self._projector.error is None or self._is_cut:
            raise StopAsyncIteration
        self._is_cut = True
        return self._projector.shelf.projection.cut(self._projector.problem)

    async def aclose(self) -> None:
        """Leave the stream. Its ``on_orphan`` applies if this was the last reader, also before the first iteration."""
        self._close()

    def close(self) -> None:
        """The same, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        has_left = not (self._projector.is_over and self._place >= self._projector.shelf.end)
        if self._is_attached:
            self._projector.detach(self)
        else:
            abandon_unread(self._embedded.record)
        self._ticker.close()
        if has_left:
            self._embedded.client_left()


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
    """Serve a stream from an async view of Django, as server-sent events.

    Args:
        stream: the stream.
        protocol: as for `penstock.gateway.starlette.sse_response`, like the arguments below.
        request: the request, from which ``Last-Event-ID`` and ``?after=`` are read.
        after: go on after this event.
        on_disconnect: what happens when the client leaves.
        options: heartbeat, tick and bounds.
        variant: what the protocol lets a reader choose.

    Raises:
        OptionError: an argument is not allowed; or the request came over WSGI, where Django would collect the whole
            answer before it sends the first byte.
    """
    from django.core.handlers.wsgi import WSGIRequest
    from django.http import HttpResponse, StreamingHttpResponse

    if isinstance(request, WSGIRequest):
        message = "Django buffers a stream of events under WSGI. Serve this view under ASGI."
        raise OptionError("request", type(request).__name__, "a request of an async view under ASGI", message=message)
    embedded = Embedded(stream, protocol, after, on_disconnect, options, variant or {})
    headers = {name.lower(): value for name, value in request.headers.items()} if request is not None else {}
    query = {name: request.GET[name] for name in request.GET} if request is not None else {}
    try:
        point = embedded.point(headers, query)
        if embedded.is_at_end(point):
            return HttpResponse(status=204)
        about = [*embedded.headers, *([GAP_HEADER] if embedded.is_gap(point) else ())]
    except RequestRefused as error:
        data = embedded.protocol.error(error.problem, "")
        return HttpResponse(
            data, status=embedded.protocol.status(error.problem), content_type=embedded.protocol.error_kind
        )
    response = StreamingHttpResponse(AsyncEventBody(embedded, point))
    for name, value in about:
        response[name] = value
    response["content-encoding"] = "identity"  # or GZipMiddleware would collect it
    return response
