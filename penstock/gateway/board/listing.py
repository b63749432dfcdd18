"""The rows of the table of streams: which streams are shown, and what of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.table import StreamTable
from penstock.events import StreamCompleted, StreamFailed
from penstock.gateway.board.pace import Speed, short
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
_TROUBLE: Final = ("error", "rate_limited", "paused", "failed")


class Listing:
    """Chooses the streams that are shown, and keeps what is needed to tell how fast they are.

    All are shown if there are at most `MOST_ROWS`. Else those that fail, wait or are silent come first, and of the
    others those that have been shown before, so that rows do not come and go.

    Args:
        table: the system's streams.
        readers: how many connections and others read a stream.
    """

    def __init__(self, table: StreamTable, readers: Callable[[StreamRecord], int]) -> None:
        self._table = table
        self._readers = readers
        self._speeds: dict[int, Speed] = {}  # by serial, of those that are shown
        self._seen: dict[int, StreamRecord] = {}  # that have ended not long ago
        self._shown_rates: dict[int, float] = {}
        self._shown: set[int] = set()
        self.more = 0
        """How many running ones are not shown."""
        self.states: dict[str, int] = {}
        """Running streams by state."""

    def rows(self, now: float, monotonic: float) -> Mapping[int, Row]:
        """The rows at a moment of the runtime's clock, by the streams' serial numbers, oldest first."""
        running = self._table.running()
        self.states = dict(Counter([record.state for record in running]))
        self._note_ends({record.serial for record in running}, monotonic)
        found = {record.serial: record for record in running}
        found |= self._seen
        chosen = self._choose(found, monotonic) if len(found) > MOST_ROWS else found
        self.more = sum(record.serial not in chosen for record in running)
        self._shown = set(chosen)
        for serial in self._speeds.keys() - chosen.keys():
            del self._speeds[serial], self._shown_rates[serial]
        return {serial: self._row(chosen[serial], now, monotonic) for serial in sorted(chosen)}

    def _note_ends(self, running: set[int], now: float) -> None:
        for record in self._table.newest(_NEWEST):
            ended = record.ended_at
            if record.serial not in running and ended is not None and now - ended < _STAYS[outcome_of(record)]:
                self._seen[record.serial] = record
        for serial, record in list(self._seen.items()):
            if now - (record.ended_at or 0.0) >= _STAYS[outcome_of(record)]:
                del self._seen[serial]

    def _choose(self, found: Mapping[int, StreamRecord], now: float) -> dict[int, StreamRecord]:
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

    def _row(self, record: StreamRecord, now: float, monotonic: float) -> Row:
        counters, feed, tokens = record.counters, record.feed, record.log.tokens
        provider, model = record.source()
        first, last = counters.first_delivery, record.last_token_time
        if record.is_over:
            state, rate = outcome_of(record), record.metrics().tokens_per_second
        else:
            state = record.state
            speed = self._speeds.get(record.serial)
            if speed is None:
                speed = self._speeds[record.serial] = Speed(monotonic, tokens)
            rate = speed.at(monotonic, tokens)
            rate = self._shown_rates[record.serial] = _steady(rate, self._shown_rates.get(record.serial))
        is_flowing = last is not None and now - last < 1.0 and not record.is_over
        return (
            record.stream_id,
            state,
            provider,
            model,
            round(record.created_at),
            tokens,
            round(rate) if rate >= 1 else short(rate, 1),
            None if first is None else round((first - record.created_monotonic) * 1000),
            0 if is_flowing else None if last is None else round(last, 1),
            self._readers(record),
            min(100, -(-10 * record.intake.size // record.options.max_buffer_size) * 10),
            0 if feed is None else feed.attempts,
            counters.errors + counters.failed_attempts + counters.tool_errors,
            counters.restarts,
        )


def _steady(rate: float, shown: float | None) -> float:
    """A rate as it is shown: what was shown, while it differs by less than a twentieth."""
    return shown if shown is not None and abs(rate - shown) < shown / 20 else rate


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
