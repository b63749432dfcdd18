"""The handler: opens streams, watches their subscribers, and cleans up after processes that end.

Its state is in the `StreamTable` and in each stream's record, so that it can crash and be restarted without any effect
on streams and subscribers. It never blocks on a stream.

Accepts: `OpenStream` as a call (answered by the stream's supervisor when the stream runs); `StartSource`, `Watch`,
`Orphaned`, `Abandoned`, `ChildExited`, `Sweep`.
Sends: requests to start children to the supervisors; `Cancel` to streams; `RoundEnded` to a stream's conductor.
Fails: restarted; rebuilds its tables from the records.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from pykka._envelope import Envelope

from penstock.actors.call.record import CallRecord
from penstock.actors.runtime.node import Node
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
)
from penstock.actors.stream.feed import Feed
from penstock.actors.stream.hub import Subscription
from penstock.actors.stream.messages import Cancel, Fail
from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.subscribers.push import PushSubscription
from penstock.actors.stream.table import StreamTable
from penstock.errors import ProcessDead, StreamCrashed, StreamExists, describe_reason
from penstock.supervisors.calls import ReportChild, StartChild
from penstock.supervisors.registry import Sweep
from penstock.supervisors.spec import ChildExited, ChildSpec
from penstock.supervisors.system.finishing import finish, log_failure
from penstock.supervisors.system.rounds import Rounds
from penstock.supervisors.system.stream_children import SOURCES, STREAMS, call_child, stream_child
from penstock.supervisors.system.watching import SuccessorAnswered, Watching

__all__ = [
    "HANDLER",
    "SOURCES",
    "STREAMS",
    "Abandoned",
    "HandlerNotices",
    "OpenStream",
    "Orphaned",
    "StartSource",
    "StreamHandler",
    "Watch",
]

HANDLER: Final = "handler"


class OpenStream(msgspec.Struct, frozen=True):
    """Open a stream that could not be opened in its caller's thread (`penstock.supervisors.system.opening`).

    If the handler crashes before it answers, ask again with the same record.
    """

    record: StreamRecord


class StartSource(msgspec.Struct, frozen=True):
    """Start an integration for the record's new call, which its conductor has set. Harmless if it runs."""

    record: StreamRecord


class Watch(msgspec.Struct, frozen=True):
    """An actor has subscribed: end the subscription when it dies."""

    subscription: PushSubscription


class Orphaned(msgspec.Struct, frozen=True):
    """The last subscriber of a stream has left."""

    record: StreamRecord


class Abandoned(msgspec.Struct, frozen=True):
    """An iterator was dropped without being closed."""

    record: StreamRecord
    subscription: Subscription


class HandlerNotices:
    """Tells the handler that runs at that time what happens to the subscribers of streams. Any thread; never blocks.

    Without a handler nothing is told: the next one looks at all streams when it starts.
    """

    __slots__ = ("_runtime",)

    def __init__(self, runtime: Node) -> None:
        self._runtime = runtime

    def orphaned(self, record: StreamRecord) -> None:
        """The last subscriber of a stream has left."""
        self._tell(Orphaned(record))

    def abandoned(self, record: StreamRecord, subscription: Subscription) -> None:
        """An iterator was dropped without being closed."""
        self._tell(Abandoned(record, subscription))

    def _tell(self, message: Orphaned | Abandoned) -> None:
        handler = self._runtime.whereis(HANDLER)
        if handler is not None:
            handler.tell(message)


