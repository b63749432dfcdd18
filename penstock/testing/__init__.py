"""A test kit for programs built on Penstock, and for Penstock itself.

`Simulation` is a runtime in virtual time: actors run one message at a time, in an order that a seed decides. The same
seed gives the same run, so a race that was found once can be replayed. `SimulatedSystem` is a whole system on a
simulation, with a `ScriptedReader` in place of the network; a `ScriptedProvider` says what arrives and what fails.
`Collector` keeps the events of a stream, `kill` kills a process by its name, `eventually` waits for a condition.

>>> with SimulatedSystem(seed=1) as system:
...     provider = ScriptedProvider(["Good ", 0.5, "morning"])
...     stream = system.chat("any", "Hello", provider=provider)
...     collector = Collector(stream)
...     collector.wait_for_terminal().text
'Good morning'
"""

from penstock.testing.kit import Collector, check_log, eventually, kill
from penstock.testing.loop import SimulatedLoop
from penstock.testing.scripted import HANG, ResumableProvider, ScriptedAttempt, ScriptedProvider
from penstock.testing.scripted_reader import ScriptedReader
from penstock.testing.simulation import Deadlock, SimulatedDispatcher, Simulation, VirtualClock
from penstock.testing.systems import SimulatedSystem

__all__ = [
    "HANG",
    "Collector",
    "Deadlock",
    "ResumableProvider",
    "ScriptedAttempt",
    "ScriptedProvider",
    "ScriptedReader",
    "SimulatedDispatcher",
    "SimulatedLoop",
    "SimulatedSystem",
    "Simulation",
    "VirtualClock",
    "check_log",
    "eventually",
    "kill",
]
