"""What a stored log says about its stream besides the events: how it was opened, and facts that came later."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.config.checks import check_on_orphan
from penstock.config.options import OnOrphan, Restart, StreamOptions
from penstock.errors import OptionError
from penstock.events import Event, FrozenDict, StreamCancelled, StreamCompleted, StreamFailed
from penstock.events.codec import CodecError, decode_events, decode_value, encode_value
from penstock.ports import EMPTY, Entry, EntryId, LogFrame

__all__ = ["PastLog", "StreamHead", "kept_options", "new_sse_epoch", "read_log"]

_VERSION: Final = 1
_NOT_KEPT: Final = ("tokenizer",)  # options that are code


class StreamHead(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream was opened.

    Attributes:
        sse_epoch: of the log, for clients: 8 hexadecimal digits, made once.
        created_at: Unix time in seconds.
        metadata: that it was opened with; frames do not repeat it. See `metadata_now`.
        options: of `StreamOptions`, without a tokenizer.
        on_orphan, restart: as for `System.open_stream`.
        redo: how its call is made again (see `penstock.recovery`); None: it cannot be.
        facts: what came later: ``gateway``, ``response`` … Those of `with_facts` say how the stream goes on.
    """

    sse_epoch: str
    created_at: float
    metadata: Mapping[str, Any] = FrozenDict()
    options: Mapping[str, Any] = FrozenDict()
    on_orphan: OnOrphan = "continue"
    restart: Restart = "temporary"
    redo: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = FrozenDict()

    def encode(self) -> bytes:
        """As bytes, for the owner mark that begins the log."""
        return encode_value({"v": _VERSION, **msgspec.structs.asdict(self)})

    def with_facts(self, facts: Mapping[str, Any]) -> StreamHead:
        """The same with further facts.

        ``options`` and ``on_orphan`` take the place of those that the stream was opened with; ``paused`` says whether
        it is; ``metadata`` is that of the events that come after it. What is not allowed is left out.
        """
        options, on_orphan = facts.get("options"), facts.get("on_orphan")
        changes: dict[str, Any] = {"facts": {**self.facts, **facts}}
        if isinstance(options, Mapping):
            changes["options"] = options
        if on_orphan is not None:
            with contextlib.suppress(OptionError):
                check_on_orphan(on_orphan)
                changes["on_orphan"] = on_orphan
        return msgspec.structs.replace(self, **changes)

    @property
    def metadata_now(self) -> Mapping[str, Any]:
        """The metadata of the events that come next."""
        changed = self.facts.get("metadata")
        return FrozenDict(changed) if isinstance(changed, Mapping) else self.metadata

    @property
    def is_paused(self) -> bool:
        """Whether the stream was paused, and has not been resumed."""
        return self.facts.get("paused") is True

    @property
    def stream_options(self) -> StreamOptions:
        """The options, with the defaults for those that are not known or not allowed any more."""
        known = {field.name for field in dataclasses.fields(StreamOptions)} - set(_NOT_KEPT)
        try:
            return StreamOptions(**{name: value for name, value in self.options.items() if name in known})
        except OptionError:
            return StreamOptions()


def new_sse_epoch() -> str:
    """An epoch for a new log."""
    return secrets.token_hex(4)


def kept_options(options: StreamOptions) -> Mapping[str, Any]:
    """The options that a log keeps."""
    return {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.name not in _NOT_KEPT and getattr(options, field.name) != field.default
    }


class PastLog(msgspec.Struct, frozen=True):
    """A log as it was stored.

    Attributes:
        head: with the facts of all owners.
        events: from the first on, without a gap.
        tail: the id of the last entry.
    """

    head: StreamHead
    events: Sequence[Event]
    tail: EntryId = EMPTY

    @property
    def is_ended(self) -> bool:
        """Whether the last event is a terminal one."""
        return bool(self.events) and isinstance(self.events[-1], (StreamCompleted, StreamFailed, StreamCancelled))


def read_log(stream_id: str, entries: Sequence[Entry]) -> PastLog:
    """Decode the entries of a whole log.

    Raises:
        CodecError: it does not begin with a head, has a gap, or cannot be decoded.
    """
    if not entries or isinstance(entries[0], LogFrame):
        raise CodecError(f"the log of stream {stream_id!r} does not begin with an owner mark")
    head = _head(entries[0].data)
    facts: dict[str, Any] = {}
    events: list[Event] = []
    for entry in entries[1:]:
        if not isinstance(entry, LogFrame):
            more = decode_value(entry.data) if entry.data else {}
            if entry.reason == "note" and isinstance(more, dict):
                facts |= more
            continue
        if entry.first != len(events) + 1:
            raise CodecError(f"the log of stream {stream_id!r} has a gap before event {entry.first}")
        events += decode_events(entry.data, stream_id, head.metadata)
        if len(events) != entry.id.seq:
            raise CodecError(f"the log of stream {stream_id!r} has {len(events)} events where {entry.id.seq} belong")
    return PastLog(head.with_facts(facts), events, entries[-1].id)


def _head(data: bytes) -> StreamHead:
    found = decode_value(data)
    if not isinstance(found, dict) or found.get("v") != _VERSION:
        raise CodecError("the head of the log is of another version")
    known = {name: value for name, value in found.items() if name in StreamHead.__struct_fields__}
    try:
        head = msgspec.convert(known, StreamHead)
    except msgspec.ValidationError as error:
        raise CodecError(f"the head of the log cannot be read: {error}") from error
    return msgspec.structs.replace(head, metadata=FrozenDict(head.metadata))