class StreamHandler(StateMachine):
    """See the module's docstring. A system has one."""

    def init(self, table: StreamTable) -> str:
        self._table = table
        self._watching = Watching(self.runtime, self.ref)
        self._rounds: Rounds[StreamRecord] = Rounds()
        for record in table.all():
            self._adopt(record)
        return "serving"

    def _adopt(self, record: StreamRecord) -> None:
        """Continue, after a crash, what the previous handler had begun or been asked to do for this stream."""
        for subscription in record.hub.subscriptions:
            if not subscription.is_active:
                record.hub.remove(subscription)
            elif isinstance(subscription, PushSubscription):
                self._watching.watch(subscription)
        if record.remote is not None:  # its actor is on another node
            return
        call = record.feed
        if record.is_over:
            if call is not None and not self._is_at_work(call):
                call.abandon()
            if not record.is_announced:  # its actor may have died in the journal
                self._tell(STREAMS, ReportChild(self._stream_spec(record)))
            return
        if record.ref is None:  # its start may not have been requested yet
            self._tell(STREAMS, StartChild(self._stream_spec(record)))
        else:
            self._tell(STREAMS, ReportChild(self._stream_spec(record)))
        if call is not None:
            self._tell(SOURCES, ReportChild(self._call_spec(record, call)))
        if record.hub.is_orphaned:
            self.ref.tell(Orphaned(record))

    def _tell(self, supervisor: str, message: Any) -> None:
        ref = self.runtime.whereis(supervisor)
        if ref is not None:  # if None, it is being restarted, and so is this handler
            ref.tell(message)

    # --- the only state ------------------------------------------------------------------------------------------

    def serving(self, event: Event) -> Transition:
        """Serve."""
        match event:
            case Cast(message=ChildExited() as exited):
                self._child_exited(exited)
            case Call(message=OpenStream() as request):
                return self._open(request, event)
            case Cast(message=StartSource(record=record)):
                if not record.is_over:
                    self._start_call(record)
            case Cast(message=Watch(subscription=subscription)):
                self._watching.watch(subscription)
            case Cast(message=Orphaned(record=record)):
                return self._watching.orphaned(record)
            case NamedTimeout(name="linger"):
                return self._watching.lingered()
            case NamedTimeout(name=ProcessRef() as process):
                return self._watching.look_for_successor(process)
            case Cast(message=SuccessorAnswered() as answered):
                return self._watching.successor_answered(answered)
            case Cast(message=Abandoned(record=record, subscription=subscription)):
                record.hub.remove(subscription)
            case Cast(message=Sweep()):
                self._sweep()
            case Info(message=Down(process=process)):
                return self._watching.actor_died(process)
            case _:
                return self.unhandled(event)
        return None

    # --- opening -------------------------------------------------------------------------------------------------

    def _open(self, request: OpenStream, event: Call) -> Transition:
        streams = self.runtime.whereis(STREAMS)
        if streams is None:  # it is being restarted, and so is this handler
            return Keep(answer_error(event.reply_to, ProcessDead(STREAMS)))
        record = request.record
        try:
            self._table.add(record)
        except StreamExists as error:
            return Keep(answer_error(event.reply_to, error))
        # The supervisor answers the caller when the stream runs.
        streams.actor_inbox.put(Envelope(StartChild(self._stream_spec(record)), reply_to=event.reply_to))
        self._start_call(record)
        return None

    def _start_call(self, record: StreamRecord) -> None:
        if record.feed is not None:
            self._tell(SOURCES, StartChild(self._call_spec(record, record.feed)))

    # --- ends ----------------------------------------------------------------------------------------------------

    def _child_exited(self, exited: ChildExited) -> None:
        """A stream's actor or an integration has ended and will not be restarted."""
        record: StreamRecord = exited.spec.args[0]
        if exited.supervisor == SOURCES:
            self._call_exited(record, exited.spec.args[1], exited.reason)
            return
        if record.is_over:
            record.announce_end()
            log_failure(record)
        else:
            finish(record, _ending(record.stream_id, exited.reason))
        self._watching.ended(record)

    def _call_exited(self, record: StreamRecord, call: CallRecord, reason: object) -> None:
        if call.is_settled(record):
            if not self._is_at_work(call):
                call.abandon()
        elif isinstance(reason, str) and reason == NOPROC:
            self._start_call(record)  # it ended with its supervisor: a new integration continues
        else:
            call.abandon()
            call.end(record, StreamCrashed(record.stream_id, ("integration", reason)))

    def _is_at_work(self, call: Feed) -> bool:
        return call.ref is not None and self.runtime.is_alive(call.ref)

    # --- sweeping ------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        self._watching.sweep()
        now = self.runtime.clock.monotonic()
        self._table.forget_ended(now)
        for record in self._rounds.part(self._table.running()):
            record.hub.sweep()
            if not record.hub.had_subscriber and record.remote is None:
                limit = record.options.time_to_live
                if limit is not None and now - record.counters.last_activity >= limit:
                    record.propose(Cancel("time_to_live"))

    # --- children ------------------------------------------------------------------------------------------------

    def _stream_spec(self, record: StreamRecord) -> ChildSpec:
        return stream_child(record, self.runtime).own_spec()

    def _call_spec(self, record: StreamRecord, call: Feed) -> ChildSpec:
        return call_child(record, call, self.runtime).own_spec()


def _ending(stream_id: str, reason: object) -> Fail | Cancel:
    """How a stream ends after its actor has died of ``reason`` without ending it."""
    if is_clean(reason):
        return Cancel(describe_reason(reason))
    error = StreamCrashed(stream_id, reason)
    error.__cause__ = reason if isinstance(reason, BaseException) else None
    return Fail(error)
