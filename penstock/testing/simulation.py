"""Virtual time, and a seeded schedule of actors and threads."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import Any

from penstock.actors.runtime.clock import Timer, Timers
from penstock.actors.runtime.dispatcher import DispatcherStatistics, Latch
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.testing.threads import SimulatedThread

__all__ = ["Deadlock", "SimulatedDispatcher", "Simulation", "VirtualClock"]

_NEVER = float("inf")
_ROUNDS_S = 5.0
"""Seconds in which every periodic check has run several times."""
_PACKAGE = __name__.partition(".")[0]


class Deadlock(AssertionError):
    """A wait that can never end: no actor or thread is ready, and no timer is set but those of periodic checks.

    The message says which call of which line waits, and which streams have not ended.
    """


class VirtualClock:
    """A clock that stands still until `move_to`."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return 1_700_000_000.0 + self._now

    def move_to(self, when: float) -> None:
        """Set the time to ``when``, unless that is in the past."""
        self._now = max(self._now, when)


class _ThreadWait(Timer):
    """A simulated thread that waits for a latch. The timer fires when its time-out has passed."""

    __slots__ = ("_end", "is_acquired", "latch", "thread")

    def __init__(self, thread: SimulatedThread, latch: Latch, end: Callable[[_ThreadWait], None]) -> None:
        super().__init__()
        self.thread = thread
        self.latch = latch
        self.is_acquired = False
        self._end = end

    def fire(self, generation: int) -> None:
        self._end(self)


class SimulatedDispatcher:
    """Runs ready actors in the calling thread, one message at a time, in a seeded order.

    Waiting runs the other actors and the simulated threads. When none is ready, it moves the clock to the next timer.
    """

    def __init__(self, clock: VirtualClock, timers: Timers, seed: int = 0) -> None:
        self._clock = clock
        self._timers = timers
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._ready: list[Mailbox | SimulatedThread] = []
        self._messages = 0
        self._threads: set[SimulatedThread] = set()
        self._thread_waits: list[_ThreadWait] = []
        self.drives_loops = False
        """Whether tasks of other event loops than `SimulatedLoop` would wait in vain."""
        self.idle_until: Callable[[], float] = lambda: -_NEVER
        """Returns the time until which the periodic checks may still have something to do."""
        self.unfinished: Callable[[], Iterable[str]] = lambda: ()
        """Returns descriptions of what has not ended, for `Deadlock`."""
        self._idle_since: float | None = None  # since when only periodic checks have run
        self.before_step: Callable[[], object] | None = None
        """Called before each step that runs an actor or a thread: the place to inject crashes. It is not called for
        steps that it causes itself."""
        self._interfering = False
        self.enqueue: Callable[[Mailbox], None] = self._ready.append
        self.monotonic: Callable[[], float] = clock.monotonic

    def step(self) -> bool:
        """Let one ready actor handle one message, or one ready thread run until it waits; False if none is ready."""
        if self._thread_waits:
            self._end_acquired_waits()
        if self.before_step is not None and not self._interfering and self._ready:
            self._interfering = True
            try:
                self.before_step()
            finally:
                self._interfering = False
        if not self._ready:
            return False
        chosen = self._random.randrange(len(self._ready))
        self._ready[chosen], self._ready[-1] = self._ready[-1], self._ready[chosen]
        ready = self._ready.pop()
        if isinstance(ready, SimulatedThread):
            self._resume(ready)
        else:
            self._messages += ready.enter().run(1)
        return True

    def step_at_random(self) -> None:
        """Take a number of steps that the seed decides, possibly none."""
        while self._random.random() < 0.5 and self.step():
            pass

    def settle(self) -> None:
        """Run until no actor or thread is ready; time stands still."""
        while self.step():
            pass

    def move_on(self, deadline: float, waits: Callable[[], list[str]] | None = None) -> bool:
        """Move the clock to the next timer and fire it, or to ``deadline`` if that comes first; whether one fired.

        Args:
            deadline: virtual time; infinite if the wait has no limit.
            waits: describes what waits, for `Deadlock`; None: the code that called this package.

        Raises:
            Deadlock: there is neither, or for as long as it matters only timers of periodic checks have been set.
        """
        due = self._timers.next_due()
        if due > deadline:
            self._clock.move_to(deadline)
            return False
        if due == _NEVER:
            raise Deadlock(self._explain(waits))
        if deadline == _NEVER and self._has_nothing_to_do(due):
            raise Deadlock(self._explain(waits))
        self._clock.move_to(due)
        self._timers.fire_due(due)
        return True

    def _has_nothing_to_do(self, due: float) -> bool:
        """Whether only periodic checks have been due for so long that they will find nothing more."""
        if not self._timers.has_only_periodic():
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = due
        elif due > max(self._idle_since, self.idle_until()) + _ROUNDS_S:
            self._idle_since = None
            return True
        return False

    def _explain(self, waits: Callable[[], list[str]] | None) -> str:
        described = [_caller()] if waits is None else waits()
        described += [f"thread {wait.thread.name!r}" for wait in self._thread_waits]
        unfinished = ", ".join(self.unfinished()) or "none"
        return f"nothing can end the wait of {' and of '.join(described)}; streams that have not ended: {unfinished}"

    def wait(self, latch: Latch, timeout: float | None) -> bool:
        """Run others until ``latch`` can be acquired; move the clock when there is nothing else to do.

        In a simulated thread, suspend it until then.
        """
        thread = SimulatedThread.current()
        if thread is not None:
            return self._wait_in_thread(thread, latch, timeout)
        deadline = _NEVER if timeout is None else self._clock.monotonic() + timeout
        self._idle_since = None
        while not latch.acquire(blocking=False):
            if not self.step() and not self.move_on(deadline):
                return latch.acquire(blocking=False)
        return True

    def check_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raise `Deadlock` unless this simulation drives the loop, or the test itself drives both."""
        if self.drives_loops and getattr(loop, "dispatcher", None) is not self:
            raise Deadlock("a simulated system works only in its own event loop: call SimulatedSystem.run(main())")

    def blocks(self, loop: asyncio.AbstractEventLoop) -> bool:
        """False: a wait runs the others in its own thread."""
        return False

    def pause(self, seconds: float) -> None:
        """Run others for ``seconds`` of virtual time."""
        never = threading.Lock()
        never.acquire()
        self.wait(never, max(seconds, 0.0))

    def statistics(self) -> DispatcherStatistics:
        return DispatcherStatistics(
            workers=1, busy=0, blocked=0, queued=len(self._ready), messages=self._messages, messages_per_second=0.0,
            spares_started=0, spares_exhausted=0, replaced=0, held=0, leaked=0,
        )  # fmt: skip

    def close(self, timeout: float) -> int:
        self.stop_threads()
        self._ready.clear()
        return 0

    # --- simulated threads ---------------------------------------------------------------------------------------

    def start_thread(self, function: Callable[[], object], name: str = "penstock-simulated") -> SimulatedThread:
        """Call ``function`` in a simulated thread; it begins in one of the next steps.

        It may block with `wait` and `pause`, and with whatever is built on them. What it raises is raised by the step
        that runs it.
        """
        thread = SimulatedThread(function, name)
        self._threads.add(thread)
        self._ready.append(thread)
        return thread

    def stop_threads(self) -> None:
        """End all simulated threads, wherever they wait."""
        for thread in tuple(self._threads):
            self._threads.discard(thread)
            thread.stop()

    def _resume(self, thread: SimulatedThread) -> None:
        if thread not in self._threads:  # it was stopped while it was ready
            return
        try:
            thread.resume()
        finally:
            if thread.has_ended:
                self._threads.discard(thread)

    def _wait_in_thread(self, thread: SimulatedThread, latch: Latch, timeout: float | None) -> bool:
        if latch.acquire(blocking=False):
            return True
        wait = _ThreadWait(thread, latch, self._end_wait)
        self._thread_waits.append(wait)
        if timeout is not None:
            self._timers.set(wait, self._clock.monotonic() + max(timeout, 0.0))
        try:
            thread.suspend()
        finally:
            if wait in self._thread_waits:  # the thread is being stopped
                self._thread_waits.remove(wait)
                self._timers.cancel(wait)
        return wait.is_acquired

    def _end_acquired_waits(self) -> None:
        for wait in tuple(self._thread_waits):
            if wait.latch.acquire(blocking=False):
                wait.is_acquired = True
                self._timers.cancel(wait)
                self._end_wait(wait)

    def _end_wait(self, wait: _ThreadWait) -> None:
        self._thread_waits.remove(wait)
        self._ready.append(wait.thread)


def _caller() -> str:
    """Describe the call of this package that the user's code waits in: which one, and the line."""
    frame = sys._getframe(1)
    called = frame.f_code
    while frame.f_back is not None and is_own(frame):
        called = frame.f_code
        frame = frame.f_back
    return f"{called.co_qualname}() in {frame.f_code.co_filename}, line {frame.f_lineno}"


