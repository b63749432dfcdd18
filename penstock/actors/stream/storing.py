"""Writes the logs of all streams to a log store: one transaction a frame for all of them.

A stream hands its events to its `StoredLog`, which keeps them until the store has them. One thread, that of
`StoreWriter`, writes what has come: at once after a silence, else a frame after the last time. If the store fails, the
events stay, and the same entries are tried again; each has an id, so none is stored twice. After ``patience`` seconds,
or at once where trying again is of no use, streams are refused their events by the store's error, and fail by their own
rules (``max_errors``).
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from penstock.actors.stream.leases import LEASE, Leases
from penstock.actors.stream.refusals import conclude
from penstock.config.logs import get_logger
from penstock.errors import Fenced, StoreBusy, StoreError
from penstock.events import Event, StreamCancelled, StreamCompleted, StreamFailed
from penstock.events.codec import encode_events, encode_value
from penstock.ports import EMPTY, Append, Clock, EntryId, LogFrame, LogStore, OwnerMark, Request, next_epoch

__all__ = ["HANDOFF", "StoreWriter", "StoredLog"]

HANDOFF: Final = "handoff"
"""The reason of the owner mark that says that the owner has left the log to another."""
_NOTHING_SAID: Final = -1
_AT_ONCE: Final = 2_000  # entries in one transaction
_TERMINAL: Final = (StreamCompleted, StreamFailed, StreamCancelled)


class StoredLog:
    """One log that this process owns. Implements `penstock.ports.Journal`. Any thread may append.

    Attributes:
        name: of the log.
        on_stored: called with the number of the last event that the store has. By the writer's thread, as the others.
        on_fenced: called once, when the log has another owner.
        on_failed: called when the store has failed for too long, and again with each further failure.
        kept: the events after a number, if they can be had again; else None.
        is_fenced: the log has another owner, or none that this process knows of: nothing more is written to it.
        opened: set once the store has the first owner mark, or the log has another owner. None if nothing waits for it.
    """

    def __init__(
        self,
        writer: StoreWriter,
        name: str,
        metadata: Mapping[str, Any],
        tail: EntryId,
        mark: OwnerMark,
        request: Request | None,
        encode: Callable[[Sequence[Any]], bytes] | None = None,
    ) -> None:
        self.name = name
        self.on_stored: Callable[[int], object] = _ignore
        self.on_fenced: Callable[[], object] = _ignore
        self.on_failed: Callable[[], object] = _ignore
        self.kept: Callable[[int], Sequence[Event] | None] = _none_kept
        self.is_fenced = False
        self.opened = threading.Event() if writer.holds_back else None
        self._writer = writer
        self._encode = encode if encode is not None else lambda events: encode_events(events, metadata)
        self._request = request
        self._tail = tail  # that the store has confirmed
        self._mark: OwnerMark | None = mark  # not confirmed yet
        self._opening = mark
        self._base = tail
        self._epoch = mark.id.epoch
        self._own: dict[int, int] = {}  # its epochs, and the last event before each
        self._said = _NOTHING_SAID  # the last event that was sent
        self._facts: dict[str, Any] = {}  # that were sent
        self._pending: list[Any] = []  # guarded by the writer's lock, as the next
        self._notes: dict[str, Any] = {}
        self._sent: list[Append] = []  # not confirmed; used by the writer's thread alone, as the next
        self._sent_events = 0
        self._is_ended = False  # the store has confirmed the terminal event
        self._farewell: bytes | None = None  # the data of the owner mark by which the log is handed over

    @property
    def is_sync(self) -> bool:
        """Whether a reader gets an event only once the store has it."""
        return self._writer.is_sync

    def append(self, event: Any) -> None:
        """Keep an event until the store has it. Never waits. A terminal event is always taken.

        Raises:
            Fenced: the log has another owner.
            StoreBusy: too many events wait.
            StoreError: the store has failed for too long.
        """
        self._writer.take(self, event)

    def note(self, **facts: Any) -> None:
        """Add facts to what the log says about its stream; they are written with the next frame at the latest."""
        self._writer.take_note(self, facts)

    def hand_over(self, **facts: Any) -> None:
        """Write what waits, then a mark that the log is free for another owner, and nothing more."""
        self._farewell = encode_value(facts)
        self._writer.take_note(self, {})

    # --- the writer's thread -------------------------------------------------------------------------------------

    @property
    def request(self) -> Request | None:
        """What is claimed for this log."""
        return self._request

    def take_events(self) -> tuple[list[Any], dict[str, Any]]:
        """Take what waits. Call it with the writer's lock held."""
        pending, self._pending = self._pending, []
        notes, self._notes = self._notes, {}
        return pending, notes

    def add(self, event: Any) -> None:
        """Keep an event. Call it with the writer's lock held."""
        self._pending.append(event)

    def add_note(self, facts: Mapping[str, Any]) -> None:
        """Keep facts. Call it with the writer's lock held."""
        self._notes.update(facts)

    def appends(self, events: Sequence[Any], notes: Mapping[str, Any], now: float) -> list[Append]:
        """The entries to append now: those of the last try, or what has come since."""
        if self._sent:
            return self._sent
        self._sent_events = len(events)
        expected, mark, node = self._tail, self._mark, self._writer.node
        if self._said == _NOTHING_SAID and events:
            self._said = events[0].seq - 1
            self._own = dict.fromkeys(self._own, self._said)
        if mark is not None:
            self._own.setdefault(mark.id.epoch, self._said)
            self._sent.append(Append(self.name, expected, mark, opens=self._request, node=node))
            expected = mark.id
        if notes:
            self._facts.update(notes)
            self._epoch = next_epoch(EntryId(self._epoch, 0), now, self._epoch & 1023)
            self._own[self._epoch] = self._said
            noted = OwnerMark(EntryId(self._epoch, 0), node, "note", encode_value(notes))
            self._sent.append(Append(self.name, expected, noted))
            expected = noted.id
        if events:
            last = events[-1]
            self._said = last.seq
            is_last = isinstance(last, _TERMINAL)
            closes = self._request.id if is_last and self._request is not None else ""
            frame = LogFrame(EntryId(self._epoch, last.seq), events[0].seq, self._encode(events), is_last)
            self._sent.append(Append(self.name, expected, frame, closes=closes))
            expected = frame.id
            if is_last:
                self._farewell = None
        if self._farewell is not None:
            self._epoch = next_epoch(EntryId(self._epoch, 0), now, self._epoch & 1023)
            self._own[self._epoch] = self._said
            farewell = OwnerMark(EntryId(self._epoch, 0), node, HANDOFF, self._farewell)
            self._sent.append(Append(self.name, expected, farewell))
        return self._sent

    def take_sent(self) -> int:
        """How many events have been sent and wait no more: they are stored, refused, or given up. Counts each once."""
        count, self._sent_events = self._sent_events, 0
        return count

    def answered(self, answers: Sequence[EntryId | StoreError]) -> StoreError | None:
        """Note the answers to `appends`; returns an error if they must be tried again."""
        stored, is_over = 0, False
        for answer, append in zip(answers, self._sent, strict=True):
            if isinstance(answer, StoreError):
                return answer
            entry = append.entry
            if answer < entry.id or answer.epoch != entry.id.epoch:  # a greater one: of an append whose answer was lost
                self._sent = []
                self._refused(answer)
                break
            self._tail = entry.id
            if isinstance(entry, OwnerMark):
                self._mark = None
                if self.opened is not None:
                    self.opened.set()
                is_over = is_over or entry.reason == HANDOFF
            else:
                stored = entry.id.seq
                self._is_ended = self._is_ended or entry.is_last
            if append.closes:
                self._writer.let_go(self, append.closes)
        self._sent = []
        if stored:
            self.on_stored(stored)
        if is_over:
            self.give_up()
        return None

    def compare(self, tail: EntryId) -> None:
        """Conclude from the tail of the log what an append would find out. Harmless if one is under way.

        Of a log that has ended, only what is missing behind an earlier tail is written again: it may have been removed,
        and other owners may have looked at it.
        """
        if self._sent or self._mark is not None or tail == self._tail:
            return
        if not self._is_ended or EMPTY < tail < self._tail:
            self._refused(tail)

    def _refused(self, tail: EntryId) -> None:
        """Stop, as the log has another owner; or write again what the store has lost after it had confirmed it."""
        found = conclude(tail, self._base, self._own)
        events: Sequence[Event] | None = None
        if found is not None:
            events = [] if found.after == _NOTHING_SAID else self.kept(found.after)
        if found is None or events is None:
            self.give_up()
            return
        get_logger(stream_id=self.name).warning("store_lost_entries", after=found.after)
        self._tail, self._said = tail, found.after
        if found.is_mark_lost:
            self._mark = self._opening
        is_noted = any(epoch > tail.epoch for epoch in self._own)
        self._writer.put_back(self, events, self._facts if found.is_mark_lost or is_noted else {})

    def give_up(self) -> None:
        """Write nothing more to this log."""
        self.is_fenced = True
        if self._request is not None:
            self._writer.let_go(self, self._request.id)
        if self.opened is not None:
            self.opened.set()
        self.on_fenced()

    def failed(self) -> None:
        """Note that the store has failed for too long."""
        self.on_failed()


