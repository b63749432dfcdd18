"""The end of all streams: asked for, or because the tree itself has ended, which the sentinel beside it sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from penstock.actors.agent.record import AgentTable
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.signals import Down
from penstock.actors.stream.messages import Cancel, Flush, StopStream
from penstock.actors.stream.record import StreamRecord, StreamTable
from penstock.errors import CallTimeout, StreamCrashed
from penstock.ports import Clock
from penstock.supervisors.system.agents import end_agents

__all__ = ["Sentinel", "end_all", "fail_all", "stop_streams"]

_PATIENCE: Final = 0.25  # seconds to wait for a stream's end before the next one is told to end


class Sentinel(Process):
    """Waits for the end of the root supervisor: nobody is left to write the terminal events then."""

    in_pykka_registry = False

    def __init__(self, root: ProcessRef, table: StreamTable, agents: AgentTable, clock: Clock) -> None:
        super().__init__()
        self._root = root
        self._table = table
        self._agents = agents
        self._clock = clock

    def on_start(self) -> None:
        self.runtime.monitor(self.ref, self._root)

    def on_receive(self, message: Any) -> None:
        if isinstance(message, Down):
            end_all(self._table, self._agents, self._clock, message.reason)
            self.exit()


def stop_streams(table: StreamTable, left: Callable[[], float]) -> None:
    """End all streams, each when the one before it has, so that their ends come in order.

    One that takes its time is not waited for before the others have been told.
    """
    slow: list[Reply] = []
    fed: list[StreamRecord] = []
    records = table.all()
    for record in records:  # no request that waits for a reader shall get one because another's is ended
        source = record.source
        if source is not None and not source.started:
            source.abandon()
    for record in records:
        if record.ref is None or record.is_over:
            continue
        if record.feeder is not None and record.ending is None and record.runtime.is_alive(record.feeder):
            reply = record.over  # the stream before it has been told, being older; what it still has comes through
            fed.append(record)
        elif record.source is not None and record.ending is None:
            reply = _cut_off(record.ref)
        else:
            reply = record.ref.ask(StopStream(), block=False)
        if not _is_answered(reply, min(_PATIENCE, left())):
            slow.append(reply)
    for reply in slow:
        _is_answered(reply, left())  # if not, it is ended with its supervisor
    for record in fed:
        if record.ref is not None and not record.is_over:
            _is_answered(_cut_off(record.ref), _PATIENCE)


def _cut_off(ref: ProcessRef) -> Reply:
    """Let a stream emit what it has and end, though it was to get more."""
    ref.ask(Flush(), block=False)
    reply: Reply = ref.ask(Cancel("shutdown"), block=False)
    return reply


def _is_answered(reply: Reply, timeout: float) -> bool:
    """Whether there is an answer, or will be none, within ``timeout`` seconds."""
    try:
        reply.get(timeout=timeout)
    except CallTimeout:
        return False
    except BaseException:
        if not reply.is_done:  # not the stream's end but ours: Ctrl-C
            raise
    return True


def end_all(table: StreamTable, agents: AgentTable, clock: Clock, reason: object) -> None:
    """The tree has ended, and whatever has not with it ends now."""
    fail_all(table, clock, reason)
    end_agents(agents)


def fail_all(table: StreamTable, clock: Clock, reason: object) -> None:
    """Give every stream that has none its terminal event."""
    for record in table.all():
        if not record.is_over:
            _fail(record, clock.time(), reason)
        elif not record.over.is_done:  # whoever wrote the terminal event did not get round to telling
            record.conclude()


def _fail(record: StreamRecord, now: float, reason: object) -> None:
    record.intake.close()
    if record.log.fail(StreamCrashed(record.stream_id, reason), record.outcome(), record.intake.take_dropped(), now):
        record.conclude()
    if record.source is not None:
        record.source.abandon()
