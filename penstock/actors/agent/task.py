"""Foreign code that may block, run in a process of its own: a tool, or the question whether one may run.

A thread cannot be stopped. So a task that is killed is dead for everybody at once and its result counts for nothing,
its code is told to stop (``Job.cancel``), and until it has, its thread counts as taken: see `ThreadQuota`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgspec

from penstock.actors.runtime.dispatcher import blocking
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.signals import Ephemeral

__all__ = ["Job", "Task", "TaskDone", "ThreadQuota"]

_GO: Final = "go"
_LATER: Final = "later"  # a result that was promised is there


class ThreadQuota:
    """How many threads all tasks of a system may hold together, so that enough are left for other work."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._lock = threading.Lock()
        self._waiting: dict[object, Callable[[], None]] = {}

    @property
    def waiting(self) -> int:
        """How many owners wait for a thread."""
        return len(self._waiting)

    def acquire(self, owner: object, on_free: Callable[[], None]) -> bool:
        """Take a thread; returns whether there was one.

        If not, ``on_free`` is called when it is worth trying again. It may be called in any thread and must only send
        a message.
        """
        with self._lock:
            if self.taken < self.limit:
                self.taken += 1
                return True
            self._waiting[owner] = on_free
            return False

    def forget(self, owner: object) -> None:
        """Do not notify ``owner`` any more."""
        with self._lock:
            self._waiting.pop(owner, None)

    def release(self) -> None:
        """Give a thread back."""
        with self._lock:
            self.taken -= 1
            waiting, self._waiting = self._waiting, {}
        for on_free in waiting.values():  # all of them, since the first may not need the thread any more
            on_free()


class Job:
    """What a task is to do. It outlives the task; whoever ``owner`` is hears how it ended, by `TaskDone`.

    Args:
        owner: whom to tell.
        label: what the task is called.
        work: the code; may block. If it returns a `Reply`, what comes of that is the result, and no thread waits.
        cancel: told when nobody waits for it any more.
        quota: of the thread that has been acquired for it.
    """

    def __init__(
        self, owner: ProcessRef, label: str, work: Callable[[], Any], cancel: Callable[[], None], quota: ThreadQuota
    ) -> None:
        self.owner = owner
        self.label = label
        self.work = work
        self.task: ProcessRef | None = None
        self.is_cancelled = False
        self._cancel = cancel
        self._quota = quota
        self._lock = threading.Lock()
        self._has_begun = False
        self._has_thread = True

    def __repr__(self) -> str:
        return f"Job({self.label})"

    def begin(self) -> bool:
        """Whether the code is to be run."""
        with self._lock:
            self._has_begun = not self.is_cancelled
            return self._has_begun

    def wait(self) -> None:
        """The code has returned and holds no thread, but its result is still to come."""
        with self._lock:
            self._has_begun = False
            is_cancelled = self.is_cancelled
        if is_cancelled:
            self.end()

    def end(self) -> None:
        """The code has returned, or will not be run."""
        with self._lock:
            had_thread, self._has_thread = self._has_thread, False
        if had_thread:
            self._quota.release()

    def cancel(self) -> None:
        """Nobody waits for it any more. Any thread; harmless if it is done."""
        with self._lock:
            self.is_cancelled = True
            runs, is_over = self._has_begun, not self._has_thread
        if is_over:  # whoever has returned must not be told to stop
            return
        if not runs:
            self.end()
        self._cancel()


class TaskDone(Ephemeral, msgspec.Struct, frozen=True):
    """The job's code has returned ``value``, or raised ``error``; or the task could not be started."""

    job: Job
    value: Any = None
    error: BaseException | None = None


class Task(Process):
    """Runs one job and ends. Its owner gets `TaskDone`, and `Down` in any case."""

    in_pykka_registry = False

    def __init__(self, job: Job) -> None:
        self._job = job  # first: its ref takes its label
        super().__init__()
        self._later: Reply

    @property
    def label(self) -> str:
        """Says what it runs."""
        return self._job.label

    def on_start(self) -> None:
        job = self._job
        job.task = self.ref  # first: whoever cancels it from now on ends us
        if job.is_cancelled or not self.runtime.is_alive(job.owner):
            job.cancel()
            self.exit()
        self.runtime.monitor(job.owner, self.ref)
        self.actor_inbox.put(_GO)

    def on_receive(self, message: Any) -> None:
        job = self._job
        if message == _LATER:
            self._finish(self._outcome(lambda: self._later.get(timeout=0)))
        if message != _GO or not job.begin():
            self.exit()
        with blocking():
            done = self._outcome(job.work)
        if isinstance(done.value, Reply):
            self._later = done.value
            job.wait()
            inbox = self.actor_inbox
            self._later.when_done(lambda: inbox.put(_LATER))
            return
        self._finish(done)

    def _outcome(self, work: Callable[[], Any]) -> TaskDone:
        try:
            return TaskDone(self._job, work())
        except BaseException as error:  # whatever foreign code raises, a SystemExit too, is its result
            return TaskDone(self._job, None, error)

    def _finish(self, done: TaskDone) -> NoReturn:
        self._job.end()
        if self.is_alive:
            self._job.owner.tell(done)
        self.exit()

    def dispose(self, reason: object) -> None:
        """Called once by the runtime, when it is dead: tell the code, which may still run. Any thread."""
        super().dispose(reason)
        self._job.cancel()
