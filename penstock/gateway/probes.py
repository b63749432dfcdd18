"""What the gateway has seen of the probes of ``penstock doctor``. Pure: the time is passed in."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.gateway.problems import Problem, RequestRefused

__all__ = ["Probe", "ProbeState", "Probes"]

ProbeState: TypeAlias = Literal["running", "complete", "left", "cut"]
"""``"left"``: the client has closed the connection. ``"cut"``: the gateway has ended the response early."""

_KEPT: Final = 1_000
_AT_ONCE: Final = 100


class Probe(msgspec.Struct):
    """One probe.

    Attributes:
        began: on the loop's clock.
        sent: how many frames have been sent.
        after: seconds from its beginning to its end; None while it runs.
    """

    began: float
    state: ProbeState = "running"
    sent: int = 0
    after: float | None = None

    def end(self, state: ProbeState, now: float) -> None:
        """Keep how it has ended. Its first end counts."""
        if self.state == "running":
            self.state = state
            self.after = now - self.began


class Probes:
    """The last 1,000 probes by key and id."""

    def __init__(self) -> None:
        self._probes: OrderedDict[tuple[str, str], Probe] = OrderedDict()
        self._running: list[Probe] = []  # also those that were forgotten, and ended ones until the next begins

    def begin(self, key_id: str, probe_id: str, now: float) -> Probe:
        """Enter a new probe; an earlier one of the same id is forgotten.

        Raises:
            RequestRefused: 100 probes are running (429).
        """
        self._running = [one for one in self._running if one.state == "running"]
        if len(self._running) >= _AT_ONCE:
            text = f"{_AT_ONCE} probes are running. Try again in a minute."
            raise RequestRefused(
                Problem(status=429, type="rate_limit_error", code="too_many_probes", message=text, retry_after=60.0)
            )
        probe = self._probes[key_id, probe_id] = Probe(now)
        self._probes.move_to_end((key_id, probe_id))
        self._running.append(probe)
        while len(self._probes) > _KEPT:
            self._probes.popitem(last=False)
        return probe

    def find(self, key_id: str, probe_id: str) -> Probe:
        """A key's probe by its id.

        Raises:
            RequestRefused: there is none (404).
        """
        found = self._probes.get((key_id, probe_id))
        if found is None:
            text = "No probe with this id has arrived here."
            raise RequestRefused(Problem(status=404, type="not_found_error", code="probe_not_found", message=text))
        return found
