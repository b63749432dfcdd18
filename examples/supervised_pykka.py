"""Supervision of an ordinary Pykka program without streaming: a store, and a counter that depends on it.

Usage: python examples/supervised_pykka.py

The actors are plain `pykka.ThreadingActor`s. The counter crashes and is restarted. Then the store crashes, and the
counter is restarted with it because it was started after the store (``rest_for_one``).
"""

from __future__ import annotations

import logging
from typing import Any

import pykka

from penstock import otp
from penstock.testing import eventually

logging.disable(logging.CRITICAL)  # crashes are logged; here they are intended


class Store(pykka.ThreadingActor):
    """Keeps a sum; a message that is not a number crashes it."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def on_receive(self, message: Any) -> int:
        self.number += int(message)
        return self.number


class Counter(pykka.ThreadingActor):
    """Counts in the store, which it finds by a function; a message that is not a number crashes it."""

    def __init__(self, find_store: Any) -> None:
        super().__init__()
        self.store = find_store()

    def on_receive(self, message: Any) -> int:
        total: int = self.store.ask(int(message), timeout=1)
        return total


def main() -> None:
    """Start, crash, crash, stop."""
    dispatcher, timers = otp.ThreadedDispatcher(workers=2), otp.TimerThread()
    runtime = otp.Runtime(dispatcher, timers, otp.SystemClock())
    children = [
        otp.ChildSpec(id="store", cls=otp.PlainActor, args=(Store,), name="store"),
        otp.ChildSpec(
            id="counter", cls=otp.PlainActor, args=(Counter, lambda: runtime.whereis("store")), name="counter"
        ),
    ]
    top = runtime.spawn(otp.Supervisor, children, otp.SupervisorFlags(strategy="rest_for_one", intensity=5))

    def find(name: str) -> Any:
        return eventually(lambda: runtime.whereis(name))

    def restarts() -> dict[str, int]:
        return {child.id: child.restarts for child in reversed(otp.which_children(top, timeout=5))}

    print("counted:", find("counter").ask(1), find("counter").ask(2))

    find("counter").tell("three")
    eventually(lambda: restarts() == {"store": 0, "counter": 1})
    print("the counter has crashed; restarts:", restarts())
    print("counted:", find("counter").ask(3), "- the store is still the same")

    find("store").tell("four")
    eventually(lambda: restarts() == {"store": 1, "counter": 2})
    print("the store has crashed; restarts:", restarts())
    print("counted:", find("counter").ask(4), "- both are new")

    top.terminate(timeout=5)
    print("left:", pykka.ActorRegistry.get_all())
    runtime.close()
    dispatcher.close(timeout=1)
    timers.close(timeout=1)


if __name__ == "__main__":
    main()
