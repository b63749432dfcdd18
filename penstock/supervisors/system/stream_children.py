"""The processes of a stream as children of their supervisors: its actor, and the integration of its provider's call."""

from __future__ import annotations

from typing import Final

from penstock.actors.call.integration import Integration
from penstock.actors.runtime.node import Node
from penstock.actors.stream.actor import TokenStream
from penstock.actors.stream.feed import Feed
from penstock.actors.stream.record import StreamRecord
from penstock.supervisors.children import Child
from penstock.supervisors.spec import ChildSpec

__all__ = ["SOURCES", "STREAMS", "call_child", "stream_child"]

STREAMS: Final = "streams"
SOURCES: Final = "sources"

_TEMPORARY: Final = ChildSpec(id="stream", cls=TokenStream, restart="temporary")
_TRANSIENT: Final = ChildSpec(id="stream", cls=TokenStream, restart="transient")
_CALL: Final = ChildSpec(id="source", cls=Integration, restart="transient")


def stream_child(record: StreamRecord, runtime: Node) -> Child:
    """A stream's actor."""
    is_transient = record.restart == "transient" or record.options.auto_restart
    return Child(
        _TRANSIENT if is_transient else _TEMPORARY,
        f"{record.stream_id}#{record.serial}",
        (record,),
        _free_name("stream/", record, runtime),
    )


def call_child(record: StreamRecord, call: Feed, runtime: Node) -> Child:
    """The integration of one of its calls."""
    return Child(
        _CALL,
        f"{record.stream_id}#{record.serial}.{call.round}",
        (record, call),
        _free_name("source/", record, runtime),
    )


def _free_name(kind: str, record: StreamRecord, runtime: Node) -> str:
    """The process's name, with a suffix while a process of an earlier stream still has it."""
    name = kind + record.stream_id
    return name if runtime.whereis(name) is None else f"{name}#{record.serial}"
