"""What a derived stream has others do for it: functions that block, and coroutines. One at a time."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from penstock.actors.runtime.dispatcher import blocking, clear_frames_later
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.quota import ThreadQuota
from penstock.actors.runtime.signals import SHUTDOWN, Ephemeral
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
        self._worker: ProcessRef | None = None  # runs the functions; made for the first one
        self._due: list[ProcessRef] = []  # the worker that owes an answer; the one that removes it answers
        self.owner: ProcessRef

    def run(self, function: Callable[[], Any], context: contextvars.Context) -> None:
        """Call a function that may block, on a thread of the system's bounded pool, in a copy of the context."""
        home, runtime = self._record.home, self._record.runtime
        if home is None or self._is_closed:
            self.owner.tell(Answered(error=SystemStopped()))
            return
        within = context.copy()
        worker = self._worker
        if worker is None or not runtime.is_alive(worker):
            self._due = []  # one that was killed may still run, and has its own
            worker = runtime.spawn(Worker, self.owner, home.source_quota, self._due)
            with self._lock:
                self._worker = worker
                is_closed = self._is_closed
            if is_closed:
                runtime.exit(worker, SHUTDOWN)
        self._due.append(worker)
        worker.tell(_Job(partial(within.run, function)))
        if not runtime.is_alive(worker):  # it was killed, perhaps before it owed the answer
            answer_once(self._due, self.owner, Answered(error=ProcessDead(f"errands/{self._record.stream_id}")))

    def start(self, function: Callable[[], Any], context: contextvars.Context) -> None:
        """Call a function as `run` does; nothing comes of its result. Also after `close`."""
        home, runtime = self._record.home, self._record.runtime
        within = context.copy()
        if home is not None:
            with contextlib.suppress(SystemStopped):
                runtime.spawn(Errand, lambda: within.run(function), home.source_quota)

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
            task, worker = self._task, self._worker
        if worker is not None:
            self._record.runtime.exit(worker, SHUTDOWN)  # after what it is doing
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
    """Calls one function once the quota has a thread for it, and ends."""

    in_pykka_registry = False

    def __init__(self, function: Callable[[], Any], quota: ThreadQuota) -> None:
        super().__init__()
        self._function = function
        self._quota = quota

    def on_start(self) -> None:
        self.ref.tell(None)

    def on_receive(self, message: Any) -> None:
        tell = self.ref.tell
        if not self._quota.acquire(self, lambda: tell(None)):
            return
        with contextlib.suppress(BaseException):  # nothing comes of its result
            call(self._function, self._quota)
        self.exit()

    def dispose(self, reason: object) -> None:
        """Leave the queue for a thread. Any thread."""
        super().dispose(reason)
        self._quota.forget(self)


class _Job(Ephemeral, msgspec.Struct, frozen=True):
    """Call this function."""

    function: Callable[[], Any]


class Worker(Process):
    """Calls one function after the other for its owner, each once the quota has a thread for it.

    Args:
        owner: gets `Answered` for each.
        quota: of threads; one is taken while a function runs.
        due: has an entry while an answer is due. The one that removes it answers, also if this process was killed.
    """

    in_pykka_registry = False

    def __init__(self, owner: ProcessRef, quota: ThreadQuota, due: list[ProcessRef]) -> None:
        super().__init__()
        self._owner = owner
        self._quota = quota
        self._due = due
        self._function: Callable[[], Any] | None = None

    def on_receive(self, message: Any) -> None:
        if isinstance(message, _Job):
            self._function = message.function
        elif message is not None:
            super().on_receive(message)
            return
        tell = self.ref.tell
        if not self.runtime.is_alive(self._owner):
            self.exit()
        if self._function is None or not self._quota.acquire(self, lambda: tell(None)):
            return
        function, self._function = self._function, None
        try:
            answer = Answered(call(function, self._quota))
        except BaseException as error:  # whatever foreign code raises is its result
            clear_frames_later(error)
            answer = Answered(error=error)
        answer_once(self._due, self._owner, answer)

    def dispose(self, reason: object) -> None:
        """Leave the queue for a thread; the owner of one that was killed must not wait for ever. Any thread."""
        super().dispose(reason)
        self._quota.forget(self)
        answer_once(self._due, self._owner, Answered(error=ProcessDead(self.label)))


def call(function: Callable[[], Any], quota: ThreadQuota) -> Any:
    """Call a function that may block, with a thread of the quota, which is given back."""
    try:
        with blocking():
            return function()
    finally:
        quota.release()


def answer_once(due: list[ProcessRef], owner: ProcessRef, answer: Answered) -> None:
    """Answer, unless that has been done."""
    try:
        due.pop()
    except IndexError:
        return
    owner.tell(answer)
