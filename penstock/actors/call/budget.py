"""The budget of retries: when much fails at once, retries must not multiply the load. Pure: the time is passed in."""

from __future__ import annotations

from typing import Final

from penstock.config.limits import RetryBudgetOptions

__all__ = ["RetryBudget"]

_SLICES: Final = 20


class RetryBudget:
    """Allows ``floor + ratio × requests`` retries, counted over the ``window`` seconds before each of them.

    It counts by slices of a twentieth of the window, so it needs the same small memory whatever the load. A slice that
    lies partly in the window counts whole for retries and not at all for requests: it errs to the strict side.

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
        self._latest = 0  # the number of the slice that is being written
        self._requests = [0] * (_SLICES + 1)
        self._retries = [0] * (_SLICES + 1)

    def note_request(self, now: float) -> None:
        """A request is made for the first time."""
        if self._options.ratio is not None:
            self._requests[self._turn_to(now)] += 1

    def may_retry(self, now: float) -> bool:
        """Whether one retry is allowed; if so, it is taken."""
        options = self._options
        if options.ratio is None:
            return True
        place = self._turn_to(now)
        oldest = (place + 1) % (_SLICES + 1)  # lies in the window with a part only
        requests = sum(self._requests) - self._requests[oldest]
        if sum(self._retries) + 1 > options.floor + options.ratio * requests:
            return False
        self._retries[place] += 1
        return True

    def _turn_to(self, now: float) -> int:
        """Forget what is older than the window; returns the place of the present slice."""
        number = int(now * _SLICES / self._options.window)
        for gone in range(self._latest + 1, min(number, self._latest + _SLICES + 1) + 1):
            self._requests[gone % (_SLICES + 1)] = self._retries[gone % (_SLICES + 1)] = 0
        self._latest = max(self._latest, number)
        return self._latest % (_SLICES + 1)
