"""Waiting for several streams: `as_completed`, `gather`, `collect`. None of it counts as a subscriber."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Self

from penstock.actors.stream.texts import completion
from penstock.config.checks import check_number
from penstock.errors import CallTimeout, OptionError, PenstockError
from penstock.events import StreamCompleted
from penstock.stream import Stream

__all__ = ["Completions", "aas_completed", "acollect", "agather", "as_completed", "collect", "gather"]

_WHAT = "the next of several streams to end"


class Completions(Iterator[Stream], AsyncIterator[Stream]):
    """What `as_completed` returns: the streams as they end, for ``for`` and ``async for``. One consumer at a time."""

    def __init__(self, streams: Iterable[Stream], timeout: float | None = None) -> None:
        check_number("timeout", timeout, 0, 1e9, optional=True)
        self._timeout = timeout
        self._pending: dict[int, Stream] = {}
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._ended: deque[int] = deque()
        self._latch = threading.Semaphore(0)
        self._on_news: Callable[[], None] | None = None
        for stream in {id(_checked(one)._record): one for one in streams}.values():
            self._pending[len(self._pending)] = stream
        first = next(iter(self._pending.values()), None)
        self._dispatcher = None if first is None else first._record.runtime.dispatcher
        self._deadline = None
        if self._dispatcher is not None and timeout is not None:
            self._deadline = self._dispatcher.monotonic() + timeout
        for number, stream in tuple(self._pending.items()):

            def note(number: int = number) -> None:
                self._note(number)

            self._callbacks[number] = note
            stream._record.over.when_done(note)

    def _note(self, number: int) -> None:
        self._ended.append(number)
        self._latch.release()
        on_news = self._on_news
        if on_news is not None:
            on_news()

    @property
    def pending(self) -> tuple[Stream, ...]:
        """The streams that have not been returned yet."""
        return tuple(self._pending.values())

    def close(self) -> None:
        """Wait for no more streams. They run on."""
        for number, stream in self._pending.items():
            stream._record.over.forget(self._callbacks[number])
        self._pending = {}

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    def __next__(self) -> Stream:
        if not self._pending:
            raise StopIteration
        assert self._dispatcher is not None
        if not self._latch.acquire(blocking=False) and not self._dispatcher.wait(self._latch, self._left()):
            raise self._too_late()
        return self._pending.pop(self._ended.popleft())

    async def __anext__(self) -> Stream:
        if not self._pending:
            raise StopAsyncIteration
        if not self._latch.acquire(blocking=False):
            await self._news()
        return self._pending.pop(self._ended.popleft())

    async def _news(self) -> None:
        """Acquire the latch without blocking the event loop."""
        assert self._dispatcher is not None
        loop = asyncio.get_running_loop()
        self._dispatcher.check_loop(loop)
        news = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(news.set)

        limit = asyncio.timeout(self._left())
        self._on_news = tell
        try:
            async with limit:
                while not self._latch.acquire(blocking=False):
                    news.clear()
                    if self._latch.acquire(blocking=False):
                        return
                    await news.wait()
        except TimeoutError:
            if not limit.expired():
                raise
            if not self._latch.acquire(blocking=False):
                raise self._too_late() from None
        finally:
            self._on_news = None

    def _left(self) -> float | None:
        if self._deadline is None:
            return None
        assert self._dispatcher is not None
        return max(0.0, self._deadline - self._dispatcher.monotonic())

    def _too_late(self) -> CallTimeout:
        error = CallTimeout(_WHAT, self._timeout or 0.0, self.pending)
        self.close()
        return error


def as_completed(streams: Iterable[Stream], timeout: float | None = None) -> Completions:
    """The streams in the order in which they end, for ``for`` or ``async for``; each once, however it ended.

    Args:
        streams: those that have ended already come first.
        timeout: seconds from now for all of them; None waits without limit.

    Raises:
        OptionError: an argument is not allowed.
        CallTimeout: raised by the iteration, if not all have ended in time. ``pending`` are the others; they run on.

    >>> from penstock.testing import SimulatedSystem
    >>> with SimulatedSystem() as system:
    ...     streams = [system.open_stream(name) for name in ("slow", "quick")]
    ...     streams[1].stop()
    ...     next(as_completed(streams)).stream_id
    'quick'
    """
    return Completions(streams, timeout)


def aas_completed(streams: Iterable[Stream], timeout: float | None = None) -> AsyncIterator[Stream]:
    """The same as `as_completed`, for ``async for``; it waits without blocking the event loop."""
    return Completions(streams, timeout)


def gather(streams: Iterable[Stream], timeout: float | None = None) -> list[StreamCompleted | PenstockError]:
    """Wait until all streams have ended; returns what `Stream.result` of each returns or raises, in their order.

    Raises:
        OptionError: an argument is not allowed.
        CallTimeout: not all have ended within ``timeout`` seconds. ``pending`` are the others; they run on.
    """
    given = [_checked(stream) for stream in streams]
    for _ in Completions(given, timeout):
        pass
    return [_outcome(stream) for stream in given]


async def agather(streams: Iterable[Stream], timeout: float | None = None) -> list[StreamCompleted | PenstockError]:
    """The same as `gather`, without blocking the event loop. Cancelling the task cancels no stream."""
    given = [_checked(stream) for stream in streams]
    async for _ in Completions(given, timeout):
        pass
    return [_outcome(stream) for stream in given]


def collect(stream: Stream, timeout: float | None = None) -> str:
    """Wait for the end of a stream, and return its text.

    Raises:
        PenstockError: the stream failed or was cancelled, as for `Stream.result`.
        CallTimeout: it has not ended within ``timeout`` seconds. It runs on.
    """
    return _checked(stream).result(timeout).text


async def acollect(stream: Stream, timeout: float | None = None) -> str:
    """The same as `collect`, without blocking the event loop."""
    return (await _checked(stream).aresult(timeout)).text


def _checked(stream: object) -> Stream:
    if not isinstance(stream, Stream):
        raise OptionError("streams", type(stream), "streams")
    return stream


def _outcome(stream: Stream) -> StreamCompleted | PenstockError:
    terminal = stream._record.log.terminal
    assert terminal is not None
    try:
        return completion(terminal)
    except PenstockError as error:
        return error
