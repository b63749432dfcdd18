"""Which of many things a look that comes once a second is at: all of a few, in turns a part of many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Generic, TypeVar

__all__ = ["Rounds"]

Thing = TypeVar("Thing")

_AT_LEAST: Final = 1000
_SHARE: Final = 10


class Rounds(Generic[Thing]):
    """Takes at least 1,000 things at a time, and a tenth of more than 10,000, so that ten times are a round at most.

    Things that leave meanwhile move others past the look, which has them in the next round.
    """

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0

    def part(self, things: Iterable[Thing]) -> list[Thing]:
        """Return those that come next."""
        all_things = list(things)
        count = len(all_things)
        begin = self._next if self._next < count else 0
        self._next = end = begin + max(_AT_LEAST, -(-count // _SHARE))
        return all_things[begin:end]
