"""uvicorn's HTTP connection, with limits for the part of a request that it reads before the gateway sees any of it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["LimitedConnection"]

_LONGEST_HEAD: Final = 65_536
_HEAD_TIME: Final = 30.0  # seconds
_TOO_LONG: Final = "431 Request Header Fields Too Large"
_TOO_LATE: Final = "408 Request Timeout"


class LimitedConnection(HttpToolsProtocol):
    """Closes a connection if its request line and headers are longer than 64 KiB, or take longer than 30 seconds.

    uvicorn keeps them without a limit until they are complete, and waits for them without a limit.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._is_head = True
        self._size = 0  # of the head so far
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_head:
            self._size += len(data)
            if self._timer is None:  # the connection was idle: its own time-out is over now
                self._expect_head()
        super().data_received(data)
        if self._is_head and self._size > _LONGEST_HEAD:
            self._refuse(_TOO_LONG)

    def on_headers_complete(self) -> None:
        self._is_head = False
        self._size = 0
        self._cancel_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_head = True

    def _expect_head(self) -> None:
        self._timer = self.loop.call_later(_HEAD_TIME, self._refuse, _TOO_LATE)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: str) -> None:
        self._cancel_timer()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:  # else it would be a part of the response before
            self.transport.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        self.transport.close()
