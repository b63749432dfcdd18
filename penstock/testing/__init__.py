"""A test kit for programs built on Penstock, and for Penstock itself.

`Simulation` is a runtime without threads: time is virtual, and ready actors run one message at a time in an order that
a seed decides. The same seed gives the same run, so a race that was found once can be replayed. `SimulatedSystem` is
a whole system on one, with `ScriptedReader` in the place of the network; a `ScriptedProvider` says what comes and what
goes wrong. `Collector` keeps what a subscriber gets, `kill` ends any process by its name, `eventually` waits.

>>> with SimulatedSystem(seed=1) as system:
...     provider = ScriptedProvider(["Good ", 0.5, "morning"])
...     stream = system.chat("any", [], provider=provider)
...     collector = Collector(stream)
...     collector.wait_for_terminal().text
'Good morning'
"""

from penstock.testing.kit import Collector, check_log, eventually, kill
from penstock.testing.scripted import HANG, ResumableProvider, ScriptedAttempt, ScriptedProvider, ScriptedReader
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
    "SimulatedSystem",
    "Simulation",
    "VirtualClock",
    "check_log",
    "eventually",
    "kill",
]
