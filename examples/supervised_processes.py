"""Supervision by itself, without any streaming: a store, and a counter that depends on it.

    python examples/supervised_processes.py

The counter crashes and is restarted; then the store crashes, and the counter is restarted with it, since it was
started after it (``rest_for_one``).
"""

from __future__ import annotations

import logging
from typing import Any

from penstock.actors.runtime.clock import SystemClock, TimerThread
from penstock.actors.runtime.dispatcher import ThreadedDispatcher
from penstock.actors.runtime.process import Process
from penstock.actors.runtime.runtime import Runtime
from penstock.supervisors.calls import which_children
from penstock.supervisors.spec import ChildSpec, SupervisorFlags
from penstock.supervisors.supervisor import Supervisor
from penstock.testing import eventually

logging.disable(logging.CRITICAL)  # crashes are logged; here they are meant


class Store(Process):
    """Keeps a number."""

    def on_start(self) -> None:
        self.number = 0

    def on_receive(self, message: Any) -> int:
        self.number += int(message)
        return self.number


class Counter(Process):
    """Counts in the store; what is no number crashes it."""

    def on_receive(self, message: Any) -> int:
        store = self.runtime.whereis("store")
        assert store is not None
        total: int = store.ask(int(message), timeout=1)
        return total


def main() -> None:
    """Start, crash, crash, stop."""
    dispatcher, timers = ThreadedDispatcher(workers=2), TimerThread()
    runtime = Runtime(dispatcher, timers, SystemClock())
    children = [ChildSpec(id="store", cls=Store, name="store"), ChildSpec(id="counter", cls=Counter, name="counter")]
    top = runtime.spawn(Supervisor, children, SupervisorFlags(strategy="rest_for_one", intensity=5))

    def count(message: Any) -> Any:
        counter = eventually(lambda: runtime.whereis("counter"))
        return counter.ask(message, timeout=1)

    def restarts() -> dict[str, int]:
        return {child.id: child.restarts for child in reversed(which_children(top, timeout=1))}

    print("counted:", count(1), count(2))
    try:
        count("three")
    except ValueError as error:
        print("the counter crashed:", error)
    eventually(lambda: restarts() == {"store": 0, "counter": 1})
    print("counted:", count(3), "- the store is still the same")

    runtime.exit(children_of(top)["store"], "kill")
    eventually(lambda: restarts() == {"store": 1, "counter": 2})
    print("restarts:", restarts(), "- the counter with the store")
    print("counted:", count(1))

    top.terminate(timeout=5)
    print("left:", runtime.processes())
    runtime.close()
    dispatcher.close(timeout=1)
    timers.close(timeout=1)


def children_of(supervisor: Any) -> dict[str, Any]:
    """The refs of its children by id."""
    return {child.id: child.ref for child in which_children(supervisor, timeout=1)}


if __name__ == "__main__":
    main()
