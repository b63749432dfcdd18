"""The processes of a node. Each does one thing again and again. Their state, `ClusterNode`, outlives them."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.actors.runtime.dispatcher import blocking
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import Cast, Event, Next, StateTimeout, Transition, state_timeout
from penstock.cluster.node import ClusterNode
from penstock.supervisors.spec import ChildSpec, SupervisorFlags
from penstock.supervisors.supervisor import Supervisor

__all__ = ["CLUSTER", "cluster_child"]

CLUSTER: Final = "cluster"
_FLAGS: Final = SupervisorFlags(strategy="one_for_one", intensity=50, period=5.0)


class Look(msgspec.Struct, frozen=True):
    """Do it now."""


LOOK: Final = Look()


class _Regular(StateMachine):
    """Does something now, in each ``every`` seconds, and when it is told to."""

    timeouts_are_periodic = True

    def init(self, node: ClusterNode, every: float) -> Next:
        self._node = node
        self._every = every
        self.prepare()
        return Next("waiting", state_timeout(0.0))

    def prepare(self) -> None:
        """Called once."""

    def work(self) -> None:
        """Do it. It may wait for the store."""
        raise NotImplementedError

    def waiting(self, event: Event) -> Transition:
        """Wait until it is time."""
        match event:
            case StateTimeout() | Cast(message=Look()):
                with blocking():
                    self.work()
                return Next("waiting", state_timeout(self._every))
        return self.unhandled(event)


class Heart(_Regular):
    """Renews the node's lease and its claims."""

    def work(self) -> None:
        self._node.beat()


class ClusterReaper(_Regular):
    """Takes over the streams of nodes that have died."""

    def work(self) -> None:
        self._node.reap()


class Desk(_Regular):
    """Serves the orders of other nodes to the streams that run here, and tells them where there are readers."""

    def prepare(self) -> None:
        ref = self.ref
        pending: list[None] = []

        def wake() -> None:
            if not pending:
                pending.append(None)
                ref.tell(LOOK)

        self._waking = pending
        self._node.wake = wake

    def work(self) -> None:
        self._waking.clear()
        self._node.tend()


def cluster_child(node: ClusterNode) -> ChildSpec:
    """The supervisor of a node's processes, for the root."""
    options = node.options
    kinds: list[tuple[str, type[_Regular], float]] = [
        ("heart", Heart, options.heartbeat),
        ("reaper", ClusterReaper, options.reap),
        ("desk", Desk, options.heartbeat),
    ]
    children = [
        ChildSpec(id=id, name=f"cluster.{id}", cls=cls, args=(node, every), shutdown=1.0) for id, cls, every in kinds
    ]
    return ChildSpec(id=CLUSTER, name=CLUSTER, cls=Supervisor, args=(children, _FLAGS), shutdown=5.0)
