"""The subscriber that reads a stream for all readers of one protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.hub import Subscription
from penstock.actors.stream.record import StreamRecord
from penstock.config.logs import get_logger
from penstock.errors import Fenced, describe_reason
from penstock.events import (
    Event,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamStarted,
    TerminalEvent,
    ToolApprovalRequested,
)
from penstock.gateway.problems import MOVED, UNSHOWN, Problem
from penstock.gateway.projections.frames import Projection
from penstock.gateway.shelf import Shelf
from penstock.gateway.ticker import Ticker
from penstock.telemetry.gateway import ReaderInfo

__all__ = ["SLICE", "UNMERGED", "Projector", "projection_failed", "tokens_lost"]

SLICE: Final = 500
"""Events that are read at once; the loop does its other work before the next ones."""
UNMERGED: Final = 1_000_000
"""The window of a cursor that merges nothing: frames are joined for each reader, so that their numbers are the same."""


class Projector(Subscription):
    """Makes the frames of one stream in one protocol, once, and wakes the readers.

    It is a subscriber of the stream while it has readers. Its frames stay when they have left. All methods but `wake`
    are called on the gateway's loop.
    """

    __slots__ = (
        "_is_continued",
        "_ticker",
        "_wakers",
        "deny",
        "error",
        "first",
        "is_behind",
        "record",
        "shelf",
        "terminal",
    )

    is_prompt = True

    def __init__(self, record: StreamRecord, projection: Projection, ticker: Ticker, retain_bytes: int) -> None:
        super().__init__(record.hub, Cursor(record.log, 0, "coalesce", UNMERGED), None)
        self.is_active = False
        self.record = record
        self.shelf = Shelf(projection, retain_bytes)
        self.first: Event | None = None  # the first event that is no `StreamStarted`
        self.terminal: TerminalEvent | None = None
        self.error: BaseException | None = None  # of the projection: a fault of ours
        self.deny: Callable[[str], None] | None = None  # called with each call that waits for approval
        self.is_behind = False  # the log has more than has been read
        self._is_continued = False  # the rest is read when the loop has done its other work
        self._ticker = ticker
        self._wakers: dict[int, Callable[[], None]] = {}

    @property
    def readers(self) -> int:
        """How many readers it has."""
        return len(self._wakers)

    @property
    def is_over(self) -> bool:
        """Whether no more frames will come."""
        return self.terminal is not None or self.error is not None or self.shelf.projection.is_over

    @property
    def problem(self) -> Problem:
        """Why no more frames come, where ``error`` is set."""
        return MOVED if isinstance(self.error, Fenced) else UNSHOWN

    def reader_info(self, place: int, key: str) -> ReaderInfo:
        """What is reported to telemetry about a reader that has had the frames up to a place."""
        shelf = self.shelf
        return ReaderInfo(
            stream_id=self.record.stream_id,
            protocol=shelf.projection.name,
            key=key,
            seq=shelf.seq_at(place),
            lag_bytes=shelf.bytes_after(place),
            place=place,
            frames=shelf.end,
        )

    def attach(self, reader: object, wake: Callable[[], None]) -> None:
        """Add a reader. ``wake`` is called on the loop when there are new frames."""
        self._wakers[id(reader)] = wake
        if not self.is_active and self.terminal is None:
            self.is_active = True
            self._hub.add(self)
        self.pump()

    def detach(self, reader: object) -> None:
        """Remove a reader. After the last one, the stream's ``on_orphan`` applies."""
        if self._wakers.pop(id(reader), None) is not None and not self._wakers and self.is_active:
            self.unsubscribe()

    def wake(self) -> None:
        self._ticker.note(self)

    async def catch_up(self) -> None:
        """Read all that the log has, in slices, between which the loop does its other work."""
        self.pump()
        while self.is_behind:
            await asyncio.sleep(0)  # `_continue` reads on

    def _continue(self) -> None:
        self._is_continued = False
        if self.is_behind:
            self.pump()

    def pump(self) -> None:
        """Read what is new, and wake the readers. Of very much it reads a part, and the rest soon.

        A fault is logged, and ends the readers.
        """
        try:
            self._read()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        projection_failed(self.record, self.shelf.projection, error)
        if not self.is_over:
            self.error = error
        self.is_behind = False
        self._wake_readers()
        if self.is_active:
            self.unsubscribe()

    def _wake_readers(self) -> None:
        for wake in list(self._wakers.values()):
            try:
                wake()
            except Exception as error:  # a fault of ours, which must not keep the others
                get_logger(stream_id=self.record.stream_id).error(
                    "reader_failed", reason=describe_reason(error), exc_info=error
                )

    def _read(self) -> None:
        cursor, shelf = self._cursor, self.shelf
        before = shelf.end
        if self.is_over:
            return
        self.is_behind = False
        left = SLICE
        try:
            while (event := cursor.take()) is not None:
                if isinstance(event, StreamFailed) and isinstance(event.error, Fenced):
                    self.error = event.error  # of this process alone: the stream goes on, and so may its readers
                    break
                if self.first is None and type(event) is not StreamStarted:
                    self.first = event
                shelf.add(shelf.projection.feed(event))
                if type(event) is ToolApprovalRequested and self.deny is not None:
                    self.deny(event.call.id)
                if isinstance(event, (StreamCompleted, StreamFailed, StreamCancelled)):
                    self.terminal = event
                    tokens_lost(self.record, shelf.projection)
                    break
                left -= 1
                if not left:
                    self.is_behind = True
                    break
            if self.terminal is None and self.error is None and not self.is_behind:
                shelf.add(shelf.projection.caught_up())
                if shelf.projection.is_over:  # it waits for the next request, which no reader may be needed to await
                    self.record.on_orphan = "continue"
        except Exception as error:
            self.error = error
            projection_failed(self.record, shelf.projection, error)
        if self.is_over and self.is_active:
            self.unsubscribe()
        if self.is_over:
            self.is_behind = False
        if self.is_behind and not self._is_continued:
            self._is_continued = True
            self._ticker.loop.call_soon(self._continue)
        if shelf.end != before or self.is_over:
            self._wake_readers()


def tokens_lost(record: StreamRecord, projection: Projection) -> None:
    """Log at the end of a stream how many tokens it has dropped, if there are any."""
    if projection.lost:
        get_logger(stream_id=record.stream_id).warning(
            "tokens_dropped", protocol=projection.name, tokens=projection.lost
        )


def projection_failed(record: StreamRecord, projection: Projection, error: Exception) -> None:
    """Log a fault of a projection."""
    get_logger(stream_id=record.stream_id).error(
        "projection_failed", protocol=projection.name, reason=describe_reason(error), exc_info=error
    )
