"""How `ValkeyJournal` writes entries: an element of a Redis stream each, and a message to those that watch."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from penstock.errors import StoreDamaged
from penstock.ports import Entry, EntryId, LogFrame, OwnerMark

__all__ = ["News", "id_text", "news_of", "read_entry", "read_news"]

_FRAME, _LAST_FRAME, _MARK = b"f", b"l", b"o"
_encode_mark = msgspec.msgpack.Encoder().encode
_decode_mark = msgspec.msgpack.Decoder(tuple[str, str, bytes]).decode


def id_text(id: EntryId) -> bytes:
    """An id as Redis writes it.

    >>> id_text(EntryId(7, 2))
    b'7-2'
    """
    return b"%d-%d" % (id.epoch, id.seq)


def read_entry(store: str, log: str, id: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    """Read an element.

    Raises:
        StoreDamaged: it is something else.
    """
    try:
        ((field, value),) = fields.items()
        return _read(EntryId.parse(id.decode()), field, value)
    except (ValueError, KeyError, msgspec.MsgspecError) as error:
        raise StoreDamaged(store, f"entry {id.decode()} of log {log!r} is not what was written") from error


def _read(id: EntryId, field: bytes, value: bytes) -> Entry:
    if field in (_FRAME, _LAST_FRAME):
        first, _, data = value.partition(b" ")
        return LogFrame(id, int(first), data, field == _LAST_FRAME)
    if field != _MARK:
        raise ValueError(field)
    node, reason, data = _decode_mark(value)
    return OwnerMark(id, node, reason, data)


class News(msgspec.Struct, frozen=True, gc=False):
    """What is published about a log: an entry and the tail before it, or only its tail."""

    tail: EntryId
    entry: Entry | None = None


def news_of(expected: EntryId, entry: Entry) -> bytes:
    """What the server is sent to append an entry, and what it publishes then.

    >>> news_of(EntryId(7, 1), LogFrame(EntryId(7, 3), 2, b"..."))
    b'7-1 7-3 f2 ...'
    """
    id = entry.id
    if isinstance(entry, LogFrame):
        kind = _LAST_FRAME if entry.is_last else _FRAME
        at = (expected.epoch, expected.seq, id.epoch, id.seq, kind, entry.first, entry.data)
        return b"%d-%d %d-%d %b%d %b" % at
    value = _encode_mark((entry.node, entry.reason, entry.data))
    return b"%d-%d %d-%d %b%b" % (expected.epoch, expected.seq, id.epoch, id.seq, _MARK, value)


def read_news(data: bytes) -> News:
    """Read a message.

    Raises:
        ValueError: it is something else.
    """
    tail, _, rest = data.partition(b" ")
    if not rest:
        return News(EntryId.parse(tail.decode()))
    id, _, rest = rest.partition(b" ")
    return News(EntryId.parse(tail.decode()), _read(EntryId.parse(id.decode()), rest[:1], rest[1:]))
