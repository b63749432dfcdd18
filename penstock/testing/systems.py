"""A whole system on a simulation."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from penstock.config.settings import Settings
from penstock.errors import OptionError
from penstock.ports import Reader
from penstock.system import System
from penstock.testing.loop import SimulatedLoop
from penstock.testing.scripted_reader import ReaderMode, ScriptedReader
from penstock.testing.simulation import Simulation

__all__ = ["SimulatedSystem", "reader_mode_of"]

T = TypeVar("T")


def reader_mode_of(seed: int) -> ReaderMode:
    """Return how the reader of a simulated system with this seed hands its deltas over.

    Of two neighbouring seeds one blocks and the other offers, so a test that runs under two or more seeds in a row
    covers both.

    >>> [reader_mode_of(seed) for seed in range(4)]
    ['offer', 'blocking', 'offer', 'blocking']
    """
    return "blocking" if seed % 2 else "offer"


class SimulatedSystem(System):
    """A `System` without threads of its own and without a network, in virtual time; the same seed gives the same run.

    Every call that waits (`Stream.result`, an iterator, `stop` …) runs the simulation for as long as it has to.
    Settings are the defaults: environment and files are not read.

    Args:
        seed: decides the order in which ready actors run, and the mode of the reader.
        settings: None is the defaults.
        reader: None is a `ScriptedReader`, which takes only `ScriptedProvider`.
        reader_mode: of the `ScriptedReader`; None is chosen by the seed, see `reader_mode_of`.
        **more: as for `System`.

    Raises:
        OptionError: an argument is not allowed, or ``reader_mode`` is given together with ``reader``.

    >>> with SimulatedSystem(seed=3) as system:
    ...     stream = system.open_stream("greeting")
    ...     stream.process_token("Hello")
    ...     stream.text
    ...     system.advance(0.1)
    ...     stream.text
    ''
    'Hello'
    """

    def __init__(
        self,
        seed: int = 0,
        settings: Settings | None = None,
        *,
        reader: Reader | None = None,
        reader_mode: ReaderMode | None = None,
        **more: Any,
    ) -> None:
        if reader is not None and reader_mode is not None:
            raise OptionError("reader_mode", reader_mode, "None where a reader is given")
        self.simulation = Simulation(seed)
        self.reader = reader or ScriptedReader(self.simulation.runtime, reader_mode or reader_mode_of(seed))
        super().__init__(settings or Settings(), runtime=self.simulation.runtime, reader=self.reader, **more)
        self.simulation.dispatcher.drives_loops = True
        self.simulation.dispatcher.idle_until = self._last_time_to_live
        self.simulation.dispatcher.unfinished = self._unfinished

    @property
    def scripted(self) -> ScriptedReader:
        """The reader, if none was given."""
        assert isinstance(self.reader, ScriptedReader)
        return self.reader

    def settle(self) -> None:
        """Run everything that is ready; time stands still."""
        self.simulation.settle()

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, and run everything that becomes ready meanwhile."""
        self.simulation.advance(seconds)

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Make an asyncio event loop that runs in this system's virtual time; see `SimulatedLoop`."""
        return SimulatedLoop(self.simulation)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run ``main`` as `asyncio.run` does, in virtual time and in an order that the seed decides.

        Only in such a loop can this system be used with ``async for`` and ``await``.

        Raises:
            Deadlock: all tasks wait for something that can never come.
        """
        with asyncio.Runner(loop_factory=self.new_event_loop) as runner:
            return runner.run(main)

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _last_time_to_live(self) -> float:
        """Until when the handler's sweep may end a stream that nothing reads."""
        ends = [
            record.counters.last_activity + record.options.time_to_live
            for record in self._table.all()
            if record.options.time_to_live is not None and not record.is_over and not record.hub.had_subscriber
        ]
        return max(ends, default=0.0)

    def _unfinished(self) -> list[str]:
        return [f"stream {record.stream_id!r}" for record in self._table.all() if not record.is_over]

    def stop(self, timeout: float | None = None) -> int:
        """Stop the system as `System.stop` does, then run what the end has made ready and end all simulated threads."""
        try:
            leaked = super().stop(timeout)
            self.simulation.settle()
        finally:
            self.simulation.dispatcher.stop_threads()
        return leaked
