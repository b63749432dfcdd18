"""The retry budget: when many requests fail at once, retries must not multiply the load. Pure; takes the time."""

from __future__ import annotations

from typing import Final

from penstock.config.limits import RetryBudgetOptions

__all__ = ["RetryBudget"]

_SLICES: Final = 20  # of a window
_KEPT: Final = _SLICES + 1  # the oldest lies only partly in the window


class RetryBudget:
    """Allows ``floor + ratio × requests`` retries, counted over the ``window`` seconds before each of them.

    It counts in slices of a twentieth of the window, so its memory does not depend on the load. A slice that lies only
    partly in the window counts in full for retries and not at all for requests, which errs to the strict side.

    >>> budget = RetryBudget(RetryBudgetOptions(ratio=0.5, floor=1, window=10))
    >>> budget.note_request(now=0.0)
    >>> budget.note_request(now=0.0)
    >>> [budget.may_retry(now=1.0) for _ in range(3)]
    [True, True, False]
    >>> budget.may_retry(now=12.0)
    True
    """

    __slots__ = ("_latest", "_options", "_requests", "_retries")

    def __init__(self, options: RetryBudgetOptions) -> None:
        self._options = options
        self._latest = 0  # the number of the present slice
        self._requests = [0] * _KEPT
        self._retries = [0] * _KEPT

    def note_request(self, now: float) -> None:
        """Note a request that is made for the first time."""
        self._requests[self._advance_to(now)] += 1

    def may_retry(self, now: float) -> bool:
        """Whether one retry is allowed; if so, it is counted."""
        options = self._options
        if options.ratio is None:
            return True
        index = self._advance_to(now)
        oldest = (index + 1) % _KEPT
        requests = sum(self._requests) - self._requests[oldest]
        if sum(self._retries) + 1 > options.floor + options.ratio * requests:
            return False
        self._retries[index] += 1
        return True

    def _advance_to(self, now: float) -> int:
        """Clear the slices that are older than the window; returns the index of the present one."""
        number = int(now * _SLICES / self._options.window)
        for stale in range(self._latest + 1, min(number, self._latest + _KEPT) + 1):
            self._requests[stale % _KEPT] = self._retries[stale % _KEPT] = 0
        self._latest = max(self._latest, number)
        return self._latest % _KEPT
