"""Tasks: foreign code that may block, run in a process of its own. That is a tool, or an ``approve`` function.

A thread cannot be stopped. A task that is killed is dead at once and its result is ignored; its code is asked to stop
(``Job.cancel``), and its thread counts as taken until it returns (see `ThreadQuota`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgspec

from penstock.actors.runtime.dispatcher import blocking, clear_frames_later
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.quota import ThreadQuota
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.signals import Ephemeral

__all__ = ["Job", "Task", "TaskDone", "ThreadQuota"]

_GO: Final = "go"
_LATER: Final = "later"  # the `Reply` that the code returned has its result


class Job:
    """The work of a task. It outlives the task. Its ``owner`` gets a `TaskDone` when the work is done.

    Args:
        owner: the process to notify.
        label: the task's name.
        work: the code; may block. If it returns a `Reply`, the reply's result is the task's, and no thread waits for
            it.
        cancel: called when the result is no longer needed, to stop the code.
        quota: the quota of the thread that has been acquired for the job.
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
        """Note that the code starts; returns False if the job is cancelled and it must not."""
        with self._lock:
            self._has_begun = not self.is_cancelled
            return self._has_begun

    def wait(self) -> None:
        """Note that the code has returned a `Reply`, whose result is still to come."""
        with self._lock:
            self._has_begun = False
            is_cancelled = self.is_cancelled
        if is_cancelled:
            self.end()

    def end(self) -> None:
        """Give the thread back, as the code has returned or will not be run."""
        with self._lock:
            had_thread, self._has_thread = self._has_thread, False
        if had_thread:
            self._quota.release()

    def cancel(self) -> None:
        """Cancel the job: its result is no longer needed. Any thread; harmless if it is done."""
        with self._lock:
            self.is_cancelled = True
            runs, is_over = self._has_begun, not self._has_thread
        if is_over:  # code that has returned must not be asked to stop
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
    """Runs one job and ends. The owner gets `TaskDone`, unless the task is killed, and `Down` in any case."""

    in_pykka_registry = False

    def __init__(self, job: Job) -> None:
        self._job = job  # first: `label` is used by the base class
        super().__init__()
        self._later: Reply

    @property
    def label(self) -> str:
        """The label of its job."""
        return self._job.label

    def on_start(self) -> None:
        job = self._job
        job.task = self.ref  # first: from now on a cancelled job ends this task
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
        except BaseException as error:  # whatever foreign code raises, even a SystemExit, is its result
            clear_frames_later(error)
            return TaskDone(self._job, None, error)

    def _finish(self, done: TaskDone) -> NoReturn:
        self._job.end()
        if self.is_alive:
            self._job.owner.tell(done)
        self.exit()

    def dispose(self, reason: object) -> None:
        """Cancel the job, whose code may still run. The runtime calls this once, when the task is dead. Any thread."""
        super().dispose(reason)
        self._job.cancel()
