"""How long a stream collects tokens, if its batch size is adaptive. Pure: the time is passed in.

No size is learnt: a stream takes what waits, so a batch is as large as what came while the last one was delivered.
Only a stream that is busy waits for more, which costs fewer and larger events. A rule that shrinks the batch when
readers lag makes more events of the same tokens, so readers lag more; hence there is none.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["BatchSizer"]

_AVERAGE: Final = 0.5  # seconds over which the share of work is averaged
_FROM: Final = 0.25  # the share from which it waits
_FULL: Final = 0.25  # and how much more for the longest wait


class BatchSizer:
    """The collecting of one stream.

    Args:
        target_latency: seconds; it waits for half of it at most.
        now: monotonic seconds.

    >>> sizer = BatchSizer(target_latency=0.05, now=0.0)
    >>> sizer.wait(now=0.0)
    0.0
    >>> sizer.worked(0.0, 10.0, tokens=900, batches=10)
    >>> sizer.wait(now=10.0), sizer.wait(now=12.0)
    (0.025, 0.0)
    """

    __slots__ = ("_batches", "_busy", "_known_at", "_mean", "_tokens", "target_latency")

    def __init__(self, target_latency: float, now: float) -> None:
        self.target_latency = target_latency
        self._busy = 0.0
        self._known_at = now
        self._tokens = 0.0  # delivered, each batch forgotten as `_busy` is
        self._batches = 0.0
        self._mean = 0.0

    def busy(self, now: float) -> float:
        """The share of the time that the stream works, 0.0 … 1.0, averaged over half a second."""
        return self._busy * math.exp(-max(0.0, now - self._known_at) / _AVERAGE)

    def wait(self, now: float) -> float:
        """Seconds to wait for further tokens after the first one that waits: 0.0 … half of ``target_latency``."""
        share = (self.busy(now) - _FROM) / _FULL
        return self.target_latency / 2 * min(max(share, 0.0), 1.0)

    def worked(self, began: float, ended: float, tokens: int, batches: int) -> None:
        """Note that the stream worked from ``began`` to ``ended``, and delivered ``tokens`` in ``batches`` events."""
        forgotten = math.exp(-max(0.0, ended - self._known_at) / _AVERAGE)
        idle = 1.0 - self.busy(began)
        self._busy = 1.0 - idle * math.exp(-max(0.0, ended - began) / _AVERAGE)
        self._known_at = max(self._known_at, ended)
        self._tokens = self._tokens * forgotten + tokens
        self._batches = self._batches * forgotten + batches
        if batches:
            self._mean = self._tokens / self._batches

    def counters(self, now: float) -> dict[str, float]:
        """The fields of `StreamStatistics` that are of the batch size."""
        return {"batch_wait_s": self.wait(now), "busy": self.busy(now), "mean_batch": self._mean}
