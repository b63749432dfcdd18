"""A stream whose log is kept in a log store: when its readers get its events, and how it comes back."""

from __future__ import annotations

from typing import Protocol

from penstock.actors.runtime.runtime import Runtime
from penstock.actors.stream.heads import PastLog, StreamHead
from penstock.actors.stream.hub import UNOWNED, Hub
from penstock.actors.stream.intake import Intake
from penstock.actors.stream.log import ALONE, StreamLog
from penstock.actors.stream.messages import Cancel, Ending
from penstock.actors.stream.storing import StoredLog
from penstock.errors import Fenced
from penstock.ports import Journal

__all__ = ["Kept", "attach", "is_waiting", "revive"]


class Kept(Protocol):
    """What is needed of a stream's record."""

    stream_id: str
    runtime: Runtime
    log: StreamLog
    hub: Hub
    intake: Intake
    state: str
    ended_at: float | None
    created_at: float
    head: StreamHead | None
    stored: StoredLog | None

    def propose(self, ending: Ending) -> bool: ...

    def begin_to_announce(self) -> bool: ...

    def announce_end(self) -> None: ...


def attach(record: Kept, journal: Journal | None) -> StoredLog | None:
    """Have the log store's writer notify the stream, if its journal is a log store's; returns its log there."""
    log, stored = record.log, journal
    if not isinstance(stored, StoredLog):
        return None

    def show(seq: int) -> None:
        log.show(seq)
        record.hub.announce()
        if log.terminal is not None:
            record.announce_end()

    def show_end() -> None:
        if log.terminal is not None:  # the store has failed to take it, and it says so
            show(log.written)

    def fenced() -> None:
        error = Fenced(record.stream_id)
        if record.propose(Cancel(error=error)) or not log.is_held_back:
            return
        if log.replace_held_end(error, record.runtime.clock.time()):  # it had ended here alone
            record.announce_end()

    log.is_held_back = stored.is_sync
    stored.on_fenced = fenced
    stored.kept = log.kept_after
    if stored.is_sync:
        stored.on_stored, stored.on_failed = show, show_end
    return stored


def is_waiting(record: Kept) -> bool:
    """Whether readers must wait for the store before they get the end. If not, they can have all events."""
    log, stored = record.log, record.stored
    if log.last_seq < log.written:
        if stored is not None and not stored.is_fenced:
            return True
        log.show(log.written)
    return False


def revive(record: Kept, past: PastLog) -> None:
    """Let a new record take over a stored log. If that has ended, so has the stream."""
    log = record.log
    record.head, record.created_at = past.head, past.head.created_at
    log.replay(past.events)
    terminal = log.terminal
    if terminal is not None:
        record.state = "ended"
        record.ended_at = record.runtime.clock.monotonic()
        record.intake.close()
        record.begin_to_announce()
        log.owner, record.hub.owner = ALONE, UNOWNED
