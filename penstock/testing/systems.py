"""A whole system on a simulation."""

from __future__ import annotations

from typing import Any

from penstock.config.settings import Settings
from penstock.errors import OptionError
from penstock.ports import Reader
from penstock.system import System
from penstock.testing.scripted_reader import ReaderMode, ScriptedReader
from penstock.testing.simulation import Simulation

__all__ = ["SimulatedSystem", "reader_mode_of"]


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

    def stop(self, timeout: float | None = None) -> int:
        """Stop the system as `System.stop` does, then run what the end has made ready and end all simulated threads."""
        try:
            leaked = super().stop(timeout)
            self.simulation.settle()
        finally:
            self.simulation.dispatcher.stop_threads()
        return leaked
