"""`System.stream_from`: a stream that is fed from an iterable, a generator, a file, a response, a program."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from penstock.actors.runtime.loop_thread import LoopThread
from penstock.config.options import OnOrphan, RequestOptions, StreamOptions
from penstock.config.units import Unit, check_unit
from penstock.errors import OptionError, PenstockError, ProviderError, ProviderTimeout, SourceError, SystemStopped
from penstock.events import StreamCancelled, StreamCompleted, StreamFailed
from penstock.ports import Pause, PushedSource, Reader, Source
from penstock.stream import Stream
from penstock.system import System
from penstock.toolbox.items import Items
from penstock.toolbox.pump import derive
from penstock.toolbox.stage import AtOnce, Output, Run, Stage, Start, Until, Wait, failed

__all__ = ["stream_from"]

_AHEAD: Final = 8  # items of a source that are read before the stream has room for them
_PATIENCE: Final = 2.0  # seconds for an async source to close
_NEVER: Final = float("inf")
_TERMINAL: Final = (StreamCompleted, StreamFailed, StreamCancelled)
_END: Final[Any] = object()


def stream_from(
    system: System,
    source: object,
    *,
    stream_id: str | None = None,
    options: StreamOptions | None = None,
    metadata: Mapping[str, Any] | None = None,
    on_orphan: OnOrphan = "cancel",
    by: Unit | None = None,
    flush_interval: float = 0.1,
) -> Stream:
    """See `System.stream_from`."""
    if by is not None:
        check_unit("by", by)
    if isinstance(source, Stream):
        return derive(
            Stage(), [source], system=system, stream_id=stream_id, options=options, metadata=metadata,
            on_orphan=on_orphan,
        )  # fmt: skip
    found = _source_of(source)
    loop = asyncio._get_running_loop()
    own = system._services.loop_thread
    tokenizer = None if options is None else options.tokenizer
    items = Items(by, flush_interval, tokenizer)
    stage = _Feeding(found, items, loop, own, system._services.reader)
    return derive(
        stage, [], system=system, stream_id=stream_id, options=options, metadata=metadata, on_orphan=on_orphan,
        borders=False,
    )  # fmt: skip


def _source_of(source: Any) -> Source | PushedSource:
    if isinstance(source, (Source, PushedSource)):
        return source
    if isinstance(source, (str, bytes)):
        source = [source]
    if isinstance(source, (Iterable, AsyncIterable)) or (callable(source) and not isinstance(source, type)):
        return _Plain(source)
    raise OptionError(
        "source",
        type(source),
        "an iterable or async iterable, a generator function, or one of penstock.sources",
    )


class _Plain:
    """A source of the user's: an iterable, an async one, or a function that returns one."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.kind = "iterable"
        self.on_own_loop = False
        self.blocks = not isinstance(source, (list, tuple))

    def open(self) -> Any:
        source = self._source
        if isinstance(source, (Iterable, AsyncIterable)):
            return source
        found = source()
        if isinstance(found, (Iterable, AsyncIterable)):
            return found
        raise OptionError("source", type(found), "a function that returns an iterable or async iterable")

    def cancel(self) -> None:
        """Nothing is known that would end a read."""

    def counters(self) -> Mapping[str, Any]:
        return {}


