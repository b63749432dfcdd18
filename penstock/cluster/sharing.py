"""How many streams a node may take over, and which node takes which of those that another one hands on. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from penstock.ports import NodeInfo

__all__ = ["room_of", "share_out"]


def room_of(capacity: int, streams: int, most: int) -> int:
    """How many further streams a node may take over at once.

    Args:
        capacity: of the node; 0: no limit.
        streams: that it runs.
        most: at once.

    >>> room_of(0, 70, 50), room_of(100, 70, 50), room_of(60, 70, 50)
    (50, 30, 0)
    """
    return max(0, min(most, capacity - streams)) if capacity else most


def share_out(count: int, infos: Iterable[NodeInfo]) -> list[str]:
    """The nodes that take streams over, one for each stream: always the node with the fewest of those with room.

    There are fewer than ``count`` if the nodes have no more room.

    >>> share_out(4, [NodeInfo("a", streams=1), NodeInfo("b", capacity=1), NodeInfo("c", streams=9, capacity=9)])
    ['b', 'a', 'a', 'a']
    >>> share_out(2, [NodeInfo("b", capacity=1), NodeInfo("c", streams=9, capacity=9)])
    ['b']
    """
    free = [(info.streams, info.node, info.capacity) for info in infos if room_of(info.capacity, info.streams, 1)]
    heapq.heapify(free)
    found: list[str] = []
    while free and len(found) < count:
        streams, node, capacity = free[0]
        found.append(node)
        if room_of(capacity, streams + 1, 1):
            heapq.heapreplace(free, (streams + 1, node, capacity))
        else:
            heapq.heappop(free)
    return found
