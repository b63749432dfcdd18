"""Ends streams whose actor has died without ending them."""

from __future__ import annotations

from typing import Any

from penstock.actors.runtime.process import Process
from penstock.actors.runtime.signals import Ephemeral
from penstock.actors.stream.messages import Ending
from penstock.actors.stream.record import StreamRecord
from penstock.config.logs import get_logger
from penstock.errors import describe_reason
from penstock.events import StreamFailed

__all__ = ["Finisher", "finish", "log_failure"]


def finish(record: StreamRecord, ending: Ending) -> None:
    """End a stream that has no actor. It never blocks: a stream with a journal is ended by a process of its own."""
    if record.journal is None:
        record.finish(ending)
        log_failure(record)
    else:
        record.runtime.spawn(Finisher, record, ending).tell(_Go())


def log_failure(record: StreamRecord) -> None:
    """Log that a stream has failed, if it has."""
    terminal = record.log.terminal
    if isinstance(terminal, StreamFailed):
        get_logger(stream_id=record.stream_id).info("stream_failed", error=describe_reason(terminal.error))


class _Go(Ephemeral):
    """A finisher's message to itself, so that the journal is not called in the thread of the handler."""

    __slots__ = ()


class Finisher(Process):
    """Ends one stream, whose journal may hang, and then itself."""

    in_pykka_registry = False

    def __init__(self, record: StreamRecord, ending: Ending) -> None:
        super().__init__()
        self._record = record
        self._ending = ending

    def on_receive(self, message: Any) -> None:
        self._record.finish(self._ending)
        log_failure(self._record)
        self.exit()
