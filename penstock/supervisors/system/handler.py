"""The handler: opens streams, knows who reads them, and cleans up after whatever ends.

It decides; what it knows is in the `StreamTable` and in each stream's record, so that it can crash and come back
without a stream or a subscriber noticing. It never waits for a stream.

Accepts: `OpenStream` as a call (answered by the stream's supervisor when the stream runs); `StartSource`; `Watch`,
`Orphaned`, `Abandoned`, `ChildExited`, `Sweep` as news.
Sends: to the supervisors, to start and end; to streams, `Cancel`; to a stream's conductor, `RoundEnded`.
Fails: restarted; rebuilds its tables from the records.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pykka
from pykka._envelope import Envelope

from penstock.actors.call.integration import Integration
from penstock.actors.call.record import Source
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.signals import NOPROC, Down, is_clean
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import (
    Call,
    Cast,
    Event,
    Info,
    Keep,
    NamedTimeout,
    Transition,
    answer_error,
    timeout,
)
from penstock.actors.stream.actor import TokenStream
from penstock.actors.stream.log import Outcome
from penstock.actors.stream.messages import Cancel, Fail
from penstock.actors.stream.record import StreamRecord, StreamTable
from penstock.actors.stream.subscriptions import PushSubscription, Subscription
from penstock.config.logs import get_logger
from penstock.errors import (
    CallTimeout,
    PenstockError,
    ProcessDead,
    StartError,
    StreamCrashed,
    StreamExists,
    SupervisorError,
    describe_reason,
)
from penstock.events import StreamCancelled, StreamCompleted, StreamFailed
from penstock.supervisors.calls import ReportChild, StartChild
from penstock.supervisors.registry import Sweep
from penstock.supervisors.spec import ChildExited, ChildSpec

__all__ = [
    "HANDLER",
    "SOURCES",
    "STREAMS",
    "Abandoned",
    "OpenStream",
    "Orphaned",
    "StartSource",
    "StreamHandler",
    "Watch",
    "ask_for_stream",
]

_ORPHANED: Final = "nobody reads it"
_RESTART_LOOK: Final = 0.005  # seconds between two looks whether a crashed handler is back

HANDLER = "handler"
STREAMS = "streams"
SOURCES = "sources"


class OpenStream(msgspec.Struct, frozen=True):
    """Ask for a stream. Who was not answered because the handler crashed asks again with the same record."""

    record: StreamRecord


class StartSource(msgspec.Struct, frozen=True):
    """Start an integration for the record's source, as its conductor has given it a new one. Harmless if it runs."""

    record: StreamRecord


class Watch(msgspec.Struct, frozen=True):
    """An actor has subscribed: see to it that its death is noticed."""

    subscription: PushSubscription


class Orphaned(msgspec.Struct, frozen=True):
    """The last subscriber of a stream has left."""

    record: StreamRecord


class Abandoned(msgspec.Struct, frozen=True):
    """An iterator was dropped without being closed."""

    record: StreamRecord
    subscription: Subscription


