"""The record of one stream: all state that outlives its actor.

A record is made when the stream is, and kept in a `StreamTable` until the stream is forgotten. The stream's actor, the
integration of its provider call and the handler work on it, and may crash and be restarted around it.

A stream ends in two steps. How it is to end is *proposed*, by any thread (`StreamRecord.propose`). It is *finished*
once (`StreamRecord.finish`), which writes the terminal event into the log and the journal and announces it.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from penstock.actors.runtime.loop_thread import LoopThread
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.quota import ThreadQuota
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.stream.buffer import Undelivered
from penstock.actors.stream.changes import StateChanges
from penstock.actors.stream.facts import StreamFacts
from penstock.actors.stream.feed import Feed
from penstock.actors.stream.heads import StreamHead
from penstock.actors.stream.hub import UNOWNED, Hub, HubOwner, Subscription, nothing
from penstock.actors.stream.intake import Intake
from penstock.actors.stream.journaling import NO_JOURNAL, JournalWriter
from penstock.actors.stream.keeping import attach, is_waiting
from penstock.actors.stream.log import ALONE, LogOwner, StreamLog
from penstock.actors.stream.messages import RELEASED, Cancel, Complete, Ending, Fail
from penstock.actors.stream.observing import StreamObserver, notify
from penstock.actors.stream.outcome import Outcome, all_rounds
from penstock.actors.stream.statistics import Counters
from penstock.actors.stream.storing import StoredLog
from penstock.config.logs import get_logger
from penstock.config.options import OnOrphan, Restart, StreamOptions
from penstock.events import (
    SideEvent,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    TerminalEvent,
    TokenEvent,
)
from penstock.ports import Journal

__all__ = ["CountsEnds", "Home", "Notices", "Remote", "StreamRecord"]

_NO_CONTEXT: Final = contextvars.Context()  # without a variable; nothing runs in it, as it is the same for all streams
_CAUSES: Final = {StreamCompleted: "Complete", StreamFailed: "Fail", StreamCancelled: "Cancel"}


class Home(Protocol):
    """Where streams are opened: the services of the system that a stream belongs to."""

    @property
    def call_timeout(self) -> float:
        """Seconds that a call to a process may take, unless the caller says otherwise."""

    @property
    def source_quota(self) -> ThreadQuota:
        """The threads that blocking sources, and functions of derived streams, may hold together."""

    def note_leak(self) -> None:
        """Count a source that did not end in time. Any thread."""

    def open_stream(
        self,
        stream_id: str | None,
        options: StreamOptions,
        *,
        metadata: Mapping[str, Any] | None,
        on_orphan: OnOrphan,
    ) -> StreamRecord:
        """Open a stream and return its record."""


class CountsEnds(Protocol):
    """The table of streams, as a record sees it."""

    def count_end(self, record: StreamRecord, terminal: TerminalEvent) -> None:
        """Count the end of a stream, before its event is visible. Any thread; under the log's lock."""


class Notices(Protocol):
    """Tells the handler that runs at that time. Any thread; never blocks; one for all streams of a system."""

    def orphaned(self, record: StreamRecord) -> None:
        """The last subscriber of a stream has left."""

    def abandoned(self, record: StreamRecord, subscription: Subscription) -> None:
        """An iterator was dropped without being closed."""


class Remote(Protocol):
    """The node that runs a stream, as another node sees it."""

    def ask(self, message: Any, timeout: float) -> Any:
        """Have a message to the stream carried out there; returns the answer.

        Raises:
            NoOwner: no node runs it.
            CallTimeout: the node has not answered in time.
            PenstockError: what the stream has answered.
        """
        raise NotImplementedError

    def send_orphan_policy(self, policy: OnOrphan) -> None:
        """Set there what happens when the last reader leaves. Raises as `ask` does."""

    def facts(self) -> Mapping[str, Any]:
        """What that node knows of the stream: ``state``, ``statistics`` …; empty if it does not answer."""
        raise NotImplementedError