class StoreWriter:
    """Writes the logs that this process owns. See the module's docstring.

    Args:
        store: where to.
        clock: for epochs, and for how long the store has failed.
        node: the name of this process's node, for owner marks and requests; None: ``local`` where no other process
            writes the store, else a new one.
        number: the node's number, 0 … 1023; see `LogStore.new_number`.
        frame: seconds between two transactions while events come.
        limit: events of all streams that may wait.
        patience: seconds for which a failing store is hidden from the streams.
        lease: seconds for which a claim on a shared store stays the node's without being renewed.
        holds_back: in a cluster: readers get an event only once the store has it, at every level, so that no reader is
            ahead of the log that another node goes on with; and a stream is open only once its log is.
    """

    def __init__(
        self,
        store: LogStore,
        clock: Clock,
        *,
        node: str | None = None,
        number: int = 0,
        frame: float = 0.04,
        limit: int = 100_000,
        patience: float = 30.0,
        lease: float = LEASE,
        holds_back: bool = False,
    ) -> None:
        self.store = store
        self.node = node or (f"node-{secrets.token_hex(6)}" if store.is_shared else "local")
        self.number = number
        self.leases = Leases(store, self.node, lease) if store.is_shared else None
        self.holds_back = holds_back
        self.is_sync = holds_back or store.durability == "sync"
        self._clock = clock
        self._frame = frame
        self._limit = limit
        self._patience = patience
        self._lock = threading.Lock()
        self._dirty: dict[StoredLog, None] = {}
        self._count = 0  # events that wait, in the logs or for the store's answer
        self._doubtful: dict[StoredLog, None] = {}  # see `verify`
        self._again: list[StoredLog] = []  # failed; used by the writer's thread alone
        self._news = threading.Event()
        self._hurry = threading.Event()  # set: do not wait for the frame
        self._idle = threading.Condition(self._lock)
        self._is_busy = False
        self._is_closed = False
        self._failing_since: float | None = None
        self.problem: StoreError | None = None
        """Why streams are refused their events now."""
        self.last_error: StoreError | None = None
        """The last failure, for the dashboard; None while the store works."""
        self._thread: threading.Thread | None = None

    def open(
        self,
        name: str,
        metadata: Mapping[str, Any],
        data: bytes,
        *,
        tail: EntryId,
        request: Request | None = None,
        reason: str = "open",
        encode: Callable[[Sequence[Any]], bytes] | None = None,
    ) -> StoredLog:
        """Own a log from now on: behind ``tail``, with an owner mark that has ``data``.

        ``encode``: for a log of other things than events; each has a ``seq``.

        Raises:
            StoreError: the store has failed for too long.
        """
        problem = self.last_error if self.holds_back else self.problem
        if problem is not None:
            raise problem
        epoch = next_epoch(tail, self._clock.time(), self.number)
        mark = OwnerMark(EntryId(epoch, 0), self.node, reason, data)
        log = StoredLog(self, name, metadata, tail, mark, request, encode)
        if self.leases is not None and request is not None:
            self.leases.add(request.id, log)
        with self._lock:
            self._note(log)
        return log

    @property
    def waiting(self) -> int:
        """How many events wait to be written."""
        return self._count

    def take(self, log: StoredLog, event: Any) -> None:
        """Keep an event of a log; see `StoredLog.append`."""
        is_terminal = isinstance(event, _TERMINAL)
        if log.is_fenced:
            if is_terminal:
                return  # of this process's readers alone: the log has another owner, which ends it
            raise Fenced(log.name)
        if self.problem is not None and not is_terminal:
            raise self.problem
        with self._lock:
            if self._count >= self._limit and not is_terminal:
                raise StoreBusy(self.store.name, self._limit)
            log.add(event)
            self._count += 1
            self._note(log)

    def take_note(self, log: StoredLog, facts: Mapping[str, Any]) -> None:
        """Keep facts about a log; see `StoredLog.note`."""
        with self._lock:
            log.add_note(facts)
            self._note(log)

    def let_go(self, log: StoredLog, request: str) -> None:
        """Renew a log's claim on its request no more: its stream has ended, or has another owner."""
        if self.leases is not None:
            self.leases.remove(request, log)

    def note_answer(self) -> None:
        """Note that the store has answered another request, so that streams are opened again if nothing waits."""
        if self.last_error is not None and not self._again and not self._dirty:
            self.last_error = self.problem = self._failing_since = None

    def verify(self, log: StoredLog) -> None:
        """Look whether the log in the store is still as it was left; see `StoredLog.compare`."""
        with self._lock:
            self._doubtful[log] = None
            self._note(log)

    def put_back(self, log: StoredLog, events: Sequence[Event], facts: Mapping[str, Any]) -> None:
        """Write events and facts again that the store has lost, before those that have come since."""
        with self._lock:
            pending, notes = log.take_events()
            first = pending[0].seq if pending else None
            lost = [event for event in events if first is None or event.seq < first]
            for event in (*lost, *pending):
                log.add(event)
            log.add_note({**facts, **notes})
            self._count += len(lost)  # the pending ones are counted already
            self._note(log)

    def _note(self, log: StoredLog) -> None:
        self._dirty[log] = None
        if not self._news.is_set():
            self._news.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="penstock-store", daemon=True)
            self._thread.start()

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._news.wait()
            with self._lock:
                self._news.clear()
                self._is_busy = True
            try:
                self._write()
            except Exception as error:  # a fault of ours must not end the writing
                get_logger().error("store_writer_failed", error=type(error).__name__, exc_info=error)
            with self._lock:
                self._is_busy = False
                if not self._dirty:
                    self._idle.notify_all()
                    if self._is_closed:
                        return
            self._hurry.wait(self._frame if self.last_error is None else max(self._frame, 0.2))
            if self._is_closed and self.last_error is not None:
                return

    def _write(self) -> None:
        if self._doubtful:
            self._look_at_doubtful()
        with self._lock:
            logs = list(dict.fromkeys([*self._again, *self._dirty]))
            again = dict.fromkeys(self._again)
            taken = [(log, *(([], {}) if log in again else log.take_events())) for log in logs]
            self._dirty = again
        self._again = []
        now = self._clock.time()
        batch: list[tuple[StoredLog, list[Append]]] = []
        size = 0
        for log, events, notes in taken:
            if log.is_fenced:
                self._settle(log.take_sent() + len(events))
                continue
            try:
                appends = log.appends(events, notes, now)
            except Exception as error:  # what cannot be encoded; a log with a hole would be worse than none
                get_logger(stream_id=log.name).error("events_not_encoded", error=type(error).__name__, exc_info=error)
                log.give_up()
                self._settle(log.take_sent())
                continue
            if appends:
                batch.append((log, appends))
                size += len(appends)
            if size >= _AT_ONCE:
                self._append(batch)
                batch, size = [], 0
        if batch:
            self._append(batch)
        with self._lock:
            if self._again or self._dirty:
                self._news.set()

    def _settle(self, count: int) -> None:
        """Note that so many events wait no more."""
        with self._lock:
            self._count -= count

    def _look_at_doubtful(self) -> None:
        """Look at logs that may be another's. Before events are taken out of them, which may have to be put back."""
        with self._lock:
            doubtful, self._doubtful = self._doubtful, {}
        for log in doubtful:
            if log not in self._again and not log.is_fenced:
                with contextlib.suppress(StoreError):  # the next look may find out
                    log.compare(self.store.tail(log.name))

    def _append(self, batch: Sequence[tuple[StoredLog, list[Append]]]) -> None:
        """Append the entries of some logs, and note the answers. Those that failed are tried again with the next."""
        try:
            answers = list(self.store.append_all([append for _, appends in batch for append in appends]))
        except StoreError as error:
            self._failed(error, [log for log, _ in batch])
            return
        failed: list[StoredLog] = []
        problem: StoreError | None = None
        settled = end = 0
        for log, appends in batch:
            first, end = end, end + len(appends)
            try:
                trouble = log.answered(answers[first:end])
            except Exception as error:  # of a callback; the other logs must have their answers
                get_logger(stream_id=log.name).error("store_callback_failed", exc_info=error)
                trouble = None
            if trouble is not None:
                failed.append(log)
                problem = trouble
            else:
                settled += log.take_sent()
        self._settle(settled)
        if problem is not None:
            self._failed(problem, failed)
        elif self.last_error is not None:
            get_logger().info("store_works_again", store=self.store.name)
            self.last_error = self.problem = self._failing_since = None

    def _failed(self, error: StoreError, logs: Sequence[StoredLog]) -> None:
        now = self._clock.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            get_logger().error("store_failed", store=self.store.name, error=type(error).__name__)
        self.last_error = error
        if not error.retryable or now - self._failing_since >= self._patience:
            self.problem = error
        self._again += logs
        if self.problem is not None:
            for log in logs:
                log.failed()

    # --- flush and close -----------------------------------------------------------------------------------------

    def flush(self, timeout: float) -> bool:
        """Write everything that waits, without waiting for the frame; returns whether that was done in time."""
        self._hurry.set()
        try:
            with self._lock:
                return self._idle.wait_for(lambda: not self._dirty and not self._is_busy, timeout)
        finally:
            if not self._is_closed:
                self._hurry.clear()

    def close(self, timeout: float) -> bool:
        """Write everything, and end the thread; returns whether that was done in time."""
        self._is_closed = True
        self._hurry.set()
        self._news.set()
        is_done = self.leases is None or self.leases.close(timeout)
        thread = self._thread
        if thread is None:
            return is_done
        thread.join(timeout)
        return is_done and not thread.is_alive()


def _ignore(*_: object) -> None:
    pass


def _none_kept(_: int) -> Sequence[Event] | None:
    return None
