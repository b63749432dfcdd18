"""Delivery: moves batches from the intake to the journal and the log, and notifies the subscribers.

It has no policy and no time-outs: the stream's actor decides when to deliver. Nothing is lost or delivered twice, even
if a step in between fails.
"""

from __future__ import annotations

import msgspec

from penstock.actors.runtime.dispatcher import clear_frames_later
from penstock.actors.stream.bucket import TokenBucket
from penstock.actors.stream.buffer import Batch
from penstock.actors.stream.hub import are_prompt
from penstock.actors.stream.messages import JOINED
from penstock.actors.stream.observing import notify
from penstock.actors.stream.record import StreamRecord
from penstock.config.logs import get_logger
from penstock.errors import DeliveryError
from penstock.events import SideEvent, TokenEvent

__all__ = ["Delivery"]


class Delivery:
    """The writing side of one incarnation of a stream's actor. Every write carries the actor's epoch."""

    __slots__ = (
        "_clock",
        "_epoch",
        "_failures",
        "_has_called",
        "_hub",
        "_intake",
        "_is_direct",
        "_log",
        "_record",
        "problem",
    )

    def __init__(self, record: StreamRecord, epoch: int) -> None:
        self._record = record
        self._epoch = epoch
        self._log = record.log
        self._intake = record.intake
        self._hub = record.hub
        self._clock = record.runtime.clock
        self._failures = 0  # consecutive
        self._is_direct = False  # the turn is that of a thread that brings tokens
        self._has_called = False  # in such a turn, the actor has been called for a subscriber that has come meanwhile
        self.problem: Exception | None = None
        """Why the last delivery failed. None if it was refused because the stream has ended or has another actor."""

    def emit(self, limit: int, bucket: TokenBucket | None) -> bool:
        """Deliver one batch or one tool event; returns whether that worked. If not, it goes back into the buffer."""
        intake, log, record, clock = self._intake, self._log, self._record, self._clock
        seq = log.written + 1
        batch, dropped = intake.take(limit, seq, self._epoch)
        self.problem = None
        if batch is None:  # discarded meanwhile, or another actor has taken over
            return not intake.size
        event: TokenEvent | SideEvent
        if isinstance(batch, Batch):
            kind, tokens, part, phase, origin = batch
            text = "".join(tokens)
            event = TokenEvent(
                log.stream_id, seq, tokens, text, kind, clock.time(), log.metadata, dropped, part, phase, origin
            )
        else:
            event = self._number(batch.event, seq)
        if record.journal is None:
            appended = log.append(self._epoch, event)
        else:
            try:
                appended = record.append(event, self._epoch)
            except Exception as error:
                self.problem = error  # which may become the cause of the error that ends the stream
                clear_frames_later(error)
                appended = False
        if not appended:  # the journal failed, the stream has ended, or another actor has taken over
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
            record.counters.counted(event, now)
            for observer in record.observers:
                notify(observer.happened, record, event)
        self._failures = 0
        if self._announce_directly() if self._is_direct else self._hub.announce():
            record.counters.held += 1
        return True

    def begin_direct_turn(self) -> None:
        """Until `end_direct_turn`, wake no subscriber in whose `wake` code of the application runs.

        There is none now. The actor is told of one that comes meanwhile.
        """
        self._is_direct, self._has_called = True, False

    def end_direct_turn(self) -> None:
        """See `begin_direct_turn`."""
        self._is_direct = False

    def _announce_directly(self) -> bool:
        present = self._hub.subscriptions
        all_prompt = are_prompt(present)
        if not all_prompt and not self._has_called:
            self._has_called = True
            self._intake.inbox.put(JOINED)
        return self._hub.announce(present, prompt_only=not all_prompt)

    def _number(self, event: SideEvent, seq: int) -> SideEvent:
        log = self._log
        return msgspec.structs.replace(
            event, stream_id=log.stream_id, seq=seq, timestamp=self._clock.time(), metadata=log.metadata
        )

    def count_failure(self) -> DeliveryError | None:
        """Count the failure of the last delivery; returns an error once ``max_errors`` is reached."""
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

    def reset(self, reason: str, origin: str | None = None) -> None:
        """Void everything delivered so far, or everything of one origin."""
        if self._record.reset(reason, self._epoch, origin):
            self._hub.announce()
