"""Delivery: from the intake to the journal, the log, and word to the subscribers. No policy, no time-outs.

When something goes out is decided by the stream; here is how it goes out, so that nothing is lost or doubled whatever
breaks in between.
"""

from __future__ import annotations

import msgspec

from penstock.actors.stream.bucket import TokenBucket
from penstock.actors.stream.buffer import Batch
from penstock.actors.stream.messages import Cancel, Complete, Fail
from penstock.actors.stream.record import StreamRecord
from penstock.config.logs import get_logger
from penstock.errors import DeliveryError
from penstock.events import StreamReset, TerminalEvent, TokenEvent, ToolEvent

__all__ = ["Delivery"]


class Delivery:
    """What one incarnation of a stream's actor writes with: everything it does carries its epoch."""

    __slots__ = ("_clock", "_epoch", "_failures", "_hub", "_intake", "_log", "_record", "problem")

    def __init__(self, record: StreamRecord, epoch: int) -> None:
        self._record = record
        self._epoch = epoch
        self._log = record.log
        self._intake = record.intake
        self._hub = record.hub
        self._clock = record.runtime.clock
        self._failures = 0  # in a row
        self.problem: Exception | None = None
        """Why the last delivery failed; None if it was refused: the stream is over, or another actor has it."""

    def emit(self, limit: int, bucket: TokenBucket | None) -> bool:
        """Deliver one batch, or one tool event; returns whether that worked. If not, it is in the buffer again."""
        intake, log, record, clock = self._intake, self._log, self._record, self._clock
        seq = log.last_seq + 1
        batch, dropped = intake.take(limit, seq, self._epoch)
        self.problem = None
        if batch is None:  # thrown away in this very moment, or another actor has taken over
            return not intake.size
        event: TokenEvent | ToolEvent
        if isinstance(batch, Batch):
            kind, tokens = batch
            text = "".join(tokens)
            event = TokenEvent(log.stream_id, seq, tokens, text, kind, clock.time(), log.metadata, dropped)
        else:
            event = self._number(batch.event, seq)
        if record.journal is not None:
            try:
                record.journal.append(event)
            except Exception as error:
                self.problem = error
                intake.restore(batch)
                return False
        if not log.append(self._epoch, event):  # the stream has been ended, or another actor has taken over
            intake.restore(batch)
            return False
        intake.commit(batch)
        now = clock.monotonic()
        if isinstance(event, TokenEvent):
            if bucket is not None:
                bucket.take(len(tokens), now)
            size = len(text) if text.isascii() else len(text.encode(errors="replace"))
            record.counters.delivered(len(tokens), size, now)
        else:
            record.counters.told(event, now)
        self._failures = 0
        if self._hub.announce():
            record.counters.held += 1
        return True

    def _number(self, event: ToolEvent, seq: int) -> ToolEvent:
        log = self._log
        return msgspec.structs.replace(
            event, stream_id=log.stream_id, seq=seq, timestamp=self._clock.time(), metadata=log.metadata
        )

    def count_failure(self) -> DeliveryError | None:
        """Note that the last delivery failed; returns an error if it was one too many."""
        stream_id, problem = self._record.stream_id, self.problem
        self._record.counters.errors += 1
        self._failures += 1
        get_logger(stream_id=stream_id).warning(
            "delivery_failed", error=type(problem).__name__, failures=self._failures
        )
        if self._failures < self._record.options.max_errors:
            return None
        error = DeliveryError(stream_id, self._failures)
        error.__cause__ = problem
        return error

    def reset(self, reason: str) -> None:
        """Void what came so far."""
        log = self._log
        event = StreamReset(log.stream_id, log.last_seq + 1, reason, self._clock.time(), log.metadata)
        self._store(event)
        if log.append(self._epoch, event):
            self._hub.announce()

    def end(self, ending: Complete | Fail | Cancel) -> bool:
        """Write the terminal event and tell everybody; returns whether it was ours to write."""
        intake, log, record = self._intake, self._log, self._record
        intake.close(self._epoch)
        dropped = intake.take_dropped(self._epoch)
        now = self._clock.time()
        match ending:
            case Complete(outcome=outcome):
                ended = log.complete(outcome, dropped, now, self._epoch)
            case Fail(error=error, outcome=outcome):
                ended = log.fail(error, outcome, dropped, now, self._epoch)
            case Cancel(reason=reason):
                ended = log.cancel(reason, record.outcome(), dropped, now, self._epoch)
        if ended:
            intake.clear()  # of a stream that was cancelled or has failed
            assert log.terminal is not None
            try:
                self._store(log.terminal)
            finally:
                record.counters.state_changes += 1
                record.conclude()
        return ended

    def _store(self, event: StreamReset | TerminalEvent) -> None:
        """Journal an event that cannot be taken back: if that fails, only the journal does not know of it."""
        record = self._record
        if record.journal is not None:
            try:
                record.journal.append(event)
            except Exception as problem:
                get_logger(stream_id=record.stream_id).error(
                    "event_not_in_journal", event_type=type(event).__name__, error=type(problem).__name__
                )
