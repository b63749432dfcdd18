"""The arithmetic of restarts. Pure: time and random numbers are passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from penstock.actors.runtime.reasons import is_clean
from penstock.supervisors.spec import AutoShutdown, Backoff, Restart, Strategy

__all__ = ["Plan", "RestartWindow", "backoff_delay", "plan_restart", "should_restart", "should_shut_down"]


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
        self._times: deque[float] = deque()

    def exceeded(self, now: float) -> bool:
        """Count a restart at ``now``; returns whether there are now more than ``intensity`` within ``period``."""
        times = self._times
        while times and now - times[0] > self.period:
            times.popleft()
        times.append(now)
        return len(times) > self.intensity


def should_restart(restart: Restart, reason: object) -> bool:
    """Return whether a child that ended with ``reason`` is started again."""
    return restart == "permanent" or (restart == "transient" and not is_clean(reason))


class Plan(NamedTuple):
    """Ids of children to stop and then to start, each in order. A child that is stopped but not started is removed."""

    stop: list[str]
    start: list[str]


def plan_restart(strategy: Strategy, children: Mapping[str, Restart], ended: str) -> Plan:
    """Return what the restart of one child requires of the others; ``children`` are all of them in start order.

    >>> children = {"a": "permanent", "b": "permanent", "c": "temporary", "d": "transient"}
    >>> plan_restart("rest_for_one", children, "b")
    Plan(stop=['d', 'c'], start=['b', 'd'])
    """
    if strategy == "one_for_one":
        return Plan([], [ended])
    ids = list(children)
    group = ids if strategy == "one_for_all" else ids[ids.index(ended) :]
    return Plan(
        [child for child in reversed(group) if child != ended],
        [child for child in group if child == ended or children[child] != "temporary"],
    )


def should_shut_down(policy: AutoShutdown, significant: bool, others_active: bool) -> bool:
    """Return whether the end of a child that is not restarted ends its supervisor.

    ``others_active``: another significant child runs, or is being restarted.
    """
    return significant and (policy == "any_significant" or (policy == "all_significant" and not others_active))


def backoff_delay(backoff: Backoff | None, failures: int, chance: float) -> float:
    """Return the seconds to wait before a restart, after ``failures`` restarts that did not last.

    ``chance`` is a random number from 0 to 1.

    >>> [backoff_delay(Backoff(min=1, max=5, jitter=0.5), failures, 0.0) for failures in range(4)]
    [1.0, 2.0, 4.0, 5.0]
    >>> backoff_delay(Backoff(min=1, max=5, jitter=0.5), 0, 1.0)
    0.5
    """
    if backoff is None:
        return 0.0
    longest = min(float(backoff.max), backoff.min * 2.0 ** min(failures, 64))
    return longest * (1.0 - backoff.jitter * chance)