class StreamHandler(StateMachine):
    """See the module's docstring. There is one in a system."""

    def init(self, table: StreamTable) -> str:
        self._table = table
        # By actor: its subscriptions, as a set that keeps their order.
        self._watched: dict[ProcessRef, dict[PushSubscription, None]] = {}
        self._foreign: dict[pykka.ActorRef[Any], dict[PushSubscription, None]] = {}
        self._lingering: dict[int, tuple[float, StreamRecord]] = {}  # by serial: orphaned, and until when that is fine
        self._linger_ends: list[tuple[float, int]] = []  # a heap of the same; some are out of date
        for record in table.all():
            self._adopt(record)
        return "serving"

    def _adopt(self, record: StreamRecord) -> None:
        """After a crash: go on where the last handler stopped, whatever it had begun or been told and not done."""
        for subscription in record.hub.subscriptions:
            if not subscription.is_active:
                record.hub.remove(subscription)
            elif isinstance(subscription, PushSubscription):
                self._watch(subscription)
        source = record.source
        if record.ended_at is not None:
            if source is not None and not self._is_at_work(source):  # it was told, and killed before it heard
                source.abandon()
            return
        if record.ref is None and not record.is_over:  # it may not even have been asked for
            self._tell(STREAMS, StartChild(self._stream_spec(record)))
        else:
            self._tell(STREAMS, ReportChild(self._stream_spec(record)))
        if source is not None and not record.is_over:
            self._tell(SOURCES, ReportChild(self._source_spec(record, source)))
        if record.hub.is_orphaned:
            self.ref.tell(Orphaned(record))

    def _tell(self, supervisor: str, message: Any) -> None:
        ref = self.runtime.whereis(supervisor)
        if ref is not None:  # if not, it is just being restarted, and this handler with it
            ref.tell(message)

    # --- its only state ------------------------------------------------------------------------------------------

    def serving(self, event: Event) -> Transition:
        """Serve."""
        match event:
            case Cast(message=ChildExited() as exited):
                self._child_exited(exited)
            case Call(message=OpenStream() as request):
                return self._open(request, event)
            case Cast(message=StartSource(record=record)):
                if not record.is_over:
                    self._start_source(record)
            case Cast(message=Watch(subscription=subscription)):
                self._watch(subscription)
            case Cast(message=Orphaned(record=record)):
                return self._orphaned(record)
            case NamedTimeout():
                return self._lingered()
            case Cast(message=Abandoned(record=record, subscription=subscription)):
                record.hub.remove(subscription)
            case Cast(message=Sweep()):
                self._sweep()
            case Info(message=Down(process=process)):
                for subscription in self._watched.pop(process, ()):
                    subscription.died()
            case _:
                return self.unhandled(event)
        return None

    # --- opening -------------------------------------------------------------------------------------------------

    def _open(self, request: OpenStream, event: Call) -> Transition:
        streams = self.runtime.whereis(STREAMS)
        if streams is None:  # it is just being restarted, and this handler with it
            return Keep(answer_error(event.reply_to, ProcessDead(STREAMS)))
        record = request.record
        if self._table.find(record.stream_id) is not record:
            self._introduce(record)
            try:
                self._table.add(record)
            except StreamExists as error:
                return Keep(answer_error(event.reply_to, error))
        # The supervisor answers the caller itself, when the stream runs.
        streams.actor_inbox.put(Envelope(StartChild(self._stream_spec(record)), reply_to=event.reply_to))
        self._start_source(record)
        return None

    def _start_source(self, record: StreamRecord) -> None:
        if record.source is not None:
            self._tell(SOURCES, StartChild(self._source_spec(record, record.source)))

    def _introduce(self, record: StreamRecord) -> None:
        """Let the record's hub tell whoever is the handler at the time."""
        whereis = self.runtime.whereis

        def tell(message: Any) -> None:
            handler = whereis(HANDLER)
            if handler is not None:
                handler.tell(message)

        record.hub.on_empty = lambda: tell(Orphaned(record))
        record.hub.on_abandoned = lambda subscription: tell(Abandoned(record, subscription))

    # --- ends ----------------------------------------------------------------------------------------------------

    def _child_exited(self, exited: ChildExited) -> None:
        """A stream or an integration is gone for good."""
        record: StreamRecord = exited.spec.args[0]
        if exited.supervisor == SOURCES:
            self._source_exited(record, exited.spec.args[1], exited.reason)
        elif record.ended_at is None:
            if record.is_over:
                record.conclude()  # it may have crashed before it had told everybody
            else:
                self._write_terminal(record, exited.reason)
            self._settle(record)

    def _source_exited(self, record: StreamRecord, source: Source, reason: object) -> None:
        if source is not record.source or source.is_handed_over or record.ending is not None or record.is_over:
            if not self._is_at_work(source):
                source.abandon()
        elif isinstance(reason, str) and reason == NOPROC:
            self._start_source(record)  # its supervisor died with it: a new one goes on
        else:
            source.abandon()
            error = StreamCrashed(record.stream_id, ("integration", reason))
            source.end(record, Fail(error, source.outcome()))

    def _is_at_work(self, source: Source) -> bool:
        return source.ref is not None and self.runtime.is_alive(source.ref)

    def _write_terminal(self, record: StreamRecord, reason: object) -> None:
        """The stream's actor could not: every stream ends in exactly one terminal event."""
        log, now = record.log, self.runtime.clock.time()
        record.intake.close()
        dropped = record.intake.take_dropped()
        if is_clean(reason):
            log.cancel(describe_reason(reason), record.outcome(), dropped, now)
        else:
            error: PenstockError = StreamCrashed(record.stream_id, reason)
            error.__cause__ = reason if isinstance(reason, BaseException) else None
            log.fail(error, record.outcome(), dropped, now)
        record.conclude()

    def _settle(self, record: StreamRecord) -> None:
        """A stream has ended: count it, let its source go, keep it for a while."""
        table = self._table
        record.ended_at = self.runtime.clock.monotonic()
        self._lingering.pop(record.serial, None)
        if table.find(record.stream_id) is not record:
            table.forget(record)
        table.active -= 1
        table.tokens += record.log.tokens
        match record.log.terminal:
            case StreamCompleted():
                table.completed += 1
            case StreamFailed(error=error):
                table.failed += 1
                get_logger(stream_id=record.stream_id).info("stream_failed", error=describe_reason(error))
            case StreamCancelled():
                table.cancelled += 1
        source = record.source
        if source is not None:
            if source.ref is not None and self.runtime.is_alive(source.ref):
                source.ref.tell(Cancel())
            else:  # its integration was killed
                source.abandon()

    # --- subscribers ---------------------------------------------------------------------------------------------

    def _watch(self, subscription: PushSubscription) -> None:
        ref = subscription.ref
        known: Any = self._watched if isinstance(ref, ProcessRef) else self._foreign
        others = known.get(ref)
        if others is None:
            known[ref] = {subscription: None}
            if isinstance(ref, ProcessRef):
                self.runtime.monitor(self.ref, ref)
            return
        if len(others) >= 16 and len(others) & (len(others) - 1) == 0:  # now and then, in constant time on average
            known[ref] = others = {other: None for other in others if other.is_active}
        others[subscription] = None

    def _orphaned(self, record: StreamRecord) -> Transition:
        if record.is_over or not record.hub.is_orphaned:
            return None
        if record.on_orphan == "cancel":
            self._cancel_stream(record, _ORPHANED)
        elif record.on_orphan != "continue":
            until = self.runtime.clock.monotonic() + record.on_orphan
            self._lingering[record.serial] = (until, record)
            heapq.heappush(self._linger_ends, (until, record.serial))
            if len(self._linger_ends) > 2 * len(self._lingering) + 64:  # mostly of those who came and left again
                self._linger_ends = [(end, serial) for serial, (end, _) in self._lingering.items()]
                heapq.heapify(self._linger_ends)
            return self._wait_for_linger()
        return None

    def _wait_for_linger(self) -> Transition:
        until = self._linger_ends[0][0] if self._linger_ends else None
        return Keep(timeout("linger", until, absolute=True))

    def _lingered(self) -> Transition:
        """Somebody's time to linger is over; who was subscribed to since, or has ended, is let be."""
        now = self.runtime.clock.monotonic()
        while self._linger_ends and self._linger_ends[0][0] <= now:
            ended, serial = heapq.heappop(self._linger_ends)
            until, record = self._lingering.get(serial, (None, None))
            if record is not None and until == ended:
                del self._lingering[serial]
                if record.hub.is_orphaned:
                    self._cancel_stream(record, _ORPHANED)
        return self._wait_for_linger()

    def _cancel_stream(self, record: StreamRecord, reason: str) -> None:
        if record.ref is not None and not record.is_over:
            record.ref.tell(Cancel(reason))

    # --- sweeping ------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        for ref, subscriptions in list(self._foreign.items()):
            if not ref.is_alive():
                del self._foreign[ref]
                for subscription in subscriptions:
                    subscription.died()
            elif not any(subscription.is_active for subscription in subscriptions):
                del self._foreign[ref]
        for watched in self._watched.values():  # an actor that lives long must not keep what it once read
            for subscription in [one for one in watched if not one.is_active]:
                del watched[subscription]
        now = self.runtime.clock.monotonic()
        for record in self._table.all():
            if record.ended_at is not None:
                if now - record.ended_at >= record.options.keep_finished:
                    self._table.forget(record)
            elif not record.hub.had_subscriber:
                limit = record.options.time_to_live
                if limit is not None and now - record.counters.last_activity >= limit:
                    self._cancel_stream(record, "time_to_live")

    # --- children ------------------------------------------------------------------------------------------------

    def _stream_spec(self, record: StreamRecord) -> ChildSpec:
        transient = record.restart == "transient" or record.options.auto_restart
        return ChildSpec(
            id=f"{record.stream_id}#{record.serial}",
            cls=TokenStream,
            args=(record,),
            restart="transient" if transient else "temporary",
            name=self._free_name(f"stream/{record.stream_id}", record),
        )

    def _source_spec(self, record: StreamRecord, source: Source) -> ChildSpec:
        return ChildSpec(
            id=f"{record.stream_id}#{record.serial}.{source.round}",
            cls=Integration,
            args=(record, source),
            restart="transient",
            name=self._free_name(f"source/{record.stream_id}", record),
        )

    def _free_name(self, name: str, record: StreamRecord) -> str:
        """The name, or one much like it while somebody who had it before is still about to end."""
        return name if self.runtime.whereis(name) is None else f"{name}#{record.serial}"


