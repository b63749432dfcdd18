"""Orders: what one node has another one do with a stream that runs there. They are bytes, as a store carries them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from penstock.actors.stream.messages import Cancel, Flush, Pause, Reset, Resume, SetOptions, StopStream
from penstock.actors.stream.record import StreamRecord
from penstock.cluster.pushes import WaitingPushes
from penstock.config.checks import STARS
from penstock.errors import OptionError, PenstockError, RunsElsewhere, StreamClosed
from penstock.events.codec import CodecError, decode_value, encode_value
from penstock.stream import Stream

__all__ = ["Answer", "answer_of", "carry_out", "order_of"]

_MESSAGES: Final[dict[str, type[Any]]] = {
    kind.__name__: kind for kind in (Cancel, Flush, Pause, Reset, Resume, SetOptions, StopStream)
}
_FIELDS: Final = {"Cancel": ("reason",), "StopStream": ()}  # that can be sent; of the others, all


class Answer(msgspec.Struct, frozen=True):
    """What has come of an order. ``state``: of the stream afterwards. ``error``: instead of a ``value``."""

    state: str
    value: Any = None
    error: PenstockError | None = None


def order_of(stream_id: str, message: Any) -> Mapping[str, Any]:
    """The order to carry out a message to a stream.

    Raises:
        RunsElsewhere: it cannot be sent.
    """
    name = type(message).__name__
    if _MESSAGES.get(name) is not type(message):
        raise RunsElsewhere(stream_id, name)
    fields = _FIELDS.get(name, type(message).__struct_fields__)
    given = {field: getattr(message, field) for field in type(message).__struct_fields__}
    defaults = dict(zip(type(message).__struct_fields__[::-1], type(message).__struct_defaults__[::-1], strict=False))
    if any(value != defaults.get(field) for field, value in given.items() if field not in fields):
        raise RunsElsewhere(stream_id, f"{name} with more than its first fields")
    return {"do": name, "with": {field: given[field] for field in fields}}


def answer_of(stream_id: str, data: bytes) -> Answer:
    """Read an answer.

    Raises:
        RunsElsewhere: the other node does not know the order.
    """
    try:
        found = decode_value(data)
        return Answer(found["state"], found.get("value"), found.get("error"))
    except (CodecError, TypeError, KeyError):
        raise RunsElsewhere(stream_id, "what was asked for") from None


def carry_out(
    record: StreamRecord,
    data: bytes,
    set_readers: Callable[[StreamRecord, str, bool], None],
    pushes: WaitingPushes,
    call_timeout: float,
) -> bytes:
    """Carry out an order where the stream runs; returns the answer. May wait for the stream.

    Args:
        record: of the stream.
        data: the order.
        set_readers: notes that a node has readers of the stream, or none.
        pushes: those that wait on this node. One too many does not wait: its sender gets `BufferFull`, and tries again.
        call_timeout: seconds for the stream to answer, at most, if the order says nothing else.
    """
    try:
        order = decode_value(data)
        value = _do(record, order, set_readers, pushes, min(call_timeout, float(order.get("within", call_timeout))))
    except PenstockError as error:
        return encode_value({"state": record.state, "error": error})
    return encode_value({"state": record.state, "value": value})


def _do(
    record: StreamRecord,
    order: Mapping[str, Any],
    set_readers: Callable[[StreamRecord, str, bool], None],
    pushes: WaitingPushes,
    timeout: float,
) -> Any:
    stream = Stream(record, timeout)
    match order["do"]:
        case "readers":
            set_readers(record, order["node"], order["on"])
        case "tokens":
            if record.feed is not None:
                raise OptionError("tokens", STARS, "none: the stream gets its tokens from a provider")
            limit = record.options.push_timeout if order["timeout"] is None else float(order["timeout"])
            within = float(order.get("within", timeout))  # the other node waits no longer
            wait = within if limit is None else min(limit, within)
            with pushes.turn(record.stream_id) as may_wait:
                stream.process_tokens(order["texts"], wait if may_wait else 0.0)
        case "orphan":
            record.set_orphan_policy(order["policy"])
        case "facts":
            return {"statistics": msgspec.to_builtins(record.statistics(), enc_hook=repr)}
        case name if name in _MESSAGES:
            if record.is_over:
                raise StreamClosed(record.stream_id)
            return stream._ask(_MESSAGES[name](**order["with"]), timeout)
        case other:
            raise RunsElsewhere(record.stream_id, str(other))
    return None