class StreamRecord(StreamFacts, LogOwner, HubOwner):
    """The state of one stream that outlives its actors. Any thread may use it."""

    __slots__ = (
        "_is_announced",
        "_journaling",
        "_lock",
        "_over",
        "_source",
        "_writing",
        "changes",
        "context",
        "counters",
        "created_at",
        "created_monotonic",
        "ended_at",
        "ending",
        "feed",
        "feeder",
        "head",
        "home",
        "hub",
        "intake",
        "is_turn",
        "journal",
        "kind",
        "let_go",
        "log",
        "loop_thread",
        "notices",
        "observers",
        "on_orphan",
        "options",
        "parents",
        "ref",
        "released_at",
        "remote",
        "restart",
        "restart_in",
        "rhythm",
        "rounds",
        "runtime",
        "serial",
        "server_tool_ids",
        "source_counters",
        "state",
        "stored",
        "stream_id",
        "table",
    )

    head: StreamHead | None
    """What its stored log says besides the events; None if it is not stored."""
    stored: StoredLog | None
    """Its log in a log store."""
    remote: Remote | None
    """Where it runs, if another node of the cluster runs it; then there is no actor here."""

    def __init__(
        self,
        runtime: Runtime,
        stream_id: str,
        options: StreamOptions,
        *,
        metadata: Mapping[str, Any],
        on_orphan: OnOrphan,
        restart: Restart,
        journal: Journal | None = None,
        feed: Feed | None = None,
        loop_thread: LoopThread | None = None,
        home: Home | None = None,
    ) -> None:
        self.runtime = runtime
        self.loop_thread = loop_thread  # for async subscribers without an event loop of their own
        self.stream_id = stream_id
        context = contextvars.copy_context()  # of the code that opens the stream; its callbacks run in copies
        self.context = context if len(context) else _NO_CONTEXT
        self.options = options
        self.on_orphan: OnOrphan = on_orphan
        self.restart: Restart = restart
        self.journal = journal
        self.feed = feed  # None: tokens come by `process_token` only
        self.rounds: tuple[Outcome, ...] = ()  # of the feeds before the present one, if the stream is conducted
        self.server_tool_ids: dict[str, int] = {}  # of the provider's own calls, and the round in which each came
        self.is_turn = False  # an agent answers by it, which runs the calls itself; also if one is among its parents
        self.serial = 0  # assigned by the table; distinguishes records that have had the same id
        self.home = home  # None: no stream can be derived from this one
        self.feeder: ProcessRef | None = None  # the process that feeds it from other streams
        self.kind: str | None = None  # what it is made by, if not by a call or by hand: "map", "merge" …
        self.parents: tuple[str, ...] = ()  # the ids of the streams that it is made from
        self.source_counters: Callable[[], Mapping[str, Any]] | None = None  # what its feeder counts
        self.rhythm: Callable[[float], Mapping[str, Any]] | None = None  # what adaptive pacing, or batching, measures
        self.let_go: Callable[[], None] = nothing  # leaves them; called before the terminal event is written
        self.ending: Ending | None = None  # the proposed end; the actor may have crashed since
        self.ref: ProcessRef | None = None  # the present actor; None once the stream is over and it is dead
        self.state = "idle"
        self.changes = StateChanges()
        self.observers: tuple[StreamObserver, ...] = ()  # set by the table
        self._source: tuple[str, str] | None = None  # see `source`
        self.restart_in = "idle"  # the state in which a restarted actor begins: a paused stream stays paused
        self.created_at = runtime.clock.time()
        self.created_monotonic = runtime.clock.monotonic()
        self.ended_at: float | None = None  # monotonic
        self.released_at = 0.0  # when a pause, or the wait for a slow `block` subscriber, ended last; monotonic
        self.log = StreamLog(stream_id, metadata, options.retain_bytes)
        self.log.owner = self
        self.table: CountsEnds | None = None  # that it is in
        self.notices: Notices | None = None  # None: no handler looks after its subscribers
        self.intake = Intake(stream_id, options, runtime.dispatcher, runtime.clock)
        self.hub = Hub()
        self.hub.owner = self
        self.counters = Counters(self.created_monotonic)
        self._over: Reply | None = None  # see `over`
        self._lock = threading.Lock()  # guards `ending` and the next
        self._is_announced = False
        self._writing = threading.Lock()  # held from taking what is left for the end to writing it
        self._journaling = NO_JOURNAL if journal is None else JournalWriter(journal, stream_id)
        self.head, self.stored, self.remote = None, attach(self, journal), None

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata that every event carries."""
        return self.log.metadata

    @metadata.setter
    def metadata(self, metadata: Mapping[str, Any]) -> None:
        self.log.metadata = metadata

    @property
    def is_displaced(self) -> bool:
        """Whether the stream goes on without this record: another owner has its log, or the store has lost it."""
        return self.stored is not None and self.stored.is_fenced

    @property
    def is_held(self) -> bool:
        """Whether the stream itself emits nothing: it is paused, or waits for a slow ``block`` subscriber."""
        return self.state == "paused" or self.hub.held

    def note_release(self) -> None:
        """Note that a hold ends now. Called before `is_held` changes, so that the hold is not counted as silence."""
        self.released_at = self.runtime.clock.monotonic()

    def released(self) -> None:
        """Have the actor go on, after it has waited for a slow ``block`` subscriber."""
        ref = self.ref
        if ref is not None:
            ref.actor_inbox.put(RELEASED)

    def emptied(self) -> None:
        """Tell the handler that the last subscriber has left."""
        if self.notices is not None:
            self.notices.orphaned(self)

    def abandoned(self, subscription: Subscription) -> bool:
        """Tell the handler that an iterator was dropped without being closed; returns whether there is a handler."""
        if self.notices is None:
            return False
        self.notices.abandoned(self, subscription)
        return True

    def undelivered(self, last_event: int) -> list[Undelivered]:
        """See `Intake.undelivered`."""
        return self.intake.undelivered(last_event) if self.intake.size else []

    def undelivered_events(self, last_event: int) -> list[SideEvent]:
        """See `Intake.undelivered_events`."""
        return self.intake.undelivered_events(last_event) if self.intake.size else []

    def read_by_all(self, last_seq: int) -> int:
        """See `Hub.read_by_all`."""
        return self.hub.read_by_all(last_seq)

    @property
    def over(self) -> Reply:
        """Answered with the terminal event once it is announced."""
        found = self._over
        if found is None:
            with self._lock:
                found = self._over
                if found is None:
                    found = Reply(self.runtime.dispatcher, f"the end of stream {self.stream_id!r}")
                    if self._is_announced:
                        found.set(self.log.terminal)
                    self._over = found
        return found

    def enter(self, state: str, cause: str, now: float) -> None:
        """Note that the actor is in another state."""
        self.changes.add(now, self.state, state, cause)
        self.state = state

    def asked(self) -> tuple[str, str]:
        """The provider and the model that are asked now, by name; empty if none is."""
        return ("", "") if self.feed is None else self.feed.asked

    def source(self) -> tuple[str, str]:
        """The provider and the model that the stream's tokens are counted for: it never changes once there are any."""
        found = self._source
        if found is None:
            found = self.asked()
            if self.counters.first_delivery is not None:
                self._source = found
        return found

    def keep(self, **facts: Any) -> None:
        """Let a stored log say how the stream goes on where it is taken over; see `StreamHead.with_facts`."""
        if self.stored is not None and not self.is_over:
            self.stored.note(**facts)

    def set_orphan_policy(self, policy: OnOrphan) -> None:
        """Set what happens when the last reader leaves, here and where it is taken over. Never waits."""
        self.on_orphan = policy
        self.keep(on_orphan=policy)

    # --- the end -------------------------------------------------------------------------------------------------

    def tell(self, message: Any) -> None:
        """Send a message to the stream's actor. One that is being restarted does not get it."""
        ref = self.ref
        if ref is not None and not self.is_over:
            ref.tell(message)

    def propose(self, ending: Ending, *, by: ProcessRef | None = None) -> bool:
        """Propose how the stream ends, and notify its actor; returns whether this proposal counts.

        The first one counts, except that `Cancel` replaces any other. It is written before the message is sent, so that
        an actor which is just being started or restarted finds it.

        Args:
            ending: `Complete` and `Fail` emit what is buffered first. `Cancel` does not; the terminal event has the
                text of it in ``partial``.
            by: the stream's own actor, which needs no message.
        """
        with self._lock:
            before = self.ending
            if self.is_over or (before is not None and (isinstance(before, Cancel) or not isinstance(ending, Cancel))):
                return False
            self.ending = ending
        if by is None:
            self.tell(ending)
        return True

    def finish(self, ending: Ending, epoch: int | None = None) -> bool:
        """End the stream: terminal event, journal, subscribers. The only place where a stream ends; it happens once.

        The feed is cancelled first, so that a provider's connection is closed before what it used is computed.

        Args:
            ending: how.
            epoch: of the actor that ends it. An actor of an earlier epoch has no effect. None is for `Finisher` and
                the sentinel, which act when there is no actor.

        Returns whether this call has ended it.
        """
        log, intake, feed = self.log, self.intake, self.feed
        if not log.is_open(epoch):
            return False
        intake.close(epoch)
        if feed is not None:
            feed.cancel()
        if self.let_go is not nothing:
            with self._lock:
                let_go, self.let_go = self.let_go, nothing
            let_go()
        is_ours = False
        try:
            with self._journaling.turn() as is_free:
                with self._writing:
                    is_ours = log.is_open(epoch) and self._write_terminal(ending, epoch)
                if is_ours:
                    intake.clear()
                    assert log.terminal is not None
                    if (
                        is_free and self.journal is not None
                    ):  # if it is not free, this thread would hang in the journal too
                        for event in (*log.last_events, log.terminal):
                            self._journaling.write_surely(event)
        finally:
            if is_ours:
                self.context = _NO_CONTEXT  # it may refer to a request, or to this very stream
                self.announce_end()
        return is_ours

    def _write_terminal(self, ending: Ending, epoch: int | None) -> bool:
        log, dropped, now = self.log, self.intake.take_dropped(epoch), self.runtime.clock.time()
        if self.is_displaced and log.is_held_back:
            log.discard_held()  # the next owner says something else under their numbers
        last_events = self._last_events(now)
        if last_events:  # there are none if a call that crashed has taken them
            log.last_events = last_events
        match ending:
            case Complete(outcome=outcome):
                return log.complete(outcome or self.outcome(), dropped, now, epoch)
            case Fail(error=error, outcome=outcome):
                return log.fail(error, outcome or self.outcome(), dropped, now, epoch)
            case Cancel(error=error, outcome=outcome) if error is not None:
                return log.fail(error, outcome or self.outcome(), dropped, now, epoch)
            case Cancel(reason=reason):
                return log.cancel(reason, self.outcome(), dropped, now, epoch)

    def _last_events(self, now: float) -> list[SideEvent]:
        try:
            events = [] if self.feed is None else self.feed.leftovers()
        except Exception as error:  # the terminal event must be written in any case
            get_logger(stream_id=self.stream_id).error("events_lost", error=type(error).__name__)
            return []
        return [
            msgspec.structs.replace(event, stream_id=self.stream_id, timestamp=now, metadata=self.metadata)
            for event in events
        ]

    def note_end(self, terminal: TerminalEvent) -> None:
        """Count the end before its event is visible, so that no reader of the event finds it uncounted."""
        self.ended_at = self.runtime.clock.monotonic()
        self.counters.state_changes += 1
        self.enter("ended", _CAUSES[type(terminal)], self.ended_at)
        if self.table is not None:
            self.table.count_end(self, terminal)

    @property
    def is_announced(self) -> bool:
        """Whether the terminal event has been announced, or is being announced."""
        return self._is_announced

    @property
    def is_settled(self) -> bool:
        """Whether it has ended, and nothing is left for the handler to do: no end to tell or log, no time to linger."""
        return (
            self._is_announced
            and self.log.terminal.__class__ is not StreamFailed
            and self.on_orphan in ("cancel", "continue")
        )

    def begin_to_announce(self) -> bool:
        """Whether the end is to be announced now; only the first call returns True."""
        with self._lock:
            is_first, self._is_announced = not self._is_announced, True
        return is_first

    def announce_end(self) -> None:
        """Announce the terminal event, once. Also called where `finish` may have hung, or crashed, in the journal.

        Where readers wait for the log store, it is announced when the store has it.
        """
        if is_waiting(self) or not self.begin_to_announce():
            return
        self.log.owner, self.hub.owner = ALONE, UNOWNED  # no circle is left
        self.hub.announce()
        terminal = self.log.terminal
        assert terminal is not None
        over = self._over
        if over is not None:
            with contextlib.suppress(queue.Full):  # made since the line above, with its answer
                over.set(terminal)
        for observer in self.observers:
            notify(observer.ended, self, terminal)

    # --- events into journal and log -----------------------------------------------------------------------------

    def append(self, event: TokenEvent | SideEvent, epoch: int) -> bool:
        """Append an event to the journal and the log; returns whether ``epoch`` may still write.

        The log takes what the journal has taken: nothing can end the stream, or start another epoch, in between.

        Raises:
            Exception: what the journal raised; the log is unchanged.
        """
        with self._journaling.turn():
            if not self.log.is_open(epoch):
                return False
            self._journaling.write(event)
            return self.log.append(epoch, event)

    def reset(self, reason: str, epoch: int, origin: str | None = None) -> bool:
        """Append a `StreamReset`, which voids what came before; returns whether ``epoch`` may still write.

        With an ``origin``, only what came from there is void.
        """
        log = self.log
        with self._journaling.turn():
            if not log.is_open(epoch):
                return False
            now = self.runtime.clock.time()
            event = StreamReset(log.stream_id, log.written + 1, reason, now, log.metadata, origin)
            self._journaling.write_surely(event)
            is_ours = log.append(epoch, event)
        if is_ours:
            for observer in self.observers:
                notify(observer.happened, self, event)
        return is_ours

    def void_answer(self) -> None:
        """Note that everything that has come so far does not belong to the terminal event."""
        self.rounds = tuple(msgspec.structs.replace(outcome, is_void=True) for outcome in self.rounds)
        if self.feed is not None:
            self.feed.void_answer(self.intake.void_text)

    def said_text(self) -> int:
        """How many characters of text have come, with those that were voided or dropped."""
        return self.intake.void_text + self.intake.buffer.dropped_text + self.log.text_length(with_buffered=True)

    def new_epoch(self) -> int:
        """Start the epoch of a new actor, after an append that the previous actor has under way is done."""
        if self.journal is None:
            with self._writing:
                return self.log.new_epoch()
        with self._journaling.turn(), self._writing:
            return self.log.new_epoch()

    def after_fork(self) -> None:
        """Refuse tokens and readers, in the child of a fork: the threads of the stream are not there."""
        self.intake.after_fork()
        self.hub.after_fork()

    # --- statistics ----------------------------------------------------------------------------------------------

    def outcome(self) -> Outcome:
        """Everything the feed has received so far except the text, in all rounds. Any thread; never raises."""
        ending = self.ending
        if isinstance(ending, (Complete, Fail)) and ending.outcome is not None:
            return ending.outcome
        feed = self.feed
        if feed is None:
            return Outcome()
        try:
            return all_rounds([*self.rounds[: feed.round - 1], feed.outcome()])
        except Exception as error:  # the terminal event must be written in any case
            get_logger(stream_id=self.stream_id).error("outcome_unknown", error=type(error).__name__)
            return Outcome()
