"""The rows of the table of streams: which streams are shown, and what of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.table import StreamTable
from penstock.events import StreamCompleted, StreamFailed
from penstock.gateway.board.pace import Speed, settling, short
from penstock.gateway.board.sheets import Row

__all__ = ["COLUMNS", "MOST_ROWS", "Listing", "outcome_of"]

COLUMNS: Final = (
    "id", "state", "provider", "model", "created", "tokens", "speed", "ttft_ms", "last", "readers", "buffer",
    "attempts", "errors", "restarts",
)  # fmt: skip
"""``created`` and ``last``, the time of the last token, are Unix times; ``last`` is 0 while tokens flow, that is, if
the last one came less than a second ago. ``buffer`` is per cent of the room,
in tens, rounded up. None: not yet."""
MOST_ROWS: Final = 200

_STAYS: Final = {"completed": 10.0, "cancelled": 10.0, "failed": 60.0}  # seconds after the end
_NEWEST: Final = 50  # of the last opened streams, those that have ended are looked for
_SILENT: Final = 5.0  # seconds
_CHOOSES: Final = 0.9  # seconds from one choice of the streams to the next
_FLOWS: Final = 1.0  # seconds since the last token
_TROUBLE: Final = ("error", "rate_limited", "paused", "failed")


class Listing:
    """Chooses the streams that are shown, and keeps what is needed to say how fast they are.

    All are shown if there are at most `MOST_ROWS`. Else those that fail, wait or are silent come first, and of the
    others those that have been shown before, so that rows do not come and go.

    Args:
        table: the system's streams.
        readers: returns a function that counts the connections and subscribers of a stream. Called once a frame.
    """

    def __init__(self, table: StreamTable, readers: Callable[[], Callable[[StreamRecord], int]]) -> None:
        self._table = table
        self._readers = readers
        self._speeds: dict[int, Speed] = {}  # by serial, of those that are shown
        self._seen: dict[int, StreamRecord] = {}  # that have ended not long ago
        self._looked = 0.0  # when, on the monotonic clock
        self._chosen = -_CHOOSES  # the same of the last choice
        self._shown: set[int] = set()
        self.more = 0
        """How many running ones are not shown."""
        self.states: dict[str, int] = {}
        """Running streams by state."""

    def rows(self, now: float, monotonic: float) -> Mapping[int, Row]:
        """The rows at a moment of the runtime's clock, by the streams' serial numbers, oldest first."""
        running = self._table.running()
        self.states = dict(Counter([record.state for record in running]))
        found = {record.serial: record for record in running}
        alive = set(found)
        self._note_ends(alive, monotonic)
        found |= self._seen
        chosen, self.more = found, 0
        if len(found) > MOST_ROWS:
            chosen = self._choose(found, monotonic)
            self.more = len(alive - chosen.keys())
        self._shown = set(chosen)
        for serial in self._speeds.keys() - chosen.keys():
            del self._speeds[serial]
        seconds = max(1e-3, monotonic - self._looked)
        self._looked, weight, offset = monotonic, settling(seconds), now - monotonic
        readers, row = self._readers(), self._row
        return {
            serial: row(record, offset, monotonic, seconds, weight, readers(record))
            for serial, record in sorted(chosen.items())
        }

    def _note_ends(self, running: set[int], now: float) -> None:
        for record in self._table.newest(_NEWEST):
            ended = record.ended_at
            if record.serial not in running and ended is not None and now - ended < _STAYS[outcome_of(record)]:
                self._seen[record.serial] = record
        for serial, record in list(self._seen.items()):
            if now - (record.ended_at or 0.0) >= _STAYS[outcome_of(record)]:
                del self._seen[serial]

    def _choose(self, found: Mapping[int, StreamRecord], now: float) -> dict[int, StreamRecord]:
        if now - self._chosen < _CHOOSES:
            kept = {serial: found[serial] for serial in self._shown if serial in found}
            if len(kept) == MOST_ROWS:
                return kept
        self._chosen = now
        ranked = sorted(found, key=lambda serial: (self._rank(found[serial], now), serial not in self._shown, serial))
        return {serial: found[serial] for serial in ranked[:MOST_ROWS]}

    def _rank(self, record: StreamRecord, now: float) -> int:
        """0: it is in trouble; 1: it is silent; 2: neither; 3: it has ended well."""
        if record.is_over:
            return 0 if outcome_of(record) == "failed" else 3
        if record.state in _TROUBLE or record.counters.errors or record.counters.failed_attempts:
            return 0
        counters = record.counters
        since = record.created_monotonic if counters.first_delivery is None else counters.last_delivery
        return 1 if now - since > _SILENT else 2

    def _row(
        self, record: StreamRecord, offset: float, monotonic: float, seconds: float, weight: float, readers: int
    ) -> Row:
        log, counters, feed = record.log, record.counters, record.feed
        tokens = log.tokens
        provider, model = record.source()
        first, last = counters.first_delivery, counters.last_delivery
        is_over = log.terminal is not None
        if is_over:
            state, rate = outcome_of(record), record.metrics().tokens_per_second
        else:
            state = record.state
            speed = self._speeds.get(record.serial)
            if speed is None:
                speed = self._speeds[record.serial] = Speed(tokens)
                rate = 0.0
            else:
                rate = speed.after(seconds, tokens, weight)
        is_flowing = monotonic - last < _FLOWS and not is_over
        size, bound = record.intake.buffer.size, record.options.max_buffer_size
        return (
            record.stream_id,
            state,
            provider,
            model,
            int(record.created_at),
            tokens,
            int(rate + 0.5) if rate >= 1 else short(rate, 1),
            None if first is None else round((first - record.created_monotonic) * 1000),
            None if first is None else 0 if is_flowing else round(last + offset, 1),
            readers,
            min(100, -(-10 * size // bound) * 10) if size and bound else 0,
            0 if feed is None else feed.attempts,
            counters.errors + counters.failed_attempts + counters.tool_errors,
            counters.restarts,
        )


def outcome_of(record: StreamRecord) -> str:
    """How a stream has ended: ``"completed"``, ``"failed"`` or ``"cancelled"``; of a running one, its state."""
    match record.log.terminal:
        case None:
            return record.state
        case StreamCompleted():
            return "completed"
        case StreamFailed():
            return "failed"
        case _:
            return "cancelled"
