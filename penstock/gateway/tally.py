"""What a gateway counts for telemetry. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from penstock.actors.stream.histograms import Histogram
from penstock.telemetry.gateway import (
    LAG_BOUNDS,
    OVERHEAD_BOUNDS,
    GatewayRefusal,
    GatewayStatistics,
    ReaderOutcome,
    ReaderResumption,
)

__all__ = ["GatewayTally"]


class GatewayTally:
    """The counters. Written on the gateway's loop; any thread may read."""

    def __init__(self) -> None:
        self._outcomes: Counter[tuple[str, ReaderOutcome]] = Counter()
        self._resumptions: Counter[ReaderResumption] = Counter()
        self._lag = Histogram(LAG_BOUNDS)
        self._overhead = Histogram(OVERHEAD_BOUNDS)

    def reader_gone(self, protocol: str, outcome: ReaderOutcome) -> None:
        """Count a reader that is gone."""
        self._outcomes[protocol, outcome] += 1

    def resumed(self, result: ReaderResumption) -> None:
        """Count a reader that came with a cursor."""
        self._resumptions[result] += 1

    def lagged(self, size: int) -> None:
        """Note a reader's lag, in bytes."""
        self._lag.add(size)

    def spent(self, seconds: float) -> None:
        """Note how long the gateway itself took for a request."""
        self._overhead.add(seconds)

    def statistics(
        self, *, requests: int, readers: Sequence[str], is_draining: bool, refused: Mapping[GatewayRefusal, int]
    ) -> GatewayStatistics:
        """The counters at this moment. ``readers``: the protocol of each."""
        return GatewayStatistics(
            requests=requests,
            readers=Counter(readers),
            reader_outcomes=dict(self._outcomes),
            resumptions=dict(self._resumptions),
            reader_lag=self._lag.snapshot(),
            overhead=self._overhead.snapshot(),
            is_draining=is_draining,
            refused=refused,
        )
