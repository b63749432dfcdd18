"""The settings of a cluster: several systems that share one log store."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Final

from penstock.config.checks import Between, Options, type_of
from penstock.config.server_url import parse_server_url
from penstock.config.store import Durable
from penstock.errors import OptionError

__all__ = ["ClusterOptions"]

_NODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _check_url(field: str, url: object) -> None:
    if url is not None:
        parse_server_url(field, url)


def _check_node(field: str, node: object) -> None:
    if node is not None and (not isinstance(node, str) or not _NODE.fullmatch(node)):
        raise OptionError(field, node, "1 to 64 letters, digits, '.', '_' and '-', or None")


def _check_address(field: str, address: object) -> None:
    if not isinstance(address, str) or len(address) > 256:
        raise OptionError(field, type_of(address), "a text of up to 256 characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions(Options):
    """How a system shares its streams with others on one log store; see the page "Many nodes".

    Attributes:
        url: of the Valkey or Redis server, as for `ValkeyJournal`. None: the store is the system's ``journal``, or
            there is no cluster. A store that is given as ``journal`` comes first.
        node: the node's name, for people: 1 to 64 letters, digits, ``.``, ``_``, ``-``. None takes the host's name. Two
            systems with the same name do no harm: each has a number of its own besides.
        durability: when readers get an event. ``"async"``: the server has it in memory; ``"sync"``: so has one
            replica. For more choices give a `ValkeyJournal`.
        lease: a node that has not been heard of for so long has lost its streams, 0.05 … 600 s.
        heartbeat: how often a node is heard of, 0.01 … 200 s, at most a third of ``lease``.
        reap: how often a node looks for streams without a living owner, 0.01 … 200 s.
        capacity: a node that runs so many streams takes none over from others; 0: no limit; at most 10**6.
        advertise: where a balancer or people reach the node, for the view of the cluster; up to 256 characters.
        max_deliveries: a request that so many nodes have begun, and none has ended, is not begun again, 1 … 100.
        share_limits: whether the limits on requests and tokens a minute count the requests of all nodes together.

    >>> ClusterOptions(lease=3, heartbeat=2)
    Traceback (most recent call last):
    penstock.errors.OptionError: heartbeat: got 2, allowed: at most a third of lease, 1 s
    """

    url: Annotated[str | None, _check_url] = field(default=None, repr=False)  # it may hold a password
    node: Annotated[str | None, _check_node] = None
    durability: Durable = "async"
    lease: Annotated[float, Between(0.05, 600)] = 3.0
    heartbeat: Annotated[float, Between(0.01, 200)] = 1.0
    reap: Annotated[float, Between(0.01, 200)] = 0.5
    capacity: Annotated[int, Between(0, 1_000_000)] = 0
    advertise: Annotated[str, _check_address] = ""
    max_deliveries: Annotated[int, Between(1, 100)] = 3
    share_limits: bool = True

    def _check(self) -> None:
        if self.heartbeat * 3 > self.lease * 1.000001:
            raise OptionError("heartbeat", self.heartbeat, f"at most a third of lease, {self.lease / 3:g} s")
