"""The same server-sent events, as others send them: ASGI apps that end when they are told.

Each makes the frames for each reader, with the same bytes as the gateway's native protocol.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

__all__ = ["APPS", "Beat"]

_FRAME: Final = b'id: 0a1b2c3d-%d\nevent: token\ndata: {"type":"TokenEvent","seq":%d,"kind":"text","text":"@%.6f"}\n\n'
_HEADERS: Final = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class Beat:
    """When frames are due, and whether there are more.

    Args:
        rate: frames a second for each reader.
    """

    def __init__(self, rate: float) -> None:
        self.interval = 1 / rate
        self.is_over = False
        self._next: asyncio.Future[None] | None = None
        self._ticker: asyncio.Task[None] | None = None

    async def together(self) -> None:
        """Wait for the next tick of all readers."""
        loop = asyncio.get_running_loop()
        if self._ticker is None:
            self._ticker = loop.create_task(self._tick())
        if self._next is None:
            self._next = loop.create_future()
        await self._next

    async def _tick(self) -> None:
        due = time.monotonic()
        while not self.is_over:
            due += self.interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            future, self._next = self._next, None
            if future is not None:
                future.set_result(None)


def raw(beat: Beat) -> Any:
    """Plain ASGI, a timer for each reader."""
    return _plain(beat, lambda: asyncio.sleep(beat.interval))


def raw_shared(beat: Beat) -> Any:
    """Plain ASGI, one timer for all readers."""
    return _plain(beat, beat.together)


def _plain(beat: Beat, wait: Callable[[], Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        number = 0
        while not beat.is_over:
            await wait()
            number += 1
            data = _FRAME % (number, number, time.time())
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


def starlette(beat: Beat) -> Any:
    """Starlette's `StreamingResponse`."""

    async def frames() -> AsyncIterator[bytes]:
        number = 0
        while not beat.is_over:
            await asyncio.sleep(beat.interval)
            number += 1
            yield _FRAME % (number, number, time.time())

    async def endpoint(request: Request) -> StreamingResponse:
        return StreamingResponse(frames(), media_type="text/event-stream")

    return Starlette(routes=[Route("/sse", endpoint)])


def sse_starlette(beat: Beat) -> Any:
    """sse-starlette's `EventSourceResponse`."""
    response: Any = importlib.import_module("sse_starlette").EventSourceResponse

    async def frames() -> AsyncIterator[dict[str, str]]:
        number = 0
        while not beat.is_over:
            await asyncio.sleep(beat.interval)
            number += 1
            data = f'{{"type":"TokenEvent","seq":{number},"kind":"text","text":"@{time.time():.6f}"}}'
            yield {"id": f"0a1b2c3d-{number}", "event": "token", "data": data}

    async def endpoint(request: Request) -> Any:
        return response(frames(), sep="\n")

    return Starlette(routes=[Route("/sse", endpoint)])


APPS: Final[dict[str, Callable[[Beat], Any]]] = {
    "uvicorn, a timer a reader": raw,
    "uvicorn, one ticker": raw_shared,
    "StreamingResponse": starlette,
    "sse-starlette": sse_starlette,
}