class _Feeding(Stage):
    """Has no parents: everything comes from the source."""

    def __init__(
        self,
        source: Source | PushedSource,
        items: Items,
        loop: asyncio.AbstractEventLoop | None,
        own: LoopThread,
        reader: Reader,
    ) -> None:
        self.kind = source.kind  # type: ignore[misc] # of each instance here
        self._source = source
        self._items = items
        self._loop = loop
        self._own = own
        self._reader = reader
        self._reading: _Reading | None = None
        self._limits: RequestOptions | None = None
        self._clock = "first_token"  # the limit that is running, and its length
        self._limit = 0.0
        self._idle_at = _NEVER

    def begin(self) -> Generator[Output, Any, None]:
        """See `Stage.begin`."""
        try:
            yield from self._all()
        except GeneratorExit:
            raise
        except Exception as error:
            yield from self._items.flush()
            yield failed(self._error_of(error), like=self._items.end())

    def _error_of(self, error: Exception) -> PenstockError:
        """The error of the stream: one of our own readers says by itself what failed."""
        if isinstance(error, ProviderError) and not isinstance(self._source, _Plain):
            return error
        return SourceError(self.stream_id, error.__cause__ if isinstance(error, _Raised) else error)

    def _all(self) -> Generator[Output, Any, None]:
        reading = yield from self._open()
        items = self._items
        self._set_deadline("first_token")
        while True:
            found = yield from reading.read()
            for item in found:
                if item is _END:
                    yield from items.finish()
                    yield items.end()
                    return
                if isinstance(item, _TERMINAL):
                    yield from items.flush()
                    yield item
                    return
                if isinstance(item, Pause):
                    yield from items.tokens()
                    yield Wait(self.now + item.seconds)
                else:
                    yield from items.take(item)
            yield from items.tokens()
            self._set_deadline("idle")

    def _open(self) -> Generator[Output, Any, _Reading]:
        source = self._source
        if isinstance(source, PushedSource):
            pushed = self._reading = _Pushed()
            limits = self._limits = source.limits
            if limits is not None and limits.total_timeout is not None:
                self.expires = self.now + limits.total_timeout
            source.start(self._reader, pushed.push, pushed.end)
            return pushed
        opened = (yield Run(source.open)) if source.blocks else source.open()
        if isinstance(opened, AsyncIterable):
            reading = self._reading = _Async(opened, None if source.on_own_loop else self._loop, self._own)
            reading.start()
            return reading
        self._reading = blocking = _Blocking(opened) if source.blocks else _Quick(opened)
        return blocking

    def expired(self) -> Output | None:
        """The time for the whole source is over."""
        assert self._limits is not None
        return AtOnce(failed(ProviderTimeout("total", self._limits.total_timeout or 0.0)))

    def overdue(self) -> Iterator[Output]:
        """Give what is held, as the next piece has not come soon enough, or fail if nothing comes at all."""
        if self._items.open and self.now < self._idle_at:
            yield from self._items.flush()
            self.deadline = self._idle_at if self._idle_at < _NEVER else None
            return
        self.deadline = None
        if self._idle_at <= self.now:
            yield from self._items.flush()
            yield failed(ProviderTimeout(self._clock, self._limit), like=self._items.end())

    def _set_deadline(self, clock: str) -> None:
        """Set the time until which the next item has to come, and that until which a unit may be held."""
        limits, held = self._limits, self._items.open
        self._clock = clock
        if limits is not None:
            self._limit = limits.first_token_timeout if clock == "first_token" else limits.idle_timeout
            self._idle_at = self.now + self._limit
        flush_at = self.now + self._items.flush_interval if held else _NEVER
        self.deadline = min(flush_at, self._idle_at)
        if self.deadline == _NEVER:
            self.deadline = None

    def counters(self) -> Mapping[str, Any]:
        """See `Stage.counters`."""
        return {"replaced": self._items.replaced, **self._source.counters()}

    def close(self) -> Callable[[], object] | None:
        """See `Stage.close`."""
        self._source.cancel()
        reading = self._reading
        if isinstance(reading, _Blocking):
            return reading.close()
        if reading is not None:
            reading.close()
        return None

    def is_closed(self) -> bool:
        """See `Stage.is_closed`."""
        return self._reading is None or self._reading.is_closed


class _Quick:
    """Reads an iterator that never waits, in place."""

    is_closed = True

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterator = iter(iterable)

    def read(self) -> Generator[Output, Any, list[Any]]:
        """The next items, at least one. The last one is `_END`."""
        found: list[Any] = []
        for item in self._iterator:
            found.append(item)
            if len(found) == _AHEAD or isinstance(item, Pause):
                return _given(found)
        return _given([*found, _END])

    def close(self) -> None:
        """There is nothing to close."""


class _Queue:
    """Items that have been read, and the stream that waits for them. The base of what reads elsewhere."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._lock = threading.Lock()  # guards everything else
        self._on_news: Callable[[], None] | None = None
        self._is_over = False  # nothing more is wanted
        self._error: BaseException | None = None
        self.is_closed = False

    def _put(self, item: Any) -> None:
        self._items.append(item)
        with self._lock:
            on_news, self._on_news = self._on_news, None
        if on_news is not None:
            on_news()

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._put(_END)

    def _listen(self, on_news: Callable[[], None]) -> None:
        """Have ``on_news`` called once, when there are items."""
        with self._lock:
            if not self._items:
                self._on_news = on_news
                return
        on_news()

    def read(self) -> Generator[Output, Any, list[Any]]:
        """The next items, at least one. The last one is `_END`."""
        while not self._items:
            yield from self._ask()
            yield Until(self._listen)
        found = [self._items.popleft() for _ in range(len(self._items))]
        yield from self._ask()
        if found[-1] is _END and self._error is not None:
            if len(found) > 1:  # first what came before it
                self._items.append(found.pop())
            elif (error := self._failure()) is not None:
                try:
                    raise error
                finally:
                    del error  # its traceback has this frame
        return found

    def _failure(self) -> Exception | None:
        """What the source has raised. It is kept no longer, as frames of its traceback may have this object."""
        error, self._error = self._error, None
        return error if error is None or isinstance(error, Exception) else _Raised(error)

    def _ask(self) -> Iterator[Output]:
        """Have more read, as there is room."""
        return iter(())


class _Blocking(_Queue):
    """Reads an iterator on threads of the bounded pool, one at a time. No thread is held while there is no room."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        super().__init__()
        self._iterator = iter(iterable)
        self._is_reading = False

    def _ask(self) -> Iterator[Output]:
        with self._lock:
            if self._is_reading or self.is_closed:
                return
            self._is_reading = True
        yield Start(self._read_on)

    def _read_on(self) -> None:
        """Read until there is no room."""
        try:
            while not self._is_over and len(self._items) < _AHEAD:
                self._put(next(self._iterator, _END))
                if self._items and self._items[-1] is _END:
                    self.is_closed = True
                    break
        except BaseException as error:  # a SystemExit ends the source, not the thread
            self.is_closed = True
            self._fail(error)
        finally:
            with self._lock:
                self._is_reading = False
                is_over = self._is_over and not self.is_closed
            if is_over:
                self._close_iterator()

    def close(self) -> Callable[[], object] | None:
        """Read no more; returns what closes the iterator, unless the thread that reads will."""
        with self._lock:
            was_over, self._is_over = self._is_over, True
            if self._is_reading or was_over or self.is_closed:
                return None
        return self._close_iterator

    def _close_iterator(self) -> None:
        close = getattr(self._iterator, "close", None)
        try:
            if close is not None:
                close()
        finally:
            self.is_closed = True


