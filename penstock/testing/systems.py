"""A whole system on a simulation."""

from __future__ import annotations

from typing import Any

from penstock.config.settings import Settings
from penstock.ports import Reader
from penstock.system import System
from penstock.testing.scripted import ScriptedReader
from penstock.testing.simulation import Simulation

__all__ = ["SimulatedSystem"]


class SimulatedSystem(System):
    """A `System` without threads and without a network, in virtual time; the same seed gives the same run.

    Whatever waits (`Stream.result`, an iterator, `stop` …) runs the simulation for as long as it has to. Settings are
    the defaults: environment and files are not read.

    Args:
        seed: decides in which order ready actors run.
        settings: None is the defaults.
        reader: None is a `ScriptedReader`, for which providers must be `ScriptedProvider`.
        **more: as for `System`.

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
        self, seed: int = 0, settings: Settings | None = None, *, reader: Reader | None = None, **more: Any
    ) -> None:
        self.simulation = Simulation(seed)
        self.reader = reader or ScriptedReader(self.simulation.runtime)
        super().__init__(settings or Settings(), runtime=self.simulation.runtime, reader=self.reader, **more)

    @property
    def scripted(self) -> ScriptedReader:
        """The reader, if none was given."""
        assert isinstance(self.reader, ScriptedReader)
        return self.reader

    def settle(self) -> None:
        """Run whatever is ready; time stands still."""
        self.simulation.settle()

    def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen that comes with it."""
        self.simulation.advance(seconds)

    def stop(self, timeout: float | None = None) -> int:
        """As for `System`; afterwards everything that was told of the end has been handled."""
        leaked = super().stop(timeout)
        self.simulation.settle()
        return leaked
