"""What a derived stream has others do for it: functions that block, and coroutines. One at a time."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from penstock.actors.runtime.dispatcher import blocking
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.quota import ThreadQuota
from penstock.actors.runtime.signals import Ephemeral
from penstock.actors.stream.record import StreamRecord
from penstock.config.logs import get_logger
from penstock.errors import ProcessDead, SystemStopped

__all__ = ["Answered", "Requests"]


class Answered(Ephemeral, msgspec.Struct, frozen=True):
    """The function has returned ``value``, or raised ``error``; so for the coroutine."""

    value: Any = None
    error: BaseException | None = None


class Requests:
    """Runs one thing at a time for a process, which gets `Answered`. `close` may be called by any thread.

    Args:
        record: of the stream that it is for.
        loop: where coroutines run; None, or one that does not run or is blocked: the system's own.
    """

    def __init__(self, record: StreamRecord, loop: asyncio.AbstractEventLoop | None) -> None:
        self._record = record
        self._loop = loop
        self._lock = threading.Lock()
        self._is_closed = False
        self._task: asyncio.Future[Any] | None = None
        self._job: ProcessRef | None = None
        self.owner: ProcessRef

    def run(self, function: Callable[[], Any], context: contextvars.Context) -> None:
        """Call a function that may block, on a thread of the system's bounded pool, in a copy of the context."""
        home, runtime = self._record.home, self._record.runtime
        if home is None or self._is_closed:
            self.owner.tell(Answered(error=SystemStopped()))
            return
        within = context.copy()
        self._job = runtime.spawn(Errand, lambda: within.run(function), self.owner, home.source_quota)

    def start(self, function: Callable[[], Any], context: contextvars.Context) -> None:
        """Call a function as `run` does; nothing comes of its result. Also after `close`."""
        home, runtime = self._record.home, self._record.runtime
        within = context.copy()
        if home is not None:
            with contextlib.suppress(SystemStopped):
                runtime.spawn(Errand, lambda: within.run(function), None, home.source_quota)

    def note_leak(self, kind: str) -> None:
        """Count something that was not released in time."""
        get_logger(stream_id=self._record.stream_id).warning("source_leaked", kind=kind)
        if self._record.home is not None:
            self._record.home.note_leak()

    def await_(self, awaitable: Awaitable[Any], context: contextvars.Context) -> None:
        """Await something on the loop, in a copy of the context. `close` cancels it."""
        within = context.copy()
        try:
            loop = self._choose_loop()
            loop.call_soon_threadsafe(self._begin, awaitable, loop, context=within)
        except (RuntimeError, OSError):  # the loop is closed, or the system's cannot be made
            close = getattr(awaitable, "close", None)
            if close is not None:
                close()
            self.owner.tell(Answered(error=SystemStopped()))

    def _choose_loop(self) -> asyncio.AbstractEventLoop:
        loop, record = self._loop, self._record
        if loop is not None and loop.is_running() and not record.runtime.dispatcher.blocks(loop):
            return loop
        if record.loop_thread is None:
            raise RuntimeError("there is no event loop")
        return record.loop_thread.start()

    def _begin(self, awaitable: Awaitable[Any], loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(_awaited(awaitable))
        with self._lock:
            self._task = task
            is_closed = self._is_closed
        owner = self.owner

        def tell(done: asyncio.Task[Answered]) -> None:
            owner.tell(Answered(error=asyncio.CancelledError()) if done.cancelled() else done.result())

        task.add_done_callback(tell)
        if is_closed:
            task.cancel()

    def close(self) -> None:
        """Cancel what is under way; what comes of it does not matter any more. Harmless if it is done."""
        with self._lock:
            self._is_closed = True
            task = self._task
        if task is not None and not task.done():
            try:
                task.get_loop().call_soon_threadsafe(task.cancel)
            except RuntimeError:
                return  # the loop is closed


async def _awaited(awaitable: Awaitable[Any]) -> Answered:
    try:
        return Answered(await awaitable)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # a SystemExit is a result, and does not end the loop
        return Answered(error=error)


class Errand(Process):
    """Calls one function once the quota has a thread for it, and ends. The owner, if any, gets `Answered`."""

    in_pykka_registry = False

    def __init__(self, function: Callable[[], Any], owner: ProcessRef | None, quota: ThreadQuota) -> None:
        super().__init__()
        self._function = function
        self._owner = owner
        self._quota = quota
        self._unanswered = [True]  # the thread that removes the entry answers

    def on_start(self) -> None:
        self.ref.tell(None)

    def on_receive(self, message: Any) -> None:
        tell = self.ref.tell
        if self._owner is not None and not self.runtime.is_alive(self._owner):
            self.exit()
        if not self._quota.acquire(self, lambda: tell(None)):
            return
        try:
            with blocking():
                answer = Answered(self._function())
        except BaseException as error:  # whatever foreign code raises is its result
            answer = Answered(error=error)
        finally:
            self._quota.release()
        self._tell_once(answer)
        self.exit()

    def _tell_once(self, answer: Answered) -> None:
        try:
            self._unanswered.pop()
        except IndexError:
            return  # it was killed meanwhile
        if self._owner is not None:
            self._owner.tell(answer)

    def dispose(self, reason: object) -> None:
        """Leave the queue for a thread; the owner of one that was killed must not wait for ever. Any thread."""
        super().dispose(reason)
        self._quota.forget(self)
        self._tell_once(Answered(error=ProcessDead(self.label)))
