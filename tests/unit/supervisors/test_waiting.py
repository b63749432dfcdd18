"""A supervisor never relies on a message from a helper process that could be killed meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from penstock.actors.runtime.clock import SystemClock, TimerThread
from penstock.actors.runtime.dispatcher import ThreadedDispatcher
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.errors import StartError
from penstock.supervisors.calls import start_child, terminate_child, which_children
from penstock.supervisors.dynamic import DynamicSupervisor
from penstock.supervisors.spec import ChildSpec
from penstock.supervisors.supervisor import Supervisor
from penstock.testing import Simulation, eventually

GENEROUS = 20.0
SHUTDOWN = 60.0
pytestmark = pytest.mark.seeds(5)


class Slow(Process):
    """Takes a second to end."""

    in_pykka_registry = False
    trap_exit = True

    def terminate(self, reason: object) -> None:
        self.runtime.dispatcher.pause(1.0)


@pytest.mark.parametrize("how", ["supervisor", "dynamic", "terminate_child"])
def test_a_shut_down_takes_no_longer_when_everything_else_is_killed(seed: int, how: str) -> None:
    with Simulation(seed) as simulation:
        runtime = simulation.runtime
        spec = ChildSpec(id="slow", cls=Slow, shutdown=SHUTDOWN)
        kind = DynamicSupervisor if how == "dynamic" else Supervisor
        supervisor = simulation.spawn(kind)
        child = start_child(supervisor, spec, GENEROUS)

        def kill_strangers() -> None:
            for ref in runtime.processes():
                if ref not in (supervisor, child):
                    runtime.exit(ref, "kill")

        simulation.dispatcher.before_step = kill_strangers
        before = simulation.clock.monotonic()
        if how == "terminate_child":
            terminate_child(supervisor, "slow", SHUTDOWN)
        else:
            supervisor.terminate(timeout=2 * SHUTDOWN)
        assert child is not None
        assert runtime.exit_reason(child) == "shutdown"
        assert simulation.clock.monotonic() == before + 1.0


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    dispatcher, timers = ThreadedDispatcher(workers=2), TimerThread()
    runtime = Runtime(dispatcher, timers, SystemClock())
    yield runtime
    runtime.close()
    assert dispatcher.close(GENEROUS) == 0
    assert timers.close(GENEROUS)


def test_a_supervisor_is_free_again_when_a_child_whose_start_hangs_is_killed(runtime: Runtime) -> None:
    inside, release = threading.Event(), threading.Event()

    class Stuck(Process):
        in_pykka_registry = False

        def on_start(self) -> None:
            inside.set()
            release.wait(GENEROUS)

    supervisor = runtime.spawn(Supervisor)
    spec = ChildSpec(id="stuck", cls=Stuck, name="stuck", start_timeout=GENEROUS)
    raised: list[Any] = []

    def start() -> None:
        try:
            start_child(supervisor, spec, 2 * GENEROUS)
        except StartError as error:
            raised.append(error.code)

    starter = threading.Thread(target=start)
    starter.start()
    assert inside.wait(GENEROUS)
    stuck: ProcessRef = eventually(lambda: runtime.whereis("stuck"))
    runtime.exit(stuck, "kill")
    starter.join(GENEROUS)
    assert raised == ["killed"]
    assert which_children(supervisor, GENEROUS) == []
    release.set()