class _Raised(Exception):
    """The source has raised something that is no `Exception`, such as a `SystemExit`."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.__cause__ = error


def _given(found: list[Any]) -> Generator[Output, Any, list[Any]]:
    return found
    yield


class _Pushed(_Queue):
    """Takes what a reader's thread pushes; that thread waits while some items have not been taken."""

    def __init__(self) -> None:
        super().__init__()
        self.is_closed = True  # the reader closes its connection by itself
        self._has_room = threading.Event()

    def push(self, item: Any) -> bool:
        """Take an item, and wait while there is no room; returns False once nothing more is wanted."""
        self._put(item)
        while len(self._items) >= _AHEAD and not self._is_over:
            self._has_room.clear()
            if len(self._items) >= _AHEAD and not self._is_over:
                self._has_room.wait()
        return not self._is_over

    def end(self, error: BaseException | None) -> None:
        """Note that nothing more comes."""
        if error is None:
            self._put(_END)
        else:
            self._fail(error)

    def _ask(self) -> Iterator[Output]:
        self._has_room.set()
        return iter(())

    def close(self) -> None:
        """Take no more."""
        self._is_over = True
        self._has_room.set()


class _Async(_Queue):
    """Reads an async iterator in one task, from its beginning to its end, on the loop it was made on or the system's.

    The task waits while some items have not been taken.
    """

    def __init__(self, iterable: AsyncIterable[Any], loop: asyncio.AbstractEventLoop | None, own: LoopThread) -> None:
        super().__init__()
        self._iterable = iterable
        self._own = own
        self._loop = loop
        self._room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task. It gets a copy of the present context."""
        loop = self._loop if self._loop is not None and self._loop.is_running() else None
        try:
            loop = loop or self._own.start()
            self._loop = loop
            loop.call_soon_threadsafe(self._begin, context=contextvars.copy_context())
        except RuntimeError:
            self.is_closed = True
            raise SystemStopped() from None

    def _begin(self) -> None:
        assert self._loop is not None
        with self._lock:
            if self._is_over:
                self.is_closed = True
                return
            self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        iterator: AsyncIterator[Any] | None = None
        try:
            iterator = aiter(self._iterable)
            async for item in iterator:
                self._put(item)
                if len(self._items) >= _AHEAD:
                    await self._wait_for_room()
            self._put(_END)
        except asyncio.CancelledError:
            if not self._is_over:  # the loop is ending, or all of its tasks have been cancelled
                self._fail(SystemStopped())
        except BaseException as error:  # a SystemExit ends the source, not the loop
            self._fail(error)
        finally:
            await self._close_iterator(iterator)
            self.is_closed = True

    async def _close_iterator(self, iterator: AsyncIterator[Any] | None) -> None:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_PATIENCE):
                    await close()

    async def _wait_for_room(self) -> None:
        assert self._loop is not None
        with self._lock:
            self._room = room = self._loop.create_future()
        if len(self._items) >= _AHEAD:
            await room

    def _ask(self) -> Iterator[Output]:
        with self._lock:
            room, self._room = self._room, None
        if room is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                room.get_loop().call_soon_threadsafe(_set, room)
        return iter(())

    def close(self) -> None:
        """Cancel the task, which closes the iterator."""
        with self._lock:
            self._is_over = True
            task = self._task
        if task is not None and not task.done():
            try:
                task.get_loop().call_soon_threadsafe(task.cancel)
            except RuntimeError:
                self.is_closed = True  # with the loop
        elif task is None and (self._loop is None or self._loop.is_closed()):
            self.is_closed = True


_Reading: TypeAlias = _Quick | _Blocking | _Pushed | _Async


def _set(room: asyncio.Future[None]) -> None:
    if not room.done():
        room.set_result(None)
