"""What the owner of a log concludes when the store refuses an entry: go on behind the tail that it found, or stop."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from penstock.ports import EMPTY, EntryId

__all__ = ["GoOn", "conclude"]


class GoOn(msgspec.Struct, frozen=True):
    """The store has lost entries of the owner, or has more of them than it had confirmed. The log is still the owner's.

    Attributes:
        tail: the entry after which it goes on.
        after: write all events after this number, from memory.
        is_mark_lost: write the first owner mark before them.
    """

    tail: EntryId
    after: int
    is_mark_lost: bool = False


def conclude(tail: EntryId, base: EntryId, own: Mapping[int, int]) -> GoOn | None:
    """What to do after a refusal; None: another owner has the log, so stop.

    Args:
        tail: the answer of the store.
        base: the tail behind which the owner's first mark was put.
        own: the owner's epochs, oldest first; each with the number of the last event before its mark.

    An owner whose clock is behind may have taken the log over with a smaller epoch, so only `base` itself and an empty
    log show that no other owner's mark stands there.

    >>> own = {7: 4, 9: 6}
    >>> conclude(EntryId(7, 5), EntryId(3, 4), own)
    GoOn(tail=EntryId(epoch=7, seq=5), after=5, is_mark_lost=False)
    >>> conclude(EntryId(9, 0), EntryId(3, 4), own)
    GoOn(tail=EntryId(epoch=9, seq=0), after=6, is_mark_lost=False)
    >>> conclude(EntryId(3, 4), EntryId(3, 4), own)
    GoOn(tail=EntryId(epoch=3, seq=4), after=4, is_mark_lost=True)
    >>> conclude(EntryId(8, 0), EntryId(3, 4), own)
    """
    if tail.epoch in own:
        return GoOn(tail, tail.seq or own[tail.epoch])
    if tail == EMPTY:
        return GoOn(tail, 0, is_mark_lost=True)
    if tail == base:
        return GoOn(tail, next(iter(own.values())), is_mark_lost=True)
    return None
