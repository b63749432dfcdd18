"""The reaper: once a second it has the handler and the registry look for ends that no message reports."""

from __future__ import annotations

from typing import Final

from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import Event, Next, StateTimeout, Transition, state_timeout
from penstock.supervisors.registry import REGISTRY, Sweep
from penstock.supervisors.system.handler import HANDLER

__all__ = ["Reaper"]

_EVERY: Final = 1.0


class Reaper(StateMachine):
    """Sends `Sweep` to the handler and the registry."""

    timeouts_are_periodic = True

    def init(self) -> Next:
        return Next("waiting", state_timeout(_EVERY))

    def waiting(self, event: Event) -> Transition:
        """Wait for the next sweep."""
        if event.__class__ is not StateTimeout:
            return self.unhandled(event)
        for name in (HANDLER, REGISTRY):
            ref = self.runtime.whereis(name)
            if ref is not None:
                ref.tell(Sweep())
        return Next("waiting", state_timeout(_EVERY))
