"""A small pool of worker threads that runs many actors.

The run queue holds the mailboxes whose owner has something to do. A worker takes one, lets its owner handle at most
``throughput`` messages, and takes the next. An actor that is about to block announces it with `blocking`, and a spare
thread takes the worker's place; the monitor thread detects actors that block without announcing it. So the pool does
not starve, and does not deadlock as long as it may add spares.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Protocol

import msgspec

from penstock.actors.runtime.frames import clear_own_frames
from penstock.actors.runtime.mailbox import Mailbox, Owner
from penstock.config.checks import check_number
from penstock.config.logs import get_logger
from penstock.errors import SystemForked

__all__ = [
    "Dispatcher",
    "DispatcherStatistics",
    "Latch",
    "ThreadedDispatcher",
    "blocking",
    "check_process",
    "is_forked",
    "on_worker",
]

_STOP: Final[Any] = object()
_TICK: Final = 0.005  # seconds between two checks of the monitor while actors wait for a worker
_CALM: Final = 0.025  # the same while none waits
_QUIET: Final = 0.1  # seconds without work after which the monitor sleeps: less than the second between two sweeps
_PARKED_FOR: Final = 5.0  # seconds after which a spare thread that is not needed ends
_here = threading.local()  # .worker: the worker of the current thread


class Latch(Protocol):
    """What a thread can wait for: a lock or a semaphore that another thread releases."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...


class DispatcherStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of a dispatcher."""

    workers: int
    """Threads that run actors or are ready to."""
    busy: int
    """Threads that run an actor now, blocked ones included."""
    blocked: int
    """Threads whose actor has announced that it blocks; a spare thread has their place."""
    queued: int
    """Actors that are ready and wait for a worker."""
    messages: int
    """Messages handled since the start."""
    messages_per_second: float
    """Rate over about the last second."""
    spares_started: int
    """How often a thread was added."""
    spares_exhausted: int
    """How often a thread was needed and could not be added: ``max_spares`` was reached, or the system had no more."""
    replaced: int
    """Workers that ended with a `BaseException` and were replaced."""
    held: int
    """How often an actor held its worker for longer than ``hold_warning``."""
    leaked: int
    """Threads that are stuck in the code of a dead actor, or did not end when the dispatcher was closed."""


class Dispatcher(Protocol):
    """Runs actors, and waits in a way that lets other actors run meanwhile."""

    enqueue: Callable[[Mailbox], None]
    """Put a mailbox on the run queue. The caller holds the mailbox."""

    monotonic: Callable[[], float]
    """The clock for the time-outs of `wait`."""

    def wait(self, latch: Latch, timeout: float | None) -> bool:
        """Wait for at most ``timeout`` seconds (None: for ever) and return whether ``latch`` was acquired."""

    def pause(self, seconds: float) -> None:
        """Wait for ``seconds``."""

    def blocks(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the thread of an event loop waits here, so that the loop runs nothing meanwhile."""

    def check_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raise if a task of this loop would wait for the actors in vain."""

    def statistics(self) -> DispatcherStatistics:
        """Return a snapshot of the counters."""

    def close(self, timeout: float) -> int:
        """End all threads; return how many did not end within ``timeout`` seconds."""


class _Worker:
    """One thread. Only that thread writes the fields, except `lent`, which the pool's lock guards."""

    __slots__ = ("blocked", "lent", "messages", "owner", "park", "raised", "slices", "thread", "warned_at")

    def __init__(self) -> None:
        self.owner: Owner | None = None  # runs now
        self.slices = 0
        self.messages = 0
        self.blocked = 0  # depth of announced blocking
        self.raised: list[BaseException] = []  # in this turn, and kept; see `clear_frames_later`
        self.lent = False  # a spare thread has its place
        self.warned_at = -1  # slice for which the hold warning was given
        self.park = threading.Lock()
        self.park.acquire()
        self.thread: threading.Thread | None = None


