"""Ends all streams: on request, or when the supervision tree has ended, which the sentinel notices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from penstock.actors.agent.table import AgentTable
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.signals import Down
from penstock.actors.stream.messages import Cancel, Fail, StopStream
from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.table import StreamTable
from penstock.errors import CallTimeout, StreamCrashed
from penstock.supervisors.system.agents import end_agents

__all__ = ["Sentinel", "end_all", "fail_all", "stop_streams"]

_PATIENCE: Final = 0.25  # seconds to wait for a stream's end before the next one is ended


class Sentinel(Process):
    """Ends all streams when the root supervisor is dead, as no other process is left to do it."""

    in_pykka_registry = False

    def __init__(self, root: ProcessRef, table: StreamTable, agents: AgentTable) -> None:
        super().__init__()
        self._root = root
        self._table = table
        self._agents = agents

    def on_start(self) -> None:
        self.runtime.monitor(self.ref, self._root)

    def on_receive(self, message: Any) -> None:
        if isinstance(message, Down):
            end_all(self._table, self._agents, message.reason)
            self.exit()


def stop_streams(table: StreamTable, left: Callable[[], float]) -> None:
    """End all streams in the order in which they were opened.

    Each is waited for, but for a quarter of a second at most, before the next one is ended. The slow ones are waited
    for at the end.
    """
    slow: list[Reply] = []
    fed: list[StreamRecord] = []
    records = table.all()
    for record in records:  # first: a queued request must not get the reader thread of an ended one
        feed = record.feed
        if feed is not None and not feed.started:
            feed.abandon()
    for record in records:
        ref = record.ref
        if ref is None or record.is_over:
            continue
        if record.feeder is not None and record.ending is None and record.runtime.is_alive(record.feeder):
            reply = record.over  # the older stream that feeds it is ending; its remaining tokens still come
            fed.append(record)
        elif (record.feed is not None or record.kind is not None) and record.ending is None:
            reply = _cut_off(ref)
        else:
            reply = ref.ask(StopStream(), block=False)
        if not _is_answered(reply, min(_PATIENCE, left())):
            slow.append(reply)
    for reply in slow:
        _is_answered(reply, left())  # if not, the stream is ended with its supervisor
    for record in fed:
        ref = record.ref
        if ref is not None and not record.is_over:
            _is_answered(_cut_off(ref), _PATIENCE)


def _cut_off(ref: ProcessRef) -> Reply:
    """Have a stream take no more, emit what is buffered, and end as cancelled, as its feed has not finished.

    In one message: between a flush, which makes room, and a cancel, a quick reader would push more.
    """
    reply: Reply = ref.ask(StopStream(Cancel("shutdown")), block=False)
    return reply


def _is_answered(reply: Reply, timeout: float) -> bool:
    """Wait for ``timeout`` seconds at most; returns False if there is no answer yet."""
    try:
        reply.get(timeout=timeout)
    except CallTimeout:
        return False
    except BaseException:
        if not reply.is_done:  # Ctrl-C in this thread
            raise
    return True


def end_all(table: StreamTable, agents: AgentTable, reason: object) -> None:
    """End every stream and agent that is left after the tree has ended."""
    fail_all(table, reason)
    end_agents(agents)


def fail_all(table: StreamTable, reason: object) -> None:
    """End every stream that still runs, with `StreamFailed`."""
    for record in table.all():
        if record.is_over:
            record.announce_end()
        else:
            record.finish(Fail(StreamCrashed(record.stream_id, reason)))
        if record.feed is not None:
            record.feed.abandon()
