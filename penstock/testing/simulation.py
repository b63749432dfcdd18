"""Virtual time and a seeded schedule."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from penstock.actors.runtime.clock import Timers
from penstock.actors.runtime.dispatcher import DispatcherStatistics, Latch
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.runtime import Runtime

__all__ = ["Deadlock", "SimulatedDispatcher", "Simulation", "VirtualClock"]

_NEVER = float("inf")


class Deadlock(AssertionError):
    """Somebody waits for ever: no actor is ready and no timer is set."""


class VirtualClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return 1_700_000_000.0 + self._now

    def move_to(self, when: float) -> None:
        """Go on to ``when``; never back."""
        self._now = max(self._now, when)


class SimulatedDispatcher:
    """Runs ready actors in the calling thread, one message at a time, in a seeded order.

    Waiting runs the others; when nobody is ready, it moves the clock to the next timer.
    """

    def __init__(self, clock: VirtualClock, timers: Timers, seed: int = 0) -> None:
        self._clock = clock
        self._timers = timers
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._ready: list[Mailbox] = []
        self._messages = 0
        self._closed = False
        self.before_step: Callable[[], object] | None = None
        """Called before each step in which somebody is run: the place to let things go wrong. It is not called for
        the steps that it causes itself."""
        self._interfering = False
        self.enqueue: Callable[[Mailbox], None] = self._ready.append
        self.monotonic: Callable[[], float] = clock.monotonic

    def step(self) -> bool:
        """Let one ready actor handle one message; returns whether there was one."""
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
        self._messages += self._ready.pop().enter().run(1)
        return True

    def settle(self) -> None:
        """Run until nobody is ready; time stands still."""
        while self.step():
            pass

    def wait(self, latch: Latch, timeout: float | None) -> bool:
        """Run the others until ``latch`` can be acquired; move the clock when there is nothing else to do."""
        deadline = _NEVER if timeout is None else self._clock.monotonic() + timeout
        while not latch.acquire(blocking=False):
            if self.step():
                continue
            due = self._timers.next_due()
            if min(due, deadline) == _NEVER:
                raise Deadlock("waiting for ever: no actor is ready and no timer is set")
            if due > deadline:
                self._clock.move_to(deadline)
                return latch.acquire(blocking=False)
            self._clock.move_to(due)
            self._timers.fire_due(due)
        return True

    def blocks(self, loop: asyncio.AbstractEventLoop) -> bool:
        """False: a wait runs the others in its own thread."""
        return False

    def pause(self, seconds: float) -> None:
        """Run the others for so long, as the clock shows it."""
        never = threading.Lock()
        never.acquire()
        self.wait(never, max(seconds, 0.0))

    def statistics(self) -> DispatcherStatistics:
        return DispatcherStatistics(
            workers=1, busy=0, blocked=0, queued=len(self._ready), messages=self._messages, messages_per_second=0.0,
            spares_started=0, spares_exhausted=0, replaced=0, held=0, leaked=0,
        )  # fmt: skip

    def close(self, timeout: float) -> int:
        self._closed = True
        self._ready.clear()
        return 0


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
        self.runtime = Runtime(self.dispatcher, self.timers, self.clock)

    def spawn(self, cls: Any, *args: Any, **kwargs: Any) -> ProcessRef:
        """The same as ``runtime.spawn``."""
        return self.runtime.spawn(cls, *args, **kwargs)

    def settle(self) -> None:
        """Run everything that is ready; time stands still."""
        self.dispatcher.settle()

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, timer by timer, with everything that follows from each."""
        end = self.clock.monotonic() + seconds
        self.settle()
        while (due := self.timers.next_due()) <= end:
            self.clock.move_to(due)
            self.timers.fire_due(due)
            self.settle()
        self.clock.move_to(end)

    def close(self) -> None:
        """Kill what is left."""
        self.runtime.close()
        self.dispatcher.close(0)

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