class ThreadedDispatcher:
    """Dispatcher with worker threads, spare threads and a monitor thread.

    Args:
        workers: threads that run actors at the same time, 1 … 64.
        throughput: messages that an actor handles before the next actor's turn, 1 … 1,000,000.
        max_spares: threads that may be added while actors block, 0 … 10,000.
        hold_warning: seconds after which an actor that holds its worker is named in the log (once), 0.01 … 3600.
        name: prefix of the threads' names.
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        throughput: int = 64,
        max_spares: int = 256,
        hold_warning: float = 1.0,
        name: str = "penstock",
    ) -> None:
        check_number("workers", workers, 1, 64, whole=True)
        check_number("throughput", throughput, 1, 1_000_000, whole=True)
        check_number("max_spares", max_spares, 0, 10_000, whole=True)
        check_number("hold_warning", hold_warning, 0.01, 3600)
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.enqueue: Callable[[Mailbox], None] = self._queue.put
        self.monotonic: Callable[[], float] = time.monotonic
        self.pid = os.getpid()
        self._target = workers
        self._throughput = throughput
        self._max_spares = max_spares
        self._hold_warning = hold_warning
        self._name = name
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._all: set[_Worker] = set()
        self._parked: list[_Worker] = []
        self._running = 0  # threads that take from the queue: not lent, not parked
        self._retired_messages = 0
        self._spares_started = 0
        self._spares_exhausted = 0
        self._replaced = 0
        self._held = 0
        self._blocked_loops: list[asyncio.AbstractEventLoop] = []
        self._leaked = 0
        self._closed = False
        self._sample = (time.monotonic(), 0)
        self._rate = 0.0
        self._monitor_sleeps = False
        self._wake_monitor = threading.Event()
        self._ending = threading.Event()
        self._monitor = threading.Thread(target=self._watch, name=f"{name}-monitor", daemon=True)
        with self._lock:
            for _ in range(workers):
                self._add_thread()
            if not self._all:
                raise RuntimeError("the dispatcher could not start a thread")
        self._monitor.start()

    # --- waiting -----------------------------------------------------------------------------------------------------

    def wait(self, latch: Latch, timeout: float | None) -> bool:
        """Wait for ``latch``. Inside an actor, a spare thread takes the worker's place meanwhile."""
        if latch.acquire(blocking=False):
            return True
        check_process(self)
        loop = asyncio._get_running_loop()
        if loop is not None:
            self._blocked_loops.append(loop)
        try:
            with blocking():
                if timeout is None:
                    return latch.acquire()
                return latch.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        finally:
            if loop is not None:
                self._blocked_loops.remove(loop)

    def blocks(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the thread of an event loop waits in `wait`, so that the loop runs nothing meanwhile."""
        return loop in self._blocked_loops

    def check_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raise `SystemForked` in a fork of the process that the threads run in. Any loop will do."""
        check_process(self)

    def pause(self, seconds: float) -> None:
        """Wait for ``seconds``. Inside an actor, a spare thread takes the worker's place meanwhile."""
        check_process(self)
        with blocking():
            time.sleep(max(seconds, 0.0))

    def lend(self, worker: _Worker) -> None:
        """Let a spare thread take the worker's place."""
        with self._lock:
            worker.blocked += 1
            if not worker.lent:
                self._hand_over(worker)

    def reclaim(self, worker: _Worker) -> None:
        """Take the place back. There is now one thread too many; the next one that notices it parks."""
        with self._lock:
            worker.blocked -= 1
            if worker.lent and not worker.blocked:
                worker.lent = False
                self._running += 1

    def _hand_over(self, worker: _Worker) -> None:
        worker.lent = True
        self._running -= 1
        if self._running >= self._target or self._closed:
            return
        if self._parked:
            self._running += 1
            self._parked.pop().park.release()
        elif len(self._all) < self._target + self._max_spares and self._add_thread():
            self._spares_started += 1
        else:
            self._spares_exhausted += 1

    # --- the workers' threads ----------------------------------------------------------------------------------------

    def _add_thread(self) -> bool:
        worker = _Worker()
        worker.thread = threading.Thread(
            target=self._work, args=(worker,), name=f"{self._name}-worker-{next(self._numbers)}", daemon=True
        )
        try:
            worker.thread.start()
        except RuntimeError as error:  # the system has no more threads: treated like `max_spares`
            get_logger().warning("no_thread_for_worker", error=type(error).__name__)
            return False
        self._all.add(worker)
        self._running += 1
        return True

    def _work(self, worker: _Worker) -> None:
        _here.worker = worker
        _here.dispatcher = self
        try:
            self._take_turns(worker)
        except BaseException as error:  # a worker must not vanish silently, whatever ended it
            get_logger().error("worker_died", error=type(error).__name__)
            with self._lock:
                self._forget(worker)
                if not self._closed:
                    self._replaced += 1
                    self._add_thread()

    def _take_turns(self, worker: _Worker) -> None:
        take = self._queue.get
        throughput = self._throughput
        while True:
            mailbox = take()
            if mailbox is _STOP:
                break
            worker.owner = owner = mailbox.enter()
            if self._monitor_sleeps:  # looked at after `owner` is set, see `_sleep_until_work`
                self._wake_monitor.set()
            worker.messages += owner.run(throughput)
            if worker.raised:
                clear_own_frames(worker.raised)
            worker.owner = owner = mailbox = None  # a thread that waits keeps no dead process alive
            worker.slices += 1
            if (worker.lent or self._running > self._target) and not self._stay(worker):
                return
        with self._lock:
            self._forget(worker)

    def _stay(self, worker: _Worker) -> bool:
        """Park after a turn if there are too many threads; returns False if this thread is to end."""
        with self._lock:
            if worker.lent:  # the monitor had let a spare take its place
                worker.lent = False
                self._running += 1
            if self._running <= self._target or self._closed:
                return True
            self._running -= 1
            self._parked.append(worker)
        if worker.park.acquire(timeout=_PARKED_FOR):
            return True
        with self._lock:
            if worker in self._parked:
                self._parked.remove(worker)
                self._running += 1  # `_forget` subtracts it again
                self._forget(worker)
                return False
        worker.park.acquire()  # it was unparked at this very moment
        return True

    def _forget(self, worker: _Worker) -> None:
        self._retired_messages += worker.messages
        self._all.discard(worker)
        if not worker.lent:
            self._running -= 1

    # --- the monitor -------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        seen: dict[_Worker, tuple[int, float]] = {}
        tick, quiet = _TICK, 0.0
        while not self._ending.wait(tick):
            now = time.monotonic()
            workers = tuple(self._all)
            busy = [worker for worker in workers if worker.owner is not None]
            self._measure(now)
            stuck = []
            seen = {worker: seen[worker] for worker in busy if worker in seen}
            for worker in busy:
                slices, since = seen.get(worker, (-1, now))
                if slices != worker.slices:
                    seen[worker] = (worker.slices, now)
                    continue
                stuck.append(worker)
                if now - since > self._hold_warning and worker.warned_at != slices:
                    worker.warned_at = slices
                    with contextlib.suppress(Exception):  # neither the log nor an actor's __str__ may end the monitor
                        self._warn(worker, now - since)
            if stuck and not self._queue.empty():
                self._compensate(stuck)
            is_calm = self._queue.empty()
            quiet = quiet + tick if is_calm and not busy else 0.0
            tick = _CALM if is_calm else _TICK
            if quiet > _QUIET:
                self._sleep_until_work()
                quiet = 0.0

    def _compensate(self, stuck: list[_Worker]) -> None:
        with self._lock:
            held = [worker for worker in stuck if not worker.lent and worker.owner is not None]
            if held and len(held) >= self._running:  # every running thread is stuck
                self._hand_over(held[0])

    def _sleep_until_work(self) -> None:
        """Sleep until a worker takes a mailbox.

        A worker first sets `owner` and then looks at `_monitor_sleeps`; the monitor first sets `_monitor_sleeps` and
        then looks at every `owner`. So at least one sees the other, and no worker gets stuck unwatched.
        """
        self._wake_monitor.clear()
        self._monitor_sleeps = True
        idle = self._queue.empty() and all(worker.owner is None for worker in tuple(self._all))
        if idle and not self._closed:
            self._wake_monitor.wait()
        self._monitor_sleeps = False

    def _warn(self, worker: _Worker, seconds: float) -> None:
        owner = worker.owner
        if owner is None or worker.blocked:
            return
        self._held += 1
        get_logger().warning("actor_holds_worker", actor=str(owner), seconds=round(seconds, 3), worker=_name_of(worker))

    def _measure(self, now: float) -> None:
        then, count = self._sample
        if now - then >= 1.0:
            messages = self._messages()
            self._rate = max(0, messages - count) / (now - then)
            self._sample = (now, messages)

    # --- counters and end --------------------------------------------------------------------------------------------

    def _messages(self) -> int:
        return self._retired_messages + sum(worker.messages for worker in tuple(self._all))

    def statistics(self) -> DispatcherStatistics:
        """Return a snapshot of the counters; cheap, from any thread."""
        with self._lock:
            workers = tuple(self._all)
            self._measure(time.monotonic())
            zombies = sum(1 for worker in workers if _runs_a_dead_actor(worker))
            return DispatcherStatistics(
                workers=len(workers),
                busy=sum(1 for worker in workers if worker.owner is not None),
                blocked=sum(1 for worker in workers if worker.blocked),
                queued=self._queue.qsize(),
                messages=self._messages(),
                messages_per_second=self._rate,
                spares_started=self._spares_started,
                spares_exhausted=self._spares_exhausted,
                replaced=self._replaced,
                held=self._held,
                leaked=max(self._leaked, zombies),
            )

    def close(self, timeout: float) -> int:
        """End every thread after its current turn.

        Returns how many threads did not end within ``timeout`` seconds: they are stuck in an actor's code, are daemon
        threads, and are counted as leaked. Actors that are still queued do not run any more.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            workers = tuple(self._all)
            parked, self._parked = self._parked, []
        for worker in parked:
            worker.park.release()
        self._drain_queue()
        for _ in workers:
            self._queue.put(_STOP)
        self._ending.set()
        self._wake_monitor.set()
        for thread in (self._monitor, *(worker.thread for worker in workers)):
            if thread is not None and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        leaked = sum(1 for worker in workers if worker.thread is not None and worker.thread.is_alive())
        leaked -= any(worker.thread is threading.current_thread() for worker in workers)
        self._leaked = leaked
        return leaked

    def _drain_queue(self) -> None:
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                return


def is_forked(dispatcher: Dispatcher | None) -> bool:
    """Whether the dispatcher's threads are in the process that this one is a fork of."""
    return getattr(dispatcher, "pid", None) not in (None, os.getpid())


def check_process(dispatcher: Dispatcher | None) -> None:
    """Raise `SystemForked` if the dispatcher's threads are in the process that this one is a fork of."""
    pid = getattr(dispatcher, "pid", None)
    if pid is not None and pid != os.getpid():
        raise SystemForked(pid)


def _forget_worker() -> None:
    """In the child of a fork, the thread that forked is no worker, although it may have been one in the parent."""
    _here.worker = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_worker)


def on_worker() -> bool:
    """Whether the current thread runs actors."""
    return getattr(_here, "worker", None) is not None


def clear_frames_later(error: BaseException) -> None:
    """Call `clear_own_frames` once the process that runs in this thread has returned it. For what others will keep.

    Has no effect in a thread that is not the dispatcher's.
    """
    worker: _Worker | None = getattr(_here, "worker", None)
    if worker is not None:
        worker.raised.append(error)


class blocking:  # noqa: N801 - reads as a statement: `with blocking():`
    """Announce that the block may wait; inside an actor, a spare thread runs the other actors meanwhile.

    Outside of actors it has no effect. Waiting for a reply does this by itself.
    """

    __slots__ = ("_dispatcher", "_worker")

    def __enter__(self) -> None:
        self._worker: _Worker | None = getattr(_here, "worker", None)
        if self._worker is not None:
            self._dispatcher: ThreadedDispatcher = _here.dispatcher
            self._dispatcher.lend(self._worker)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self._dispatcher.reclaim(self._worker)


def _name_of(worker: _Worker) -> str:
    return worker.thread.name if worker.thread is not None else "?"


def _runs_a_dead_actor(worker: _Worker) -> bool:
    return not getattr(worker.owner, "is_alive", True)
