"""Cursors: how each subscriber reads a log at its own pace. Pure; who owns a cursor serialises its use.

A cursor is *slow* when more than ``window`` events wait for it. What happens then is its own policy; nobody else
notices, except with ``"block"``, which the stream honours by not emitting.
"""

from __future__ import annotations

from penstock.actors.flow.log import StreamLog
from penstock.config.options import Slow
from penstock.errors import SubscriberTooSlow
from penstock.events import Event, StreamReset, StreamSnapshot, TokenEvent, TokenKind

__all__ = ["Cursor"]


class Cursor:
    """A place in a log, and what to do when it falls behind.

    Args:
        log: what is read.
        after: the number behind which to start; 0 is the beginning.
        slow: ``"block"``, ``"coalesce"``, ``"drop"`` or ``"disconnect"``.
        window: how many events may wait before it counts as slow.

    What is in the log already when the cursor is made is given event by event, whatever the policy.
    """

    __slots__ = ("_live_from", "_offsets", "_waiting", "coalesced", "dropped", "log", "seq", "slow", "window")

    def __init__(self, log: StreamLog, after: int, slow: Slow, window: int) -> None:
        self.log = log
        self.seq = min(after, log.last_seq)
        self.slow = slow
        self.window = window
        self.dropped = 0  # tokens this subscriber did not get
        self.coalesced = 0  # events that were merged into others
        self._live_from = log.last_seq
        self._offsets: dict[TokenKind, int] | None = {} if after == 0 else None  # characters given, by kind
        self._waiting: list[Event] = []

    @property
    def pending(self) -> int:
        """How many events wait."""
        return self.log.last_seq - self.seq + len(self._waiting)

    @property
    def is_slow(self) -> bool:
        """Whether more wait than its window allows (history at the start does not count)."""
        return self.log.last_seq - max(self.seq, self._live_from) > self.window

    def take(self) -> Event | None:
        """The next event to give, or None if there is none yet.

        Raises:
            SubscriberTooSlow: the policy is ``"disconnect"`` and it is slow.
        """
        if self._waiting:
            return self._give(self._waiting.pop(0))
        if self.seq >= self.log.last_seq:
            return None
        if self.slow != "block" and self.is_slow:
            if self.slow == "disconnect":
                raise SubscriberTooSlow(self.log.stream_id, self.window)
            if self.slow == "coalesce":
                return self._give(self._merge())
            self._skip()
            if self._waiting:
                return self._give(self._waiting.pop(0))
        event = self.log.get(self.seq + 1)
        return self._give(event if event is not None else self._folded())

    def _give(self, event: Event) -> Event:
        self.seq = max(self.seq, event.seq)
        offsets = self._offsets
        if isinstance(event, StreamSnapshot):
            self._offsets = {
                "text": len(event.text),
                "reasoning": len(event.reasoning),
                "refusal": len(event.refusal),
            }
        elif isinstance(event, StreamReset):
            self._offsets = {}
        elif offsets is not None and isinstance(event, TokenEvent):
            offsets[event.kind] = offsets.get(event.kind, 0) + len(event.text)
        return event

    def _merge(self) -> Event:
        """All that waits up to the next change of kind, as one event."""
        first = self.log.get(self.seq + 1)
        if first is None:
            return self._folded()
        if not isinstance(first, TokenEvent):
            return first
        tokens = list(first.tokens)
        last = first
        dropped = first.dropped
        while isinstance(event := self.log.get(last.seq + 1), TokenEvent) and event.kind == first.kind:
            tokens += event.tokens
            dropped += event.dropped
            last = event
            self.coalesced += 1
        return TokenEvent(
            first.stream_id,
            last.seq,
            tuple(tokens),
            "".join(tokens),
            first.kind,
            last.timestamp,
            first.metadata,
            dropped,
        )

    def _skip(self) -> None:
        """Drop the oldest waiting token events, so that ``window`` remain; what is no token event is not dropped."""
        goal = self.log.last_seq - self.window
        lost = 0
        while self.seq < goal:
            event = self.log.get(self.seq + 1)
            if event is None:  # folded away: it is behind us in any case
                self.seq = min(goal, self.log.first_seq - 1)
                continue
            if not isinstance(event, TokenEvent):
                break
            lost += len(event.tokens)
            self.seq = event.seq
        self.dropped += lost
        self._offsets = None
        event = self.log.get(self.seq + 1)
        if lost and isinstance(event, TokenEvent):
            self._waiting.append(
                TokenEvent(
                    event.stream_id,
                    event.seq,
                    event.tokens,
                    event.text,
                    event.kind,
                    event.timestamp,
                    event.metadata,
                    event.dropped + lost,
                )
            )

    def _folded(self) -> Event:
        """What was folded away before it could be given.

        A cursor that has read from the beginning gets just what it misses; one that came in somewhere in the middle
        gets the snapshot, which says that it takes the place of everything before.
        """
        snapshot = self.log.snapshot()
        assert snapshot is not None
        if not self._offsets or self.log.folded_reset > self.seq:
            return snapshot
        base, missing = self.log.folded_since(self._offsets)
        events: list[Event] = [
            TokenEvent(self.log.stream_id, base, (text,), text, kind, snapshot.timestamp, self.log.metadata)
            for kind, text in missing.items()
        ]
        if not events:
            return snapshot
        self._waiting = events[1:]
        return events[0]
