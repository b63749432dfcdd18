"""`sse_response` for Starlette and FastAPI."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import HTTPConnection
from starlette.responses import Response

from penstock.config.gateway import GatewayOptions
from penstock.config.logs import get_logger
from penstock.gateway.channels import abandon_unread
from penstock.gateway.embedding import Embedded, OnDisconnect
from penstock.gateway.exchange import Exchange
from penstock.gateway.problems import Problem, RequestRefused
from penstock.gateway.reader import SseReader
from penstock.gateway.resume import GAP_HEADER
from penstock.gateway.serving import early_problem
from penstock.gateway.ticker import Ticker
from penstock.stream import Stream

__all__ = ["SseResponse", "sse_response"]

_warned: Final[set[str]] = set()


def sse_response(
    stream: Stream,
    protocol: str = "native",
    request: HTTPConnection | None = None,
    after: int | str | None = None,
    on_disconnect: OnDisconnect = None,
    *,
    options: GatewayOptions | None = None,
    variant: Mapping[str, str] | None = None,
) -> SseResponse:
    """Serve a stream from a route of Starlette or FastAPI, as server-sent events.

    The client's leaving is noticed at once, also before the first token, and counts as a reader that leaves: with
    ``on_orphan="cancel"``, the default of `System.chat`, the provider's call ends. The status line waits for the first
    event or error, so that an error before the first token has its own HTTP status.

    Args:
        stream: the stream.
        protocol: ``"native"``, ``"openai"``, ``"responses"``, ``"anthropic"``, ``"ui"`` or ``"agui"``.
        request: not needed: the response reads ``Last-Event-ID`` and ``?after=`` from its own request.
        after: go on after this event, whatever the request says: a ``seq``, or the id of an event.
        on_disconnect: when the client leaves: None: the stream's own ``on_orphan``; ``"cancel"``, ``"continue"`` or
            seconds replace it; a function is called.
        options: heartbeat, tick and bounds; None takes the defaults.
        variant: what the protocol lets a reader choose, such as ``{"v": "7"}`` for ``"ui"``.

    Raises:
        OptionError: an argument is not allowed.
    """
    return SseResponse(Embedded(stream, protocol, after, on_disconnect, options, variant or {}))


class SseResponse(Response):
    """A pure ASGI response: no generator that may never start, and no task that outlives the request."""

    def __init__(self, embedded: Embedded) -> None:
        super().__init__(status_code=200)
        self._embedded = embedded
        del self.headers["content-length"]
        for name, value in embedded.headers:
            self.headers[name] = value

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        embedded, options = self._embedded, self._embedded.options
        exchange = Exchange(scope, receive, send, options)
        ticker = Ticker(asyncio.get_running_loop(), options.tick)
        projector = embedded.projector(ticker)
        reader: SseReader | None = None
        looking: asyncio.Task[None] | None = None
        try:
            exchange.check()
            await projector.catch_up()
            start = embedded.start(projector, exchange.headers, exchange.query)
            if start.is_at_end:
                await exchange.respond(204, b"")
                return
            if scope["method"] == "HEAD":
                await exchange.start(200, self._sent_headers(start.is_gap))
                await exchange.end()
                return
            reader = SseReader(projector, exchange, start.place)
            looking = asyncio.create_task(_look_after(reader, options.heartbeat))
            await reader.begin(0.0 if _is_wrapped(receive) else options.first_byte_hold)
            if not reader.has_left:
                if start.place == 0 and (problem := early_problem(projector)) is not None:
                    raise RequestRefused(problem)
                await reader.run(self._sent_headers(start.is_gap), start.prelude)
        except RequestRefused as error:
            await self._refuse(exchange, error.problem)
        except asyncio.CancelledError:
            if reader is None or not reader.is_own_end():
                raise  # else the client does not read: nothing of the host has been cancelled
        finally:
            if reader is None:
                abandon_unread(embedded.record)  # what the stream was opened for has not come to read it
            if looking is not None:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)
            if reader is not None:
                await reader.close()
            ticker.close()
            if not exchange.is_complete:
                embedded.client_left()
        if self.background is not None:
            await self.background()

    def _sent_headers(self, is_gap: bool) -> list[tuple[str, str]]:
        given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw_headers]
        return [*given, GAP_HEADER] if is_gap else given

    async def _refuse(self, exchange: Exchange, problem: Problem) -> None:
        if not exchange.has_started:
            protocol = self._embedded.protocol
            data = protocol.error(problem, "")
            await exchange.respond(protocol.status(problem), data, (), protocol.error_kind)


async def _look_after(reader: SseReader, heartbeat: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(min(1.0, heartbeat / 2))
        reader.look(loop.time())


def _is_wrapped(receive: Any) -> bool:
    """Whether Starlette's ``BaseHTTPMiddleware`` stands between: it hides that the client leaves before the first byte.

    A warning in the log says so once.
    """
    if "BaseHTTPMiddleware" not in getattr(receive, "__qualname__", ""):
        return False
    if "middleware" not in _warned:
        _warned.add("middleware")
        get_logger().warning(
            "base_http_middleware",
            effect="the client's leaving before the first byte is not seen, so the status line is sent at once",
            advice="write the middleware as a pure ASGI one",
        )
    return True
