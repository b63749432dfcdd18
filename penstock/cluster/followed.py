"""Streams that another node runs: their records follow the log in the store."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from penstock.actors.stream.heads import PastLog
from penstock.actors.stream.hub import UNOWNED
from penstock.actors.stream.intake import Intake
from penstock.actors.stream.keeping import revive
from penstock.actors.stream.log import ALONE
from penstock.actors.stream.messages import Cancel, Ending
from penstock.actors.stream.outcome import Outcome
from penstock.actors.stream.record import StreamRecord
from penstock.cluster.orders import answer_of, order_of
from penstock.config.logs import get_logger
from penstock.config.options import OnOrphan
from penstock.errors import (
    BufferFull,
    Fenced,
    NoOwner,
    PenstockError,
    RunsElsewhere,
    StoreDamaged,
    StoreError,
    SystemStopped,
)
from penstock.events import FrozenDict
from penstock.events.codec import CodecError, decode_events, decode_value, encode_value
from penstock.ports import EMPTY, NODE_NUMBERS, Entry, EntryId, LogFrame, LogStore, OwnerMark, Registration
from penstock.recovery import opened_as
from penstock.services import Services

__all__ = ["FollowedRecord"]

_PAUSE: Final = 0.05  # seconds between two tries to find the owner
_PUSH: Final = 1.0  # seconds that an order with tokens waits for room
_FACTS: Final = 1.0  # seconds for the owner to say what it knows


class FollowedRecord(StreamRecord):
    """The record of a stream that another node runs. Implements `penstock.ports.LogWatcher` and `Remote`.

    Its log is filled by the store, in a thread of that. It has no actor; what is asked of it goes to the owner. If
    another node, this one included, takes the stream over, it follows that. If the store has lost events that were
    read, and other ones come under their numbers, it ends with `Fenced` for its readers, which begin anew.
    """

    __slots__ = (
        "_basis",
        "_closed",
        "_is_cancelling",
        "_is_lost",
        "_lease",
        "_registration",
        "_store",
        "_written_by",
        "missed_since",
        "owner",
        "told",
        "untold_policy",
    )

    def __init__(
        self,
        services: Services,
        stream_id: str,
        past: PastLog,
        store: LogStore,
        lease: float,
        entries: Sequence[Entry],
    ) -> None:
        head = past.head
        super().__init__(services.runtime, stream_id, **opened_as(services, head))
        self._basis = head.metadata  # which the frames do not repeat
        self._store = store
        self._lease = lease
        self._is_lost = False
        self._closed = False
        self._is_cancelling = threading.Lock()
        self._registration: Registration | None = None
        self._written_by: list[tuple[int, int]] = []  # numbers of nodes; each with the first event that it wrote
        self.owner = ""  # the node that runs it, as far as is known
        self.told = ""  # the node that knows that there are readers here
        self.untold_policy: OnOrphan | None = None  # the owner is to be told
        self.missed_since: float | None = None  # the store has lost the whole log
        self.remote = self
        revive(self, past)
        self.intake = _RemoteIntake(self)
        self.state = "paused" if head.is_paused else "streaming" if past.events else "idle"
        self.let_go = self.close
        for entry in entries:
            if isinstance(entry, LogFrame):
                self._note_writer(entry)
            else:
                self._take_mark(entry)

    def follow(self, after: EntryId) -> None:
        """Begin to follow the log after an entry.

        Raises:
            StoreError: the store does not answer.
        """
        self._registration = self._store.watch(self.stream_id, after, self)
        if self._closed:
            self._registration.close()

    def close(self) -> None:
        """Follow the log no more."""
        self._closed = True
        if self._registration is not None:
            self._registration.close()

    @property
    def is_closed(self) -> bool:
        """Whether it does not follow the log any more."""
        return self._closed

    @property
    def is_displaced(self) -> bool:
        return self._is_lost

    # --- from the store, by its thread ---------------------------------------------------------------------------

    def entries(self, entries: Sequence[Entry]) -> None:
        """Take what has come."""
        self.missed_since = None
        try:
            for entry in entries:
                if self.is_over:
                    return
                if isinstance(entry, LogFrame):
                    self._take(entry)
                else:
                    self._take_mark(entry)
        except CodecError as error:
            self._lose(StoreDamaged(self._store.name, str(error)))
        self.hub.announce()

    def _take_mark(self, mark: OwnerMark) -> None:
        if mark.node != self.owner:
            self.owner, self.told = mark.node, ""
        if mark.reason == "note" and self.head is not None:
            more = decode_value(mark.data) if mark.data else {}
            if isinstance(more, dict):
                self.head = self.head.with_facts(more)
                self.options, self.metadata = self.head.stream_options, self.head.metadata_now
                if self.untold_policy is None:
                    self.on_orphan = self.head.on_orphan

    def _take(self, frame: LogFrame) -> None:
        log = self.log
        if frame.first > log.written + 1 or (frame.first <= log.written and not self._is_writer(frame)):
            self._lose()
            return
        if frame.id.seq <= log.written:
            return  # its owner has written again what the store had lost
        self._note_writer(frame)
        events = decode_events(frame.data, self.stream_id, self._basis)
        log.replay(events[log.written + 1 - frame.first :])
        if self.state == "idle":
            self.state = "streaming"
        terminal = log.terminal
        if terminal is not None:
            self.close()
            self.state, self.ended_at = "ended", self.runtime.clock.monotonic()
            self.intake.close()
            self.announce_end()

    def _note_writer(self, frame: LogFrame) -> None:
        number = frame.id.epoch % NODE_NUMBERS
        if not self._written_by or self._written_by[-1][1] != number:
            self._written_by.append((frame.first, number))

    def _is_writer(self, frame: LogFrame) -> bool:
        """Whether the node that has written a frame is the one that had written the events with its numbers before."""
        others = [number for first, number in self._written_by if first <= frame.first]
        later = [number for first, number in self._written_by if frame.first < first <= frame.id.seq]
        number = frame.id.epoch % NODE_NUMBERS
        return others[-1:] == [number] and all(one == number for one in later)

    def rewound(self, tail: EntryId) -> None:
        """Note that the store has lost entries. Its owner writes the same again; another one, other events."""
        get_logger(stream_id=self.stream_id).warning("store_lost_entries", after=tail.seq)
        if tail == EMPTY:
            self.missed_since = self.runtime.clock.monotonic()

    def lose(self) -> None:
        """End it for the readers here, as the store has lost the log and nothing writes it again. Any thread."""
        self._lose()
        self.hub.announce()

    def failed(self, error: StoreError) -> None:
        """End it for the readers here if its log is damaged. Else the store goes on by itself; `view` shows it."""
        if isinstance(error, StoreDamaged):
            self._lose(error)
            self.hub.announce()

    def _lose(self, error: StoreDamaged | None = None) -> None:
        """End for the readers here alone: the log goes on with other events than they had, or cannot be read."""
        if error is not None and not self.is_over:
            get_logger(stream_id=self.stream_id).error("stored_log_damaged", error=str(error))
        self._is_lost = True
        self.finish(Cancel(error=error or Fenced(self.stream_id)))

    # --- ends ----------------------------------------------------------------------------------------------------

    def finish(self, ending: Ending, epoch: int | None = None) -> bool:
        """End it for the readers here: the system stops, or the log is lost. The stream itself goes on elsewhere."""
        if self.is_over:
            return False
        self.close()
        self.intake.close()
        error = getattr(ending, "error", None)
        is_ours = self.log.fail(error or SystemStopped(), Outcome(), 0, self.runtime.clock.time())
        self.log.owner, self.hub.owner = ALONE, UNOWNED
        self.state, self.ended_at = "ended", self.runtime.clock.monotonic()
        self.announce_end()
        return is_ours

    def propose(self, ending: Ending, *, by: object = None) -> bool:
        """Have it cancelled where it runs, in a thread. Other ends are decided there."""
        if not isinstance(ending, Cancel) or ending.error is not None:
            raise RunsElsewhere(self.stream_id, type(ending).__name__)
        if self.is_over or not self._is_cancelling.acquire(blocking=False):
            return False  # one thread for each stream, however often it is cancelled

        def run() -> None:
            try:
                self.ask(Cancel(ending.reason), self._lease + 1)
            except PenstockError as error:
                get_logger(stream_id=self.stream_id).warning("not_cancelled", error=type(error).__name__)
            finally:
                self._is_cancelling.release()

        threading.Thread(target=run, name="penstock-cancel", daemon=True).start()
        return True

    # --- to the owner --------------------------------------------------------------------------------------------

    def ask(self, message: Any, timeout: float) -> Any:
        """See `Remote.ask`. A node that has just died is given the time for another one to take the stream over."""
        if isinstance(message, Cancel):
            self._store.cancel(self.stream_id, self._lease * 2 + 1)
        value = self.order(order_of(self.stream_id, message), timeout)
        if isinstance(message, Cancel) or type(message).__name__ == "StopStream":
            self.over.get(timeout=timeout)  # the end comes by the log
        return value

    def order(self, order: Mapping[str, Any], timeout: float, *, is_patient: bool = True) -> Any:
        """Have an order carried out; see `penstock.cluster.orders`.

        Raises:
            NoOwner: no node runs it, for a lease and a second if ``is_patient``.
            CallTimeout, StoreError, PenstockError: as `Remote.ask`.
        """
        data = encode_value({**order, "within": timeout})
        until = time.monotonic() + (min(self._lease + 1, timeout) if is_patient else 0.0)
        while True:
            try:
                answer = answer_of(self.stream_id, self._store.command(self.stream_id, data, timeout))
                break
            except NoOwner:
                if time.monotonic() >= until or self.is_over:
                    raise
                self.runtime.dispatcher.pause(_PAUSE)
        if not self.is_over and answer.state != "ended":  # the end comes by the log
            self.state = answer.state
        if answer.error is not None:
            raise answer.error
        return answer.value

    def send_orphan_policy(self, policy: OnOrphan, timeout: float | None = None) -> None:
        """See `Remote.send_orphan_policy`. With a ``timeout`` it does not wait for an owner."""
        limit = self._lease + 1 if timeout is None else timeout
        self.order({"do": "orphan", "policy": policy}, limit, is_patient=timeout is None)
        self.on_orphan, self.untold_policy = policy, None

    def set_orphan_policy(self, policy: OnOrphan) -> None:
        """Have the node tell the owner, within a heartbeat."""
        self.on_orphan = self.untold_policy = policy

    def facts(self) -> Mapping[str, Any]:
        """See `Remote.facts`."""
        if self.is_over:
            return FrozenDict()
        try:
            found = self.order({"do": "facts"}, _FACTS, is_patient=False)
        except PenstockError:
            return FrozenDict()
        return {**found, "state": self.state, "owner": self.owner} if isinstance(found, dict) else FrozenDict()


class _RemoteIntake(Intake):
    """Sends tokens that are pushed to the node that runs the stream. What needs its buffer is refused."""

    def __init__(self, record: FollowedRecord) -> None:
        super().__init__(record.stream_id, record.options, record.runtime.dispatcher, record.runtime.clock)
        self._record = record

    def push(self, text: str, timeout: float | None = None) -> None:
        self.push_all([text], timeout)

    def push_all(self, texts: Iterable[str], timeout: float | None = None) -> None:
        record, given = self._record, [str(text) for text in texts]
        if self.closed:
            raise self._refusal()
        if given:
            home = record.home
            assert home is not None
            limit = record.options.push_timeout if timeout is None else timeout
            self._send(given, limit, home.call_timeout)

    def _send(self, texts: list[str], limit: float | None, call_timeout: float) -> None:
        """Send tokens until the owner has taken all, or ``limit`` seconds are over; None: no limit.

        One order waits for room for a second at most, and some do not wait at all: see `WaitingPushes`.
        """
        record, done = self._record, 0
        clock, dispatcher = record.runtime.clock, record.runtime.dispatcher
        until = math.inf if limit is None else clock.monotonic() + limit
        while True:
            wait = max(0.0, min(_PUSH, until - clock.monotonic()))
            try:
                record.order({"do": "tokens", "texts": texts[done:], "timeout": wait}, call_timeout + wait)
                return
            except BufferFull as error:
                done += error.accepted
                if clock.monotonic() >= until or record.options.overflow == "error":
                    raise BufferFull(error.stream_id, error.max_buffer_size, limit, done) from None
            dispatcher.pause(_PAUSE)

    def push_now(
        self,
        tokens: Any,
        on_room: Callable[[], None],
        is_void: Callable[[], bool] | None = None,
        *,
        whole: bool = False,
    ) -> int:
        raise RunsElsewhere(self.stream_id, "feeding it without waiting")

    def push_some(self, tokens: Any, first: int) -> int:
        raise RunsElsewhere(self.stream_id, "feeding it without waiting")

    def push_event(self, event: Any, *, is_void: Callable[[], bool] | None = None, wakes: bool = True) -> bool:
        raise RunsElsewhere(self.stream_id, "adding events")

    def offer_event(
        self,
        event: Any,
        on_room: Callable[[], None],
        is_void: Callable[[], bool] | None = None,
        *,
        is_of_all: bool = False,
        wakes: bool = True,
    ) -> bool:
        raise RunsElsewhere(self.stream_id, "adding events")
