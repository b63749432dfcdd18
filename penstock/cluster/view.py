"""What a cluster looks like from one of its nodes."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from penstock.ports import NodeInfo

__all__ = ["ClusterNodeInfo", "ClusterView", "name_of", "node_infos"]


class ClusterNodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One node.

    Attributes:
        node: its name with a number of its own, ``NAME~xxxxxx``: two processes never have the same.
        name: its name.
        is_here: whether it is the one that is asked.
        is_alive: whether its lease runs. A dead one is listed as long as it has claims.
        is_draining: it takes no streams over.
        streams: how many it runs, by its own word; 0 if it is dead.
        held: how many requests it has claimed.
        capacity: with so many streams it takes none over from others; 0: no limit.
        address: where it is reached; may be empty.
        facts: anything else that it says: ``followed``, ``waiting`` (events not stored yet), ``store_failing``.
    """

    node: str
    name: str
    is_here: bool = False
    is_alive: bool = True
    is_draining: bool = False
    streams: int = 0
    held: int = 0
    capacity: int = 0
    address: str = ""
    facts: Mapping[str, str | int | float | bool] = {}


class ClusterView(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes, their streams and leases, and the store, at one moment.

    Attributes:
        node: the one that is asked; see `ClusterNodeInfo.node`.
        nodes: all of them, by name.
        waiting: requests that no node has claimed.
        engine: the store with its version; empty if it did not answer.
        store: where it is, without any password.
        is_well: whether it works, as far as this node knows.
        problem: what it has answered last, if it does not.
        lag_events: events of this node's streams that wait to be stored.
        beat_age_s: seconds since the store has last renewed this node's lease.
        lease_s: seconds without a renewal after which a node loses its streams.
        commands_refused: how often an order of another node found as many under way on this one as it carries out at
            once. The other one tries again, within its time-out.
    """

    node: str
    nodes: tuple[ClusterNodeInfo, ...]
    waiting: int
    engine: str
    store: str
    is_well: bool
    problem: str
    lag_events: int
    beat_age_s: float
    lease_s: float
    commands_refused: int = 0


def name_of(node: str) -> str:
    """The name that people gave a node.

    >>> name_of("web-1~3fa94c")
    'web-1'
    """
    return node.rpartition("~")[0] or node


def node_infos(here: str, infos: Mapping[str, NodeInfo], held: Mapping[str, int]) -> tuple[ClusterNodeInfo, ...]:
    """The nodes that have announced themselves, and those that have claims only."""
    found = [
        ClusterNodeInfo(
            node=node,
            name=name_of(node),
            is_here=node == here,
            is_alive=node in infos,
            is_draining=infos[node].is_draining if node in infos else False,
            streams=infos[node].streams if node in infos else 0,
            held=held.get(node, 0),
            capacity=infos[node].capacity if node in infos else 0,
            address=infos[node].address if node in infos else "",
            facts=infos[node].facts if node in infos else {},
        )
        for node in sorted({*infos, *held})
    ]
    return tuple(found)
