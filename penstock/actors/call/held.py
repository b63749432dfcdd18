"""What an attempt receives before the answer begins, and that does not begin it. Pure."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from penstock.actors.stream.buffer import PartStart
from penstock.actors.stream.weights import cost_of
from penstock.events import ProviderEvent, SideEvent

__all__ = ["Held"]

_MOST: Final = 4 * 1_048_576
"""Bytes of raw events that are held. The first one is held in any case."""

_Item: TypeAlias = Any
"""A `SideEvent`, or the start of a part."""


class Held:
    """Events that are held back until the answer begins: an attempt that fails before may be retried.

    If no further attempt follows, they are the last events of the stream. Raw events are bounded in bytes; the others
    by the length of the answer (``max_answer_bytes``), as the starts of parts replace one another.
    """

    __slots__ = ("_items", "_weight", "dropped")

    def __init__(self) -> None:
        self.dropped = 0
        """How many raw events there was no room for."""
        self._items: list[_Item] = []
        self._weight = 0

    def add(self, item: _Item) -> None:
        """Hold an item."""
        if item.__class__ is ProviderEvent:
            weight = cost_of(item)
            if self._weight and self._weight + weight > _MOST:
                self.dropped += 1
                return
            self._weight += weight
        elif item.__class__ is PartStart and self._items and self._items[-1].__class__ is PartStart:
            self._items.pop()
        self._items.append(item)

    def take(self) -> list[_Item]:
        """Give everything up, in order."""
        items, self._items = self._items, []
        return items

    def take_events(self) -> list[SideEvent]:
        """Give everything up; returns the events of an answer that has no text."""
        return [item for item in self.take() if item.__class__ is not PartStart]
