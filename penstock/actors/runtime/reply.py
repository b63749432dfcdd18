"""The answer to a call: a Pykka future that waits as its dispatcher does."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any

import pykka

from penstock.actors.runtime.dispatcher import Dispatcher, blocking, check_process
from penstock.actors.runtime.loop_ticker import running_loop
from penstock.config.logs import get_logger
from penstock.errors import CallTimeout

__all__ = ["Reply", "answer_with", "answer_with_error", "as_completed", "is_answered"]


def _unanswered() -> None:
    """First entry in a reply's callbacks until it is answered. The thread that removes it gives the answer."""


class Reply(pykka.Future[Any]):
    """A `pykka.Future` with three differences.

    `get` inside a process lends the worker's place, so waiting cannot starve the pool; a time-out raises
    `CallTimeout` (which is a `pykka.Timeout`); and ``await`` does not block the event loop.

    As with Pykka, setting it twice raises ``queue.Full``: of several threads that answer at once exactly one succeeds.
    After a time-out the answer may still arrive; a later `get` returns it.
    """

    def __init__(self, dispatcher: Dispatcher | None = None, what: str = "the call") -> None:
        super().__init__()
        self._dispatcher = dispatcher
        self._what = what
        self._value: Any = None
        self._error: BaseException | None = None
        self._trace: TracebackType | None = None
        self._callbacks: list[Callable[[], None]] | None = [_unanswered]

    @property
    def is_done(self) -> bool:
        """Whether `get` would return, or raise, at once."""
        return self._callbacks is None

    def get(self, *, timeout: float | None = None) -> Any:
        """Wait for the answer; return it, or raise it if it is an exception.

        Raises:
            CallTimeout: no answer within ``timeout`` seconds (None waits for ever, 0 does not wait).
        """
        if self._get_hook is not None:
            return super().get(timeout=timeout)
        if self._callbacks is not None and not self._wait(timeout):
            raise CallTimeout(self._what, timeout or 0.0)
        if self._error is not None:
            raise self._error.with_traceback(self._trace)
        return self._value

    def set(self, value: Any = None) -> None:
        """Answer with ``value``.

        Raises:
            queue.Full: there is an answer already.
        """
        self._finish(value, None)

    def set_exception(self, exc_info: Any = None) -> None:
        """Answer with an exception: that of the ``exc_info`` triple, or the one being handled now.

        Raises:
            queue.Full: there is an answer already.
        """
        error = (exc_info or sys.exc_info())[1]
        assert error is not None, "set_exception needs an exception"
        self._finish(None, error)

    def fail(self, error: BaseException) -> None:
        """Answer with an exception.

        Raises:
            queue.Full: there is an answer already.
        """
        self._finish(None, error)

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call ``callback()`` once there is an answer: in the thread that answers, or at once if there is one.

        An exception of a callback that runs in the answering thread is logged.
        """
        callbacks = self._callbacks
        if callbacks is not None:
            callbacks.append(callback)
            # `_finish` first clears `_callbacks`, then calls the entries: the thread that removes an entry calls it.
            if self._callbacks is not None:
                return
            try:
                callbacks.remove(callback)
            except ValueError:
                return
        callback()

    def forget(self, callback: Callable[[], None]) -> None:
        """Undo `when_done`. Harmless if the callback has been called, or is being called."""
        callbacks = self._callbacks
        if callbacks is not None:
            with contextlib.suppress(ValueError):
                callbacks.remove(callback)

    def set_get_hook(self, func: Callable[[float | None], Any]) -> None:
        """Have ``func(timeout)`` compute the value when `get` is called.

        Raises:
            queue.Full: there is an answer already.
        """
        if self._callbacks is None:
            raise queue.Full
        super().set_get_hook(func)

    def _finish(self, value: Any, error: BaseException | None) -> None:
        callbacks = self._callbacks
        if callbacks is None or self._get_hook is not None:
            raise queue.Full
        try:
            callbacks.remove(_unanswered)  # atomic, and it is the first entry
        except ValueError:
            raise queue.Full from None
        self._value = value
        if error is not None:
            self._error = error
            self._trace = error.__traceback__
        self._callbacks = None
        while callbacks:
            try:
                callback = callbacks.pop(0)
            except IndexError:
                break
            try:
                callback()
            except Exception as mistake:  # must not reach the thread that answers
                get_logger().error("reply_callback_failed", error=type(mistake).__name__)

    def _wait(self, timeout: float | None) -> bool:
        if timeout is not None and timeout <= 0:
            return self.is_done
        check_process(self._dispatcher)
        latch = threading.Lock()
        latch.acquire()
        self.when_done(latch.release)
        if self._dispatcher is not None:
            answered = self._dispatcher.wait(latch, timeout)
        else:
            with blocking():
                answered = latch.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))
        callbacks = self._callbacks
        if not answered and callbacks is not None:  # polling must not pile up callbacks
            with contextlib.suppress(ValueError):
                callbacks.remove(latch.release)
        return answered

    async def aget(self, timeout: float | None = None) -> Any:
        """The same as `get`, without blocking the event loop."""
        running_loop()
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await self
        except TimeoutError:
            if not limit.expired():  # the answer itself is a TimeoutError
                raise
            if not self.is_done:
                raise CallTimeout(self._what, timeout or 0.0) from None
        return self.get(timeout=0)  # it came in the last moment

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait in an event loop without blocking it.

        The value of a future made by `map`, `filter`, `join` or the like is computed by `get`, which runs in a thread.
        """
        if self._get_hook is not None:
            return (yield from asyncio.get_running_loop().run_in_executor(None, self.get))
        if not self.is_done:
            loop = running_loop()
            if self._dispatcher is not None:
                self._dispatcher.check_loop(loop)
            woken = loop.create_future()

            def wake() -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nothing waits any more
                    loop.call_soon_threadsafe(lambda: None if woken.done() else woken.set_result(None))

            self.when_done(wake)
            try:
                yield from woken
            finally:  # cancelled: do not pile up callbacks
                callbacks = self._callbacks
                if callbacks is not None:
                    with contextlib.suppress(ValueError):
                        callbacks.remove(wake)
        return self.get(timeout=0)

    __iter__ = __await__


