"""What is known of an endpoint for deciding on a second attempt: how soon its models answer, and how many it may get.

`FirstTokens` and `HedgeBudget` only compute. `Hedging` has one of each under a lock; every gate has a `Hedging`.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Final

__all__ = ["FirstTokens", "HedgeBudget", "Hedging"]

_KEPT: Final = 200  # first-token times of a model
_ENOUGH: Final = 20  # of them, before their quantile is taken
_UNTIL_THEN: Final = 2.0  # seconds
_SHORTEST: Final = 0.2  # seconds; the least and the most that `FirstTokens.p95` returns
_LONGEST: Final = 30.0
_MODELS: Final = 256  # callers may pass any model's name: above this number, the one used longest ago is dropped
_MOST_SAVED: Final = 3.0  # hedges that a budget can save


class FirstTokens:
    """The last 200 first-token times of one model.

    >>> times = FirstTokens()
    >>> for number in range(19):
    ...     times.note(5.0)
    >>> times.p95()
    2.0
    >>> times.note(5.0)
    >>> times.p95()
    5.0
    """

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_KEPT)

    def note(self, seconds: float) -> None:
        """Note that an answer began after so many seconds, or not before."""
        self._seconds.append(seconds)

    def p95(self) -> float:
        """The seconds after which 95 of 100 answers have begun, within 0.2 … 30; under 20 known times, 2.0."""
        if len(self._seconds) < _ENOUGH:
            return _UNTIL_THEN
        ordered = sorted(self._seconds)
        return min(max(ordered[math.ceil(0.95 * len(ordered)) - 1], _SHORTEST), _LONGEST)


class HedgeBudget:
    """A bucket of further attempts: each call adds a share of one, and at most three are saved. It begins full.

    >>> budget = HedgeBudget()
    >>> [budget.take() for _ in range(4)]
    [True, True, True, False]
    >>> for _ in range(10):
    ...     budget.add(0.1)
    >>> budget.take()
    True
    """

    __slots__ = ("_saved",)

    def __init__(self) -> None:
        self._saved = _MOST_SAVED

    def add(self, share: float) -> None:
        """Note a call, which adds ``share`` of an attempt."""
        self._saved = min(_MOST_SAVED, self._saved + share)

    def take(self) -> bool:
        """Whether one more attempt may be made; if so, it is counted."""
        if self._saved < 1 - 1e-9:  # ten times 0.1 is one
            return False
        self._saved -= 1
        return True


class Hedging:
    """The first-token times of an endpoint's models, and its budget of further attempts. Any thread may use it."""

    __slots__ = ("_budget", "_lock", "_models")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._budget = HedgeBudget()
        self._models: dict[str, FirstTokens] = {}  # the one used last is the last

    def note_first_token(self, model: str, seconds: float) -> None:
        """Note how long after it was sent a request got its first delta, or that it had none after so long."""
        with self._lock:
            times = self._models.pop(model, None) or FirstTokens()
            self._models[model] = times
            times.note(seconds)
            if len(self._models) > _MODELS:
                del self._models[next(iter(self._models))]

    def p95(self, model: str) -> float:
        """See `FirstTokens.p95`."""
        with self._lock:
            times = self._models.get(model)
            return _UNTIL_THEN if times is None else times.p95()

    def note_call(self, share: float) -> None:
        """See `HedgeBudget.add`."""
        with self._lock:
            self._budget.add(share)

    def take(self) -> bool:
        """See `HedgeBudget.take`."""
        with self._lock:
            return self._budget.take()
