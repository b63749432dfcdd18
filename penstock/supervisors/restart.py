"""The arithmetic of restarts. Pure: the time is passed in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from penstock.actors.runtime.signals import is_clean
from penstock.supervisors.spec import Restart, Strategy

__all__ = ["Plan", "RestartWindow", "plan_restart", "should_restart"]


class RestartWindow:
    """Counts restarts within a period.

    >>> window = RestartWindow(intensity=2, period=10.0)
    >>> [window.exceeded(now) for now in (0.0, 1.0, 2.0)]
    [False, False, True]
    >>> window.exceeded(11.5)
    False
    """

    __slots__ = ("_times", "intensity", "period")

    def __init__(self, intensity: int, period: float) -> None:
        self.intensity = intensity
        self.period = period
        self._times: list[float] = []

    def exceeded(self, now: float) -> bool:
        """Count a restart at ``now``; returns whether it is one too many."""
        self._times = [time for time in self._times if now - time <= self.period]
        self._times.append(now)
        return len(self._times) > self.intensity


def should_restart(restart: Restart, reason: object) -> bool:
    """Whether a child that ended with ``reason`` is started again."""
    return restart == "permanent" or (restart == "transient" and not is_clean(reason))


class Plan(NamedTuple):
    """Whom to stop, in order, and then whom to start, in order."""

    stop: list[str]
    start: list[str]


def plan_restart(strategy: Strategy, ids: Sequence[str], ended: str) -> Plan:
    """What the end of one child means for the others; ``ids`` are all children in start order.

    >>> plan_restart("rest_for_one", ["a", "b", "c", "d"], "b")
    Plan(stop=['d', 'c'], start=['b', 'c', 'd'])
    """
    if strategy == "one_for_one":
        return Plan([], [ended])
    first = 0 if strategy == "one_for_all" else ids.index(ended)
    group = list(ids[first:])
    return Plan([child for child in reversed(group) if child != ended], group)