def ask_for_stream(
    runtime: Runtime, make: Callable[[], StreamRecord], limit: float, check_running: Callable[[], None]
) -> StreamRecord:
    """Have the handler open a stream, from outside; if it is just being restarted, ask the new one for the same.

    Args:
        runtime: where the handler is.
        make: makes a record; again if the first was ended with its supervisor before anybody had it.
        limit: seconds for all of it.
        check_running: raises if there will be no handler any more.

    Raises:
        CallTimeout: it took too long. Should the stream start all the same, it ends at once: nobody holds it.
        PenstockError: the handler or the supervisor refused.
    """
    deadline = runtime.clock.monotonic() + limit
    record = make()
    while True:
        check_running()
        if record.is_over:
            record = make()
        left = deadline - runtime.clock.monotonic()
        try:
            if left <= 0:
                raise CallTimeout("the handler", limit)
            handler = runtime.whereis(HANDLER)
            if handler is None:
                raise ProcessDead(HANDLER)
            handler.ask(OpenStream(record), timeout=left)
        except SupervisorError as error:
            if error.code != "already_started":  # by the request that was not answered
                raise
        except StartError:
            if not record.is_over:
                raise
            continue  # it was ended, with its supervisor, while it started
        except ProcessDead:
            runtime.dispatcher.pause(min(_RESTART_LOOK, max(left, 0.0)))
            continue
        except (CallTimeout, KeyboardInterrupt, SystemExit):
            _give_up(record)
            raise
        return record


def _give_up(record: StreamRecord) -> None:
    """Nobody will ever hold this stream. Written first, as its actor and its integration look at it when they start."""
    record.ending = record.ending or Fail(StreamCrashed(record.stream_id, "its opener gave up"), Outcome())
    if record.ref is not None:
        record.ref.tell(Cancel("its opener gave up"))
