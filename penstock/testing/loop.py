"""An asyncio event loop that a simulation drives, in its virtual time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from penstock.testing.simulation import Simulation, is_own

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["SimulatedLoop"]


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop that runs the simulation's actors while it waits, in the simulation's time.

    While a task is ready, actors run in between, in an order that the seed decides. When no task and no actor is ready,
    the clock moves to the next timer of either. `asyncio.sleep` therefore takes no real time.
    `loop.run_in_executor` and `asyncio.to_thread` call their function in a simulated thread.

    Network connections are polled, but virtual time does not wait for them: servers and clients in a simulated test
    should talk in memory.

    Raises:
        Deadlock: (out of the loop's run) all tasks wait for something that can never come.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.dispatcher = simulation.dispatcher
        super().__init__(_SimulatedSelector(simulation, self))

    def time(self) -> float:
        """The virtual time, in seconds."""
        return self._simulation.clock.monotonic()

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call ``func`` in a simulated thread. ``executor`` is not used."""
        future = self.create_future()

        def work() -> None:
            try:
                value, error = func(*args), None
            except Exception as raised:
                value, error = None, raised
            if not self.is_closed():
                self.call_soon_threadsafe(_settle, future, value, error)

        self._simulation.start_thread(work, "penstock-simulated-executor")
        return future

    def has_ready(self) -> bool:
        """Whether a callback waits to be run."""
        return bool(self._ready)  # type: ignore[attr-defined]

    def waits(self) -> list[str]:
        """Describe what the loop's tasks wait in."""
        return [f"task {task.get_name()!r} in {_place_of(task)}" for task in asyncio.all_tasks(self)]


def _place_of(task: asyncio.Task[Any]) -> str:
    """The innermost line of the user's code that a suspended task waits in."""
    place = "unknown code"
    coroutine: Any = task.get_coro()
    while (frame := getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)) is not None:
        if not is_own(frame):
            place = f"{frame.f_code.co_qualname}(), {frame.f_code.co_filename}, line {frame.f_lineno}"
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return place


def _settle(future: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if future.done():  # its task was cancelled
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)


class _SimulatedSelector(selectors.BaseSelector):
    """Waits by running the simulation. Files are polled by a real selector."""

    def __init__(self, simulation: Simulation, loop: SimulatedLoop) -> None:
        self._simulation = simulation
        self._loop = loop
        self._files = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Run actors, or move the clock by at most ``timeout`` seconds, until a file or the loop is ready."""
        dispatcher = self._simulation.dispatcher
        if timeout is not None and timeout <= 0:
            dispatcher.step_at_random()
            return self._files.select(0)
        clock = self._simulation.clock
        deadline = float("inf") if timeout is None else clock.monotonic() + timeout
        while not (events := self._files.select(0)) and not self._loop.has_ready():
            if not dispatcher.step() and not dispatcher.move_on(deadline, self._loop.waits):
                break
        return events

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._files.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._files.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._files.modify(fileobj, events, data)

    def close(self) -> None:
        self._files.close()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._files.get_key(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._files.get_map()
