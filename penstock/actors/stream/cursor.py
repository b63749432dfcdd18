"""Cursors: each subscriber reads the log at its own pace. Pure; the owner of a cursor serialises its use.

A cursor is *slow* when more than ``window`` events wait for it. Its policy then applies, without any effect on other
subscribers, except for ``"block"``: the stream emits nothing while such a cursor is slow.

Events that are not text are never merged and never dropped, except for the pieces of a call's arguments:
``"coalesce"`` joins those of one call, and ``"drop"`` drops them without counting, since `ToolCallCompleted` carries
the whole arguments.
"""

from __future__ import annotations

from collections import deque

import msgspec

from penstock.actors.stream.log import StreamLog
from penstock.config.options import Slow
from penstock.errors import SubscriberTooSlow
from penstock.events import (
    Event,
    SideEvent,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    TokenEvent,
    TokenKind,
    ToolCallDelta,
)

__all__ = ["Cursor"]

_REPORTS_DROPPED = (TokenEvent, StreamCompleted, StreamFailed, StreamCancelled)


class Cursor:
    """A position in a log, and the policy for a slow reader.

    Args:
        log: the log to read.
        after: events with a greater ``seq`` are read; 0 reads all.
        slow: ``"block"``, ``"coalesce"``, ``"drop"`` or ``"disconnect"``.
        window: how many events may wait before the cursor counts as slow.

    Events that are in the log before the cursor is made are delivered one by one, whatever the policy.
    """

    __slots__ = (
        "_counts",
        "_live_from",
        "_offsets",
        "_unreported",
        "_waiting",
        "coalesced",
        "dropped",
        "log",
        "seq",
        "slow",
        "window",
    )

    def __init__(self, log: StreamLog, after: int, slow: Slow, window: int) -> None:
        self.log = log
        self._live_from = last = log.last_seq
        self.seq = min(after, last)
        self.slow = slow
        self.window = window
        self.dropped = 0  # tokens this subscriber did not get
        self.coalesced = 0  # events that were merged into others
        self._unreported = 0  # dropped tokens that the next event has to report
        # Characters delivered, by kind; None if not known, or if the reader starts after the beginning was folded.
        self._offsets: dict[TokenKind, int] | None = None if after or log.first_seq > 1 else {}
        # The log's tokens, and its dropped tokens, up to `seq`; None if not known.
        self._counts: tuple[int, int] | None = (0, 0) if not after else log.counts_until(self.seq)
        self._waiting: deque[TokenEvent | SideEvent] | None = None  # folded events still to deliver

    @property
    def pending(self) -> int:
        """How many events wait."""
        return self.log.last_seq - self.seq

    @property
    def is_at_end(self) -> bool:
        """Whether it has read the terminal event, or started after it: no event will ever come."""
        end = self.log.terminal  # set before `last_seq`, so the numbers are compared
        return end is not None and self.seq >= end.seq

    @property
    def is_slow(self) -> bool:
        """Whether more than ``window`` events wait. Events from before the cursor was made do not count."""
        return self.log.last_seq - max(self.seq, self._live_from) > self.window

    def take(self) -> Event | None:
        """The next event, or None if there is none yet.

        Raises:
            SubscriberTooSlow: the cursor is slow and its policy is ``"disconnect"``.
        """
        log, slow = self.log, self.slow
        while self.seq < log.last_seq:
            if self._waiting:
                return self._give_folded()
            late = slow != "block" and self.is_slow
            if late and slow == "disconnect":
                raise SubscriberTooSlow(log.stream_id, self.window)
            late = late and self.seq >= self._live_from
            if late and slow == "drop":
                self._skip()
            event = log.get(self.seq + 1)
            if event is None:
                snapshot = self._catch_up()
                if snapshot is not None:
                    return snapshot
            elif late and slow == "coalesce":
                return self._give(self._merge(event))
            else:
                return self._give(event)
        return None

    def _give(self, event: Event) -> Event:
        """Deliver an event of the log, or several merged into one."""
        self.seq = event.seq
        if isinstance(event, TokenEvent):
            offsets, counts = self._offsets, self._counts
            if offsets is not None:
                offsets[event.kind] = offsets.get(event.kind, 0) + len(event.text)
            assert counts is not None  # it is known once an event of the log is not folded, see `_catch_up`
            self._counts = (counts[0] + len(event.tokens), counts[1] + event.dropped)
        elif isinstance(event, StreamReset):
            self._offsets = {} if event.origin is None else None  # how much the other origins have said is not known
            return event
        if self._unreported and isinstance(event, _REPORTS_DROPPED):
            event = msgspec.structs.replace(event, dropped=event.dropped + self._unreported)
            self._unreported = 0
        return event

    def _merge(self, first: Event) -> Event:
        """Merge ``first`` with the waiting events of the same kind and part that directly follow it."""
        if isinstance(first, TokenEvent):
            return self._merge_tokens(first)
        if isinstance(first, ToolCallDelta):
            return self._merge_pieces(first)
        return first

    def _merge_pieces(self, first: ToolCallDelta) -> ToolCallDelta:
        texts = [first.text]
        last = first
        while (
            isinstance(event := self.log.get(last.seq + 1), ToolCallDelta)
            and event.index == first.index
            and event.origin == first.origin
        ):
            texts.append(event.text)
            last = event
            self.coalesced += 1
        return msgspec.structs.replace(last, text="".join(texts))

    def _merge_tokens(self, first: TokenEvent) -> TokenEvent:
        tokens = list(first.tokens)
        last = first
        dropped = first.dropped
        while (
            isinstance(event := self.log.get(last.seq + 1), TokenEvent)
            and event.kind == first.kind
            and event.part == first.part
            and event.origin == first.origin
        ):
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
            last.metadata,
            dropped,
            first.part,
            first.phase,
            first.origin,
        )

    def _skip(self) -> None:
        """Drop the oldest waiting tokens and pieces of arguments until ``window`` remain, or another event is next."""
        log = self.log
        goal = log.last_seq - self.window
        while self.seq < goal and self._counts is not None:  # if not known, the snapshot is next
            tokens, dropped = self._counts
            event = log.get(self.seq + 1)
            if event is None:
                folded = log.folded_counts(self.seq)
                if folded is None:
                    return  # there is a reset, or a tool event
                self.seq, *new = folded
            elif isinstance(event, TokenEvent):
                self.seq, *new = event.seq, tokens + len(event.tokens), dropped + event.dropped
            elif isinstance(event, ToolCallDelta):
                self.seq = event.seq
                continue
            else:
                return
            lost = new[0] - tokens
            self.dropped += lost
            self._unreported += lost + new[1] - dropped
            self._counts = (new[0], new[1])
            self._offsets = None

    def _catch_up(self) -> StreamSnapshot | None:
        """Return a snapshot, or queue the missed events, when events were folded before this cursor read them.

        A cursor that was made before events were folded, at the beginning, gets exactly what it misses, in a few
        events, which are queued. One that was made later, started in the middle, or has read the reset of one origin
        gets the snapshot, which replaces everything before it.
        """
        log = self.log
        folded = log.folded_after(self.seq, self._offsets)
        counts, self._counts = self._counts, (folded.tokens, folded.dropped)
        snapshot = folded.snapshot
        if snapshot is not None:
            self.seq = snapshot.seq
            self._unreported = 0  # the snapshot has everything
            self._offsets = {
                "text": len(snapshot.text),
                "reasoning": len(snapshot.reasoning),
                "refusal": len(snapshot.refusal),
            }
            return snapshot
        assert counts is not None  # as the offsets were known
        self._unreported += folded.dropped - counts[1]
        self._waiting = deque(folded.rest)
        if not self._waiting:
            self.seq = folded.seq  # only empty tokens, or events that are not kept
        return None

    def _give_folded(self) -> Event:
        assert self._waiting
        event = self._waiting.popleft()
        self.seq = event.seq
        if not isinstance(event, TokenEvent):
            return event
        assert self._offsets is not None  # else the snapshot was given
        self._offsets[event.kind] = self._offsets.get(event.kind, 0) + len(event.text)
        if self._unreported:
            event = msgspec.structs.replace(event, dropped=self._unreported)
            self._unreported = 0
        return event
