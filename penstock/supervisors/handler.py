"""The handler: opens streams, knows who reads them, and cleans up after whatever ends.

It decides; what it knows is in the `StreamTable` and in each stream's record, so that it can crash and come back
without a stream or a subscriber noticing. It never waits for a stream.

Accepts: `OpenStream` as a call (answered by the stream's supervisor when the stream runs); `Watch`, `Orphaned`,
`Abandoned`, `ChildExited`, `Sweep` as news.
Sends: to the supervisors, to start and end; to streams, `Cancel`.
Fails: restarted; rebuilds its tables from the records.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pykka
from pykka._envelope import Envelope

from penstock.actors.flow.log import Outcome
from penstock.actors.integration import Integration
from penstock.actors.messages import Cancel, Fail
from penstock.actors.record import Source, StreamRecord, StreamTable
from penstock.actors.runtime.process import ProcessRef
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
    cancel_timeout,
    timeout,
)
from penstock.actors.stream import TokenStream
from penstock.actors.subscriptions import PushSubscription, Subscription
from penstock.config.logs import get_logger
from penstock.config.options import OnOrphan, Restart, StreamOptions
from penstock.errors import PenstockError, StreamCrashed, StreamExists, SystemStopped, describe_reason
from penstock.events import StreamCancelled, StreamCompleted, StreamFailed
from penstock.ports import Journal
from penstock.supervisors.registry import Sweep
from penstock.supervisors.spec import ChildExited, ChildSpec
from penstock.supervisors.supervisor import ReportChild, StartChild

__all__ = ["HANDLER", "SOURCES", "STREAMS", "Abandoned", "OpenStream", "Orphaned", "StreamHandler", "Watch"]

HANDLER = "handler"
STREAMS = "streams"
SOURCES = "sources"


class OpenStream(msgspec.Struct, frozen=True):
    """Ask for a stream. ``token`` tells a repeated request from another one's for the same id."""

    stream_id: str
    options: StreamOptions
    metadata: Any
    on_orphan: OnOrphan
    restart: Restart
    journal: Journal | None
    source: Source | None
    token: object


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
        self._watched: dict[ProcessRef, list[PushSubscription]] = {}
        self._foreign: dict[pykka.ActorRef[Any], list[PushSubscription]] = {}
        for record in table.all():
            self._adopt(record)
        return "serving"

    def _adopt(self, record: StreamRecord) -> None:
        """After a crash: go on where the last handler stopped."""
        if record.ended_at is not None:
            return
        for subscription in record.hub.subscriptions:
            if isinstance(subscription, PushSubscription):
                self._watch(subscription)
        if record.is_over:
            self._settle(record)
            return
        self._ask_for(STREAMS, record.stream_id)
        if record.source is not None:
            self._ask_for(SOURCES, record.stream_id)
        if record.hub.is_orphaned:
            self.ref.tell(Orphaned(record))

    def _ask_for(self, supervisor: str, child: str) -> None:
        ref = self.runtime.whereis(supervisor)
        if ref is not None:
            ref.tell(ReportChild(child))

    # --- its only state ------------------------------------------------------------------------------------------

    def serving(self, event: Event) -> Transition:
        """Serve."""
        match event:
            case Cast(message=ChildExited() as exited):
                self._child_exited(exited)
            case Call(message=OpenStream() as request):
                return self._open(request, event)
            case Cast(message=Watch(subscription=subscription)):
                self._watch(subscription)
            case Cast(message=Orphaned(record=record)):
                return self._orphaned(record)
            case NamedTimeout(content=StreamRecord() as record):
                if record.hub.is_orphaned:
                    self._cancel_stream(record, "nobody reads it")
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
        if streams is None:
            return Keep(answer_error(event.reply_to, SystemStopped()))
        record = self._table.find(request.stream_id)
        if record is None or record.token is not request.token or record.is_over:
            record = StreamRecord(
                self.runtime,
                request.stream_id,
                request.options,
                metadata=request.metadata,
                on_orphan=request.on_orphan,
                restart=request.restart,
                journal=request.journal,
                source=request.source,
                token=request.token,
            )
            try:
                self._table.add(record)
            except StreamExists as error:
                return Keep(answer_error(event.reply_to, error))
            self._introduce(record)
        # The supervisor answers the caller itself, when the stream runs.
        streams.actor_inbox.put(Envelope(StartChild(_stream_spec(record)), reply_to=event.reply_to))
        if record.source is not None:
            self._start_source(record)
        return None

    def _start_source(self, record: StreamRecord) -> None:
        sources = self.runtime.whereis(SOURCES)
        if sources is not None:
            sources.tell(StartChild(_source_spec(record)))

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
        record = self._table.find(exited.id)
        if record is None or record.ended_at is not None:
            return
        if exited.supervisor == SOURCES:
            if record.source is not None and record.ending is None and not record.is_over:
                if exited.reason == NOPROC:  # its supervisor died with it: a new one goes on
                    self._start_source(record)
                else:
                    self._fail_source(record, exited.reason)
            return
        if exited.ref is not None and record.ref is not None and exited.ref is not record.ref:
            return  # an earlier stream of the same id
        if not record.is_over:
            self._write_terminal(record, exited.reason)
        self._settle(record)

    def _fail_source(self, record: StreamRecord, reason: object) -> None:
        error = StreamCrashed(record.stream_id, ("integration", reason))
        record.ending = Fail(error, Outcome())
        if record.ref is not None:
            record.ref.tell(record.ending)

    def _write_terminal(self, record: StreamRecord, reason: object) -> None:
        """The stream's actor could not: every stream ends in exactly one terminal event."""
        log, now = record.log, self.runtime.clock.time()
        record.intake.close()
        dropped = record.intake.take_dropped()
        if is_clean(reason):
            log.cancel(describe_reason(reason), Outcome(), dropped, now)
        else:
            error: PenstockError = StreamCrashed(record.stream_id, reason)
            error.__cause__ = reason if isinstance(reason, BaseException) else None
            log.fail(error, Outcome(), dropped, now)
        record.conclude()

    def _settle(self, record: StreamRecord) -> None:
        """A stream has ended: count it, let its source go, keep it for a while."""
        table = self._table
        record.ended_at = self.runtime.clock.monotonic()
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
            elif source.attempt is not None:  # its integration was killed
                source.attempt.abandon()

    # --- subscribers ---------------------------------------------------------------------------------------------

    def _watch(self, subscription: PushSubscription) -> None:
        ref = subscription.ref
        known: Any = self._watched if isinstance(ref, ProcessRef) else self._foreign
        others = known.get(ref)
        if others is None:
            known[ref] = [subscription]
            if isinstance(ref, ProcessRef):
                self.runtime.monitor(self.ref, ref)
            return
        if len(others) >= 16 and len(others) & (len(others) - 1) == 0:  # now and then, in constant time on average
            others[:] = [other for other in others if other.is_active]
        if subscription not in others:
            others.append(subscription)

    def _orphaned(self, record: StreamRecord) -> Transition:
        if record.is_over or not record.hub.is_orphaned:
            return None
        name = ("linger", record.stream_id)
        if record.on_orphan == "continue":
            return Keep(cancel_timeout(name))
        if record.on_orphan == "cancel":
            self._cancel_stream(record, "nobody reads it")
            return None
        return Keep(timeout(name, record.on_orphan, record))

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
        now = self.runtime.clock.monotonic()
        for record in self._table.all():
            if record.ended_at is not None:
                if now - record.ended_at >= record.options.keep_finished:
                    self._table.forget(record)
            elif not record.hub.had_subscriber:
                limit = record.options.time_to_live
                if limit is not None and now - record.counters.last_activity >= limit:
                    self._cancel_stream(record, "time_to_live")


def _stream_spec(record: StreamRecord) -> ChildSpec:
    transient = record.restart == "transient" or record.options.auto_restart
    return ChildSpec(
        id=record.stream_id,
        cls=TokenStream,
        args=(record,),
        restart="transient" if transient else "temporary",
        name=f"stream/{record.stream_id}",
    )


def _source_spec(record: StreamRecord) -> ChildSpec:
    return ChildSpec(
        id=record.stream_id,
        cls=Integration,
        args=(record,),
        restart="transient",
        name=f"source/{record.stream_id}",
    )