def as_completed(replies: Iterable[Reply], timeout: float | None = None) -> Iterator[Reply]:
    """Yield ``replies`` in the order in which they are answered.

    Raises:
        CallTimeout: not all of them were answered within ``timeout`` seconds. Those answered in time were yielded.
    """
    waiting = list(replies)
    if not waiting:
        return
    done: queue.SimpleQueue[Reply] = queue.SimpleQueue()
    answered = threading.Semaphore(0)
    for reply in waiting:

        def collect(reply: Reply = reply) -> None:
            done.put(reply)
            answered.release()

        reply.when_done(collect)
    dispatcher = waiting[0]._dispatcher
    now = dispatcher.monotonic if dispatcher is not None else time.monotonic
    deadline = None if timeout is None else now() + timeout
    for _ in waiting:
        if not answered.acquire(blocking=False):
            left = None if deadline is None else max(0.0, deadline - now())
            if not (dispatcher.wait(answered, left) if dispatcher else answered.acquire(timeout=left)):
                raise CallTimeout("the next of several calls", timeout or 0.0)
        yield done.get_nowait()


def is_answered(reply: pykka.Future[Any]) -> bool:
    """Whether there is an answer already, as far as that is known without waiting. Cheaper than a refused answer."""
    return reply.__class__ is Reply and reply._callbacks is None


def answer_with(reply: pykka.Future[Any], value: Any) -> None:
    """Answer with ``value``, unless there is an answer already."""
    with contextlib.suppress(queue.Full):
        reply.set(value)


def answer_with_error(reply: pykka.Future[Any], error: BaseException) -> None:
    """Answer with an exception, unless there is an answer already."""
    with contextlib.suppress(queue.Full):
        reply.set_exception((type(error), error, error.__traceback__))
