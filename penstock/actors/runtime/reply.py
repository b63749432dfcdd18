"""The answer to a call: a Pykka future that knows how its dispatcher waits."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pykka

from penstock.errors import CallTimeout

if TYPE_CHECKING:
    from penstock.actors.runtime.dispatcher import Dispatcher

__all__ = ["Reply", "as_completed"]

_PENDING = object()


class Reply(pykka.Future[Any]):
    """A `pykka.Future`, with three differences.

    `get` inside a process lends the worker's place, so that waiting cannot starve the pool; a time-out raises
    `CallTimeout` (which is a `pykka.Timeout`); and ``await`` does not block the event loop. Setting it twice raises
    ``queue.Full``, as Pykka's does. After a time-out the reply may still come; nobody but a later `get` sees it.
    """

    def __init__(self, dispatcher: Dispatcher | None = None, what: str = "the call") -> None:
        super().__init__()
        self._dispatcher = dispatcher
        self._what = what
        self._value: Any = _PENDING
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], None]] | None = []

    @property
    def is_done(self) -> bool:
        """Whether `get` would return, or raise, at once."""
        return self._callbacks is None

    def get(self, *, timeout: float | None = None) -> Any:
        """Wait for the answer and return it, or raise what it is.

        Raises:
            CallTimeout: nothing came within ``timeout`` seconds (None waits for ever; 0 only looks).
        """
        if self._get_hook is not None:
            return super().get(timeout=timeout)
        if self._callbacks is not None and not self._wait(timeout):
            raise CallTimeout(self._what, timeout or 0.0)
        if self._error is not None:
            raise self._error
        return self._value

    def set(self, value: Any = None) -> None:
        """Give the answer.

        Raises:
            queue.Full: there is one already.
        """
        self._finish(value, None)

    def set_exception(self, exc_info: Any = None) -> None:
        """Let the caller get an exception: the given ``exc_info`` triple, or what is being handled right now."""
        error = (exc_info or sys.exc_info())[1]
        assert error is not None, "set_exception needs an exception"
        self._finish(None, error)

    def fail(self, error: BaseException) -> None:
        """Let the caller get ``error``."""
        self._finish(None, error)

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call ``callback()`` as soon as there is an answer: in the thread that gives it, or here if it is there."""
        callbacks = self._callbacks
        if callbacks is not None:
            callbacks.append(callback)
            # `_finish` takes the list away first and calls what is in it then: whoever removes the entry calls it.
            if self._callbacks is not None:
                return
            try:
                callbacks.remove(callback)
            except ValueError:
                return
        callback()

    def _finish(self, value: Any, error: BaseException | None) -> None:
        callbacks = self._callbacks
        if callbacks is None or self._get_hook is not None:
            raise queue.Full
        self._value = value
        self._error = error
        self._callbacks = None
        while callbacks:
            try:
                callback = callbacks.pop(0)
            except IndexError:
                break
            callback()

    def _wait(self, timeout: float | None) -> bool:
        if timeout is not None and timeout <= 0:
            return self.is_done
        latch = threading.Lock()
        latch.acquire()
        self.when_done(latch.release)
        if self._dispatcher is None:
            return latch.acquire(timeout=-1 if timeout is None else timeout)
        return self._dispatcher.wait(latch, timeout)

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait in an event loop without blocking it."""
        if self._get_hook is None and not self.is_done:
            loop = asyncio.get_running_loop()
            woken = loop.create_future()

            def wake() -> None:
                loop.call_soon_threadsafe(lambda: None if woken.done() else woken.set_result(None))

            self.when_done(wake)
            yield from woken
        return self.get(timeout=None if self._get_hook else 0)

    __iter__ = __await__


def as_completed(replies: Iterable[Reply], timeout: float | None = None) -> Iterator[Reply]:
    """Yield ``replies`` in the order in which they are answered.

    Raises:
        CallTimeout: the next one did not come within what is left of ``timeout`` seconds.
    """
    waiting = list(replies)
    done: queue.SimpleQueue[Reply] = queue.SimpleQueue()
    answered = threading.Semaphore(0)
    for reply in waiting:

        def collect(reply: Reply = reply) -> None:
            done.put(reply)
            answered.release()

        reply.when_done(collect)
    deadline = None if timeout is None else time.monotonic() + timeout
    for _ in waiting:
        if not answered.acquire(blocking=False):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            dispatcher = waiting[0]._dispatcher
            if not (dispatcher.wait(answered, left) if dispatcher else answered.acquire(timeout=left)):
                raise CallTimeout("the next of several calls", timeout or 0.0)
        yield done.get_nowait()
