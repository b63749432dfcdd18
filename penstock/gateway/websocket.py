"""What all WebSockets of the gateway have in common: messages in and out, work that they begin, and their end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final

from penstock.config.logs import get_logger
from penstock.errors import describe_reason
from penstock.gateway.call import HttpCall
from penstock.gateway.keys import Scope
from penstock.gateway.problems import Problem
from penstock.gateway.reader import Backlog, Waiter
from penstock.telemetry.gateway import ReaderInfo

__all__ = ["DENIED", "EXPIRED", "WebSocket"]

EXPIRED: Final = 1000
DENIED: Final = 1008
_DRAINING, _TOO_BIG, _FAILED, _REVOKED = 1001, 1009, 1011, 4001
_REASONS: Final = {
    _DRAINING: "draining",
    DENIED: "not authenticated",
    _TOO_BIG: "message too big",
    _FAILED: "internal error",
    _REVOKED: "key revoked",
}
_LAST_MOMENT: Final = 5.0
"""Seconds for what is outgoing when the connection begins to close, and for the code of the closing."""


class _SocketLost(Exception):
    """The connection takes nothing more."""


class WebSocket(Waiter):
    """One connection. It is a reader of the streams that it sends.

    It closes for the first reason there is (`_end`). From then on no message is taken and no work is begun; work under
    way is cancelled. What is outgoing and one more share of each stream are sent, for 5 seconds at the most. A fault of
    ours is logged, and closes it with 1011.

    Subclasses define `protocols`, `infos`, `_handle`, `_send_share` and `_detach`.
    """

    key = None  # `look` looks after it

    def __init__(self, call: HttpCall, receive: Any, send: Any) -> None:
        super().__init__(asyncio.get_running_loop())
        self.call = call
        self.gateway = call.gateway
        self._receive = receive
        self._send_message = send
        self._outgoing: deque[bytes] = deque()
        self._backlog = Backlog()
        self._tasks: dict[asyncio.Task[None], int] = {}  # work under way, with the bytes of its messages
        self._closing: asyncio.Future[int] = self._loop.create_future()  # the code of the closing
        self._writer: asyncio.Task[None] | None = None

    # --- on the loop, by others ----------------------------------------------------------------------------------

    @property
    def is_reading(self) -> bool:
        """Whether it has work under way or a message to send."""
        return bool(self._tasks or self._outgoing)

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocol of each stream that it reads. Any thread."""
        raise NotImplementedError

    def infos(self) -> tuple[ReaderInfo, ...]:
        """What is reported to telemetry about each stream that it reads."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Close the connection whatever waits to be sent."""
        if self._writer is not None:
            self._writer.cancel()

    def cut(self, problem: Problem) -> None:
        """Close the connection; cursors stay valid."""
        self._end(_DRAINING)

    def look(self, now: float) -> None:
        """Close the connection if its key has been revoked. Called about once a second."""
        self._check_key()

    # --- for subclasses ------------------------------------------------------------------------------------------

    async def _handle(self, data: bytes) -> None:
        """Handle a message of the client, which is not decoded yet."""
        raise NotImplementedError

    async def _send_share(self) -> bool:
        """Send what is outgoing and a share of each stream, a bounded part; False: there was nothing."""
        raise NotImplementedError

    def _detach(self) -> None:
        """Leave the streams."""
        raise NotImplementedError

    async def _run(self) -> None:
        """Serve the accepted connection until it is closed."""
        writer = self._writer = asyncio.create_task(self._write())
        listener = asyncio.create_task(self._listen())
        for task, part in ((writer, "writer"), (listener, "listener")):
            task.add_done_callback(partial(self._note_fault, part))
        self.gateway.readers.add(self)
        if self.gateway.is_ending:  # the readers there were have been cut
            self._end(_DRAINING)
        waited: list[asyncio.Future[Any]] = [writer, listener, self._closing]
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if self._closing.done():
                await asyncio.wait([writer], timeout=_LAST_MOMENT)
        finally:
            self.gateway.readers.discard(self)
            tasks = [writer, listener, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._detach()

    async def _turn_away(self, code: int) -> None:
        """Close an accepted connection that is not served."""
        self._end(code)
        with suppress(_SocketLost):
            await self._close()

    def _check_key(self) -> None:
        if not self.gateway.guard.is_valid(self.call.key):
            self._end(_REVOKED)

    def _end(self, code: int) -> None:
        """Close the connection with a code, unless it closes already."""
        if not self._closing.done():
            self._closing.set_result(code)
            for task in list(self._tasks):
                task.cancel()
        self.wake()

    def _begin(self, work: Coroutine[Any, Any, None], size: int = 0) -> None:
        """Run work beside the others, unless the connection closes. ``size``: bytes of the message that asks for it."""
        if self._closing.done():
            work.close()
            return
        task = self._loop.create_task(work)
        self._tasks[task] = size
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._note_fault("work", task)

    def _note_fault(self, part: str, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, _SocketLost):
            self._fail(part, error)

    def _fail(self, part: str, error: BaseException) -> None:
        get_logger(request_id=self.call.request_id).error(
            "socket_failed", part=part, reason=describe_reason(error), exc_info=error
        )
        self._end(_FAILED)

    def _admits(self, scope: Scope, *, is_counted: bool = False) -> bool:
        """Whether a request of the client may be begun now. False: the connection closes, as its key was revoked.

        Args:
            scope: that it needs.
            is_counted: whether it has been counted as a request already.

        Raises:
            RequestRefused: the key has used up its limit, or does not have the scope.
        """
        self._check_key()
        if self._closing.done():
            return False
        if not is_counted:
            self.gateway.limits.admit(self.call.key, self._loop.time())
        self.gateway.guard.check_scope(self.call.key, scope)
        return True

    # --- messages ------------------------------------------------------------------------------------------------

    async def _next(self) -> bytes | None:
        """The next message, as UTF-8; None: the connection is closed or closes."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            return None
        text: str | None = message.get("text")
        data: bytes = text.encode("utf-8", "surrogatepass") if text is not None else message.get("bytes") or b""
        if len(data) > self.call.exchange.max_body:
            self._end(_TOO_BIG)
            return None
        await self._backlog.room()
        return None if self._closing.done() else data

    async def _listen(self) -> None:
        while (data := await self._next()) is not None:
            await self._handle(data)

    def _put(self, data: bytes) -> None:
        """Put a message at the end of what is outgoing."""
        self._outgoing.append(data)
        self._backlog.add(len(data))
        self.wake()

    async def _write(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._closing.done()  # what comes meanwhile is after the cursor: it may never stop
            try:
                has_sent = await self._send_share()
            except _SocketLost:
                raise
            except Exception as error:
                self._fail("writer", error)
                break
            if not has_sent and not is_last:
                await self.wait()
        await self._close()

    async def _send_outgoing(self) -> bool:
        """Send what is outgoing now, without what comes meanwhile; False: there was nothing."""
        count = len(self._outgoing)
        for _ in range(count):
            data = self._outgoing.popleft()
            await self._send(data)
            self._backlog.add(-len(data))
        return count > 0

    async def _send(self, data: bytes) -> None:
        await self._transmit({"type": "websocket.send", "text": data.decode()})

    async def _close(self) -> None:
        code = self._closing.result()
        await self._transmit({"type": "websocket.close", "code": code, "reason": _REASONS.get(code, "")})

    async def _transmit(self, message: dict[str, Any]) -> None:
        """Hand a message to the server.

        Raises:
            _SocketLost: the server does not take it: the client has left, or does not answer any more.
        """
        try:
            await self._send_message(message)
        except OSError:  # as ASGI says it
            raise _SocketLost from None
        except Exception as error:  # as some servers say it too
            get_logger(request_id=self.call.request_id).info("socket_lost", reason=describe_reason(error))
            raise _SocketLost from error
