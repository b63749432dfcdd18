"""Readers: the connections that get a stream's frames."""

from __future__ import annotations

import asyncio
import re
import zlib
from typing import Final

from penstock.gateway.exchange import Exchange, Headers
from penstock.gateway.keys import Key
from penstock.gateway.problems import Problem
from penstock.gateway.projector import Projector
from penstock.telemetry.gateway import ReaderInfo, ReaderOutcome

__all__ = ["AT_ONCE", "Backlog", "ResponseReader", "SseReader", "Waiter"]

AT_ONCE: Final = 262_144
"""Bytes handed to the server in one piece."""


_MOST_WAITING: Final = 262_144
"""Bytes of answers that wait to be sent on a WebSocket before the next message of the client is read."""


class Waiter:
    """Waits for news on an event loop, by one task; `wake` is called on the same loop."""

    __slots__ = ("_future", "_is_news", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None
        self._is_news = False

    def wake(self) -> None:
        future = self._future
        self._is_news = True
        if future is not None and not future.done():
            future.set_result(None)

    async def wait(self) -> None:
        """Wait until `wake` is called, or has been since the last wait."""
        if not self._is_news:
            self._future = self._loop.create_future()
            try:
                await self._future
            finally:
                self._future = None
        self._is_news = False


class Backlog:
    """How much waits to be sent to a client, so that no more is taken from it while it does not read."""

    __slots__ = ("_has_room", "_size")

    def __init__(self) -> None:
        self._size = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    def add(self, size: int) -> None:
        """So many bytes wait; fewer if negative."""
        self._size += size
        if self._size > _MOST_WAITING:
            self._has_room.clear()
        elif self._size <= _MOST_WAITING // 2:
            self._has_room.set()

    async def room(self) -> None:
        """Wait while too much waits."""
        await self._has_room.wait()


class ResponseReader(Waiter):
    """One connection that gets a response for some time, by the task that has made it.

    Args:
        exchange: the request; its body has been read.
    """

    __slots__ = (
        "_sends_since",
        "_task",
        "_watch",
        "exchange",
        "has_left",
        "is_abandoned",
        "key",
        "last_sent",
        "must_end",
    )

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(asyncio.get_running_loop())
        self.exchange = exchange
        self.key: Key | None = None
        self.has_left = False
        self.is_abandoned = False
        self.must_end: Problem | None = None
        self.last_sent = self._loop.time()
        self._sends_since: float | None = None  # None: it is sent nothing now
        self._watch: asyncio.Task[None] | None = None
        self._task = asyncio.current_task()

    # --- on the loop, by others ----------------------------------------------------------------------------------

    def cut(self, problem: Problem) -> None:
        """End the connection after what there is to send, with a last frame that says why."""
        self.must_end = problem
        self.wake()

    def abandon(self) -> None:
        """Cut the connection off where it is."""
        if not self.is_abandoned and self._task is not None:
            self.is_abandoned = True
            self._task.cancel()

    def look(self, now: float) -> None:
        """End it if it does not read. Called about once a second."""
        if self._sends_since is not None and now - self._sends_since > self._patience:
            self.abandon()

    @property
    def _patience(self) -> float:
        return _STUCK if self.must_end is None else _LAST_MOMENT

    # --- by its own task -----------------------------------------------------------------------------------------

    def is_own_end(self) -> bool:
        """Whether the `CancelledError` that the task has got is of `abandon` alone; then it is handled by this call."""
        return self.is_abandoned and self._task is not None and not self._task.uncancel()

    async def start(self, headers: Headers) -> None:
        """Send the status line and the headers."""
        self._sends_since = self._loop.time()
        await self.exchange.start(200, headers)
        self._sends_since = None

    async def send(self, data: bytes) -> None:
        """Send a part of the body."""
        self._sends_since = self._loop.time()
        await self.exchange.send(data)
        self._sends_since = None

    async def end(self, data: bytes = b"") -> None:
        """Send the last part of the body."""
        self._sends_since = self._loop.time()
        await self.exchange.end(data)
        self._sends_since = None

    def watch(self) -> None:
        """Notice from now on that the client leaves. `close` must follow."""
        self._watch = asyncio.create_task(self._notice_leaving())

    async def close(self) -> None:
        """Watch no more."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _notice_leaving(self) -> None:
        await self.exchange.until_left()
        self.has_left = True
        self.wake()


class SseReader(ResponseReader):
    """One connection that reads a stream as server-sent events.

    Args:
        projector: of the stream and the protocol.
        exchange: the request; its body has been read.
        place: the first frame to send.
    """

    __slots__ = (
        "_is_idle",
        "_packer",
        "place",
        "projector",
        "sent",
    )

    def __init__(self, projector: Projector, exchange: Exchange, place: int) -> None:
        super().__init__(exchange)
        self.projector = projector
        self.place = place
        self.sent = projector.shelf.size
        self._is_idle = False  # its task waits in `run` for frames, a sign of life or an end
        self._packer = zlib.compressobj(wbits=31) if _is_packed(exchange) else None

    # --- on the loop, by others ----------------------------------------------------------------------------------

    def take(self) -> None:
        """Take new frames: send them at once if its task has nothing else to do, else wake the task."""
        projector = self.projector
        if self._is_idle and not (self._is_news or self.has_left or self.must_end or projector.is_over):
            shelf = projector.shelf
            data, place, _ = shelf.read_some(self.place, AT_ONCE)
            if place == shelf.end and self._packer is None and self._sent_now(data):
                self.place = place
                self.sent = shelf.size
                self.last_sent = self._loop.time()
                return
        self.wake()

    def _sent_now(self, data: bytes) -> bool:
        try:
            return self.exchange.send_now(data)
        except Exception:  # its task meets the same fault, which then ends this reader, and not the one that has frames
            return False

    @property
    def is_reading(self) -> bool:
        return True

    def look(self, now: float) -> None:
        """Have it send a sign of life if it is silent, and end it if it does not read. Called about once a second."""
        options = self.exchange.options
        if self._sends_since is not None:
            if options.slow == "disconnect" and self.lag > options.reader_bytes and self.must_end is None:
                self.cut(_TOO_SLOW)
            super().look(now)
        elif now - self.last_sent >= options.heartbeat:
            self.wake()

    @property
    def protocols(self) -> tuple[str, ...]:
        return (self.projector.shelf.projection.name,)

    def infos(self) -> tuple[ReaderInfo, ...]:
        """What is reported to telemetry about it."""
        return (self.projector.reader_info(self.place, "" if self.key is None else self.key.id),)

    @property
    def outcome(self) -> ReaderOutcome:
        """How it ended, once it has."""
        if self.must_end is not None:
            return "too_slow" if self.must_end is _TOO_SLOW else "drained"
        if self.is_abandoned:
            return "too_slow"
        return "left" if self.has_left else "finished"

    @property
    def lag(self) -> int:
        """Bytes of frames that have come, before they are joined, since it had all there were; or since it began."""
        return self.projector.shelf.size - self.sent

    # --- by its own task -----------------------------------------------------------------------------------------

    async def begin(self, hold: float) -> None:
        """Attach to the stream, and wait for its first event, its end, the client's leaving, or ``hold`` seconds."""
        self.projector.attach(self, self.take)
        self.watch()
        until = self._loop.time() + hold
        while not (self.projector.first or self.projector.is_over or self.has_left or self.must_end):
            left = until - self._loop.time()
            if left <= 0:
                return
            try:
                async with asyncio.timeout(left):
                    await self.wait()
            except TimeoutError:
                return

    async def until_over(self) -> None:
        """Attach to the stream, and wait for its end or the client's leaving."""
        self.projector.attach(self, self.wake)
        self.watch()
        while not (self.projector.is_over or self.has_left or self.must_end):
            await self.wait()
            self.place = self.projector.shelf.end  # nothing is sent before the end

    async def run(self, headers: Headers, prelude: bytes = b"") -> None:
        """Send the frames until the stream has ended, or the client has left."""
        packed = (("content-encoding", "gzip"), ("vary", "accept-encoding")) if self._packer else ()
        await self.start((*headers, *packed))
        if prelude:
            await self._send(prelude)
        shelf = self.projector.shelf
        was_last = False
        while not self.has_left:
            if self.place < shelf.end and not was_last:
                was_last = self.must_end is not None  # what comes meanwhile is after the cursor: it may never stop
                await self._send_frames()
            elif self.projector.is_over and self.place == shelf.end:
                if self.projector.error is not None:
                    await self._send(shelf.projection.cut(self.projector.problem))
                break
            elif self.must_end is not None:
                await self._send(shelf.projection.cut(self.must_end))
                break
            else:
                self._is_idle = True
                try:
                    await self.wait()
                finally:
                    self._is_idle = False
                if self.place == shelf.end and self._is_silent:
                    await self._send(shelf.projection.heartbeat)
        if not self.has_left:
            await self.end(self._packer.flush() if self._packer else b"")

    async def _send_frames(self) -> None:
        """Send what there is now, a bounded part at a time: what waits for a client that does not read is not kept."""
        shelf = self.projector.shelf
        until = shelf.end
        while self.place < until and not self.has_left:
            data, self.place, _ = shelf.read_some(self.place, AT_ONCE)
            if self.place == shelf.end:
                self.sent = shelf.size
            await self._send(data)

    async def _send(self, data: bytes) -> None:
        if self._packer is not None:
            data = self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        for start in range(0, len(data), AT_ONCE):  # a single frame may be large
            self._sends_since = self._loop.time()
            await self.exchange.send(data[start : start + AT_ONCE])
            self._sends_since = None
            if self.has_left:
                return
        self.last_sent = self._loop.time()

    @property
    def _is_silent(self) -> bool:
        return self._loop.time() - self.last_sent >= self.exchange.options.heartbeat

    async def close(self) -> None:
        """Detach from the stream. Its ``on_orphan`` applies if this was the last reader."""
        self.projector.detach(self)
        await super().close()

    async def _notice_leaving(self) -> None:
        await super()._notice_leaving()
        self.projector.detach(self)  # at once: a send may still wait


_STUCK: Final = 120.0
"""Seconds after which a connection that takes nothing is closed."""
_LAST_MOMENT: Final = 5.0
"""Seconds for the last frame of a reader that is cut off."""
_TOO_SLOW: Final = Problem(
    status=503, type="server_error", code="too_slow", message="The reader was too slow. It may go on after its cursor."
)


def _is_packed(exchange: Exchange) -> bool:
    accepted = exchange.headers.get("accept-encoding", "")
    return exchange.options.enable_compression and _accepts_gzip(accepted)


def _accepts_gzip(accepted: str) -> bool:
    for entry in accepted.lower().split(","):
        name, _, weight = entry.partition(";")
        if name.strip() in ("gzip", "x-gzip"):
            return not re.fullmatch(r"\s*q=0(\.0*)?\s*", weight)
    return False