def is_own(frame: FrameType) -> bool:
    """Whether a frame is of this package's code."""
    module = str(frame.f_globals.get("__name__"))
    return module == _PACKAGE or module.startswith(f"{_PACKAGE}.")


class Simulation:
    """A runtime with virtual time and a seeded schedule.

    >>> from penstock.actors.runtime.process import Process
    >>> class Echo(Process):
    ...     def on_receive(self, message):
    ...         return message
    >>> with Simulation(seed=7) as simulation:
    ...     simulation.runtime.spawn(Echo).ask("hello", timeout=1)
    'hello'
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.clock = VirtualClock()
        self.timers = Timers()
        self.dispatcher = SimulatedDispatcher(self.clock, self.timers, seed)
        self.runtime = Runtime(self.dispatcher, self.timers, self.clock, seed)

    def spawn(self, cls: Any, *args: Any, **kwargs: Any) -> ProcessRef:
        """Spawn a process; the same as ``runtime.spawn``."""
        return self.runtime.spawn(cls, *args, **kwargs)

    def start_thread(self, function: Callable[[], object], name: str = "penstock-simulated") -> SimulatedThread:
        """Call ``function``, which may block, in a simulated thread; see `SimulatedDispatcher.start_thread`."""
        return self.dispatcher.start_thread(function, name)

    def settle(self) -> None:
        """Run everything that is ready; time stands still."""
        self.dispatcher.settle()

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass: fire the timers one by one, and after each run everything that is ready."""
        end = self.clock.monotonic() + seconds
        self.settle()
        while (due := self.timers.next_due()) <= end:
            self.clock.move_to(due)
            self.timers.fire_due(due)
            self.settle()
        self.clock.move_to(end)

    def close(self) -> None:
        """Kill every process and end every simulated thread."""
        self.runtime.close()
        self.dispatcher.close(0)

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
