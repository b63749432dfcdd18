"""Nodes on one store in this process: each has a link to it that can be cut, as if its machine were gone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import penstock
from penstock.adapters.journals.memory_store import MemoryLogStore
from penstock.cluster.node import ClusterNode
from penstock.config.cluster import ClusterOptions
from penstock.config.options import StreamOptions
from penstock.config.settings import Settings
from penstock.errors import StoreUnavailable
from penstock.ports import Registration

__all__ = ["EAGER", "LEASE", "Link", "SharedStore", "node_of", "nodes"]

LEASE = 0.5
OPTIONS = ClusterOptions(lease=LEASE, heartbeat=0.1, reap=0.05)
EAGER = StreamOptions(batch_size=1, rate_limit=None)


class SharedStore(MemoryLogStore):
    """A store that outlives the systems on it, as a server does."""

    def close(self) -> None:
        pass

    def is_served(self, log: str) -> bool:
        """Whether a node carries out the commands to a log."""
        return log in self._commands._served


class _Served:
    """Commands that a node carries out, as long as its link is not cut. Implements `penstock.ports.Registration`."""

    def __init__(self, among: list[_Served], log: str, carry_out: Any, registration: Registration) -> None:
        self._among = among
        self.log = log
        self.carry_out = carry_out
        self.registration = registration

    def close(self) -> None:
        if self in self._among:
            self._among.remove(self)
        self.registration.close()


class Link:
    """A node's connection to a store. Implements `penstock.ports.LogStore`.

    While it is cut, no command reaches the node either.
    """

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self._served: list[_Served] = []
        self._is_cut = False

    @property
    def is_cut(self) -> bool:
        return self._is_cut

    @is_cut.setter
    def is_cut(self, is_cut: bool) -> None:
        self._is_cut = is_cut
        for one in list(self._served):
            if is_cut:
                one.registration.close()
            elif not self._store.is_served(one.log):
                one.registration = self._store.serve(one.log, one.carry_out)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found) or name == "close":
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            if self.is_cut:
                raise StoreUnavailable("memory", "the link is cut")
            return found(*arguments, **named)

        return call

    def serve(self, log: str, carry_out: Any) -> Any:
        if self.is_cut:
            raise StoreUnavailable("memory", "the link is cut")
        served = _Served(self._served, log, carry_out, self._store.serve(log, carry_out))
        self._served.append(served)
        return served

    # Named here, as `isinstance` looks for them in the class.
    name = property(lambda self: self._store.name)
    durability = property(lambda self: self._store.durability)
    is_shared = property(lambda self: True)


for _name in (
    *("append", "append_all", "read", "tail", "watch", "trim", "forget", "enqueue", "claim", "keep", "release"),
    *("hand_over", "held", "command", "cancel", "take", "new_number", "announce", "view", "statistics", "close"),
):
    setattr(Link, _name, (lambda name: lambda self, *a, **k: Link.__getattr__(self, name)(*a, **k))(_name))


@contextlib.contextmanager
def nodes(count: int = 2, store: SharedStore | None = None, **changes: Any) -> Iterator[list[penstock.System]]:
    """Systems on one store; ``system._journal`` is the `Link` of each."""
    store = store or SharedStore()
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                penstock.System(Settings(), journal=Link(store), cluster=OPTIONS.replace(node=f"n{number}", **changes))
            )
            for number in range(count)
        ]


def node_of(system: penstock.System) -> ClusterNode:
    assert system._node is not None
    return system._node
