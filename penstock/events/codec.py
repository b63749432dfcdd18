"""Events and other values as bytes, and back: what a log store keeps.

The form is MessagePack. An event or another struct of `penstock.events` is an extension with its name and the fields
that differ from their defaults, and so is an error of `penstock.errors`. Decoding builds these classes only, so bytes
from elsewhere run no code. A field or a class that this version does not know is an error, not a guess.

What is no plain data (an object in ``metadata``) is kept as the text that `describe_reason` gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

import msgspec

from penstock import errors
from penstock.errors import PenstockError, describe_reason
from penstock.errors.base import rebuild_error
from penstock.events import answer, notices, stream, tools, values
from penstock.events.frozen import FrozenDict, freeze
from penstock.events.stream import Event, TokenEvent

__all__ = ["CodecError", "decode_events", "decode_value", "encode_events", "encode_value"]

_STRUCT: Final = 1
_ERROR: Final = 2
_SURROGATES: Final = 3  # a str that is not UTF-8
_TUPLE: Final = 4
_LARGE: Final = 5  # an int of more than 64 bits
_KINDS: Final = ("text", "reasoning", "refusal")
_DEEPEST: Final = 400


class CodecError(ValueError):
    """Bytes are not what this version of Penstock wrote."""


def _structs() -> dict[str, type[msgspec.Struct]]:
    return {
        name: thing
        for module in (answer, notices, stream, tools, values)
        for name, thing in vars(module).items()
        if isinstance(thing, type) and issubclass(thing, msgspec.Struct) and not name.startswith("_")
    }


_CLASSES: Final = _structs()
_ERRORS: Final = {
    name: thing
    for name in errors.__all__
    if isinstance(thing := getattr(errors, name), type) and issubclass(thing, PenstockError)
}


def _defaults(kind: type[msgspec.Struct]) -> list[tuple[str, Any]]:
    names, defaults = kind.__struct_fields__, kind.__struct_defaults__
    return list(zip(names, [*[msgspec.NODEFAULT] * (len(names) - len(defaults)), *defaults], strict=True))


EVENTS: Final[tuple[type[Event], ...]] = get_args(Event)
_DEFAULTS: Final = {name: _defaults(kind) for name, kind in _CLASSES.items()}


# --- encoding --------------------------------------------------------------------------------------------------------

_encode: Final = msgspec.msgpack.Encoder().encode


def encode_value(value: Any) -> bytes:
    """Encode plain data, structs of `penstock.events`, errors, and containers of these."""
    return _bytes_of(_Packer(None, {}).packed(value, 0))


def encode_events(events: Sequence[Event], metadata: Mapping[str, Any]) -> bytes:
    """Encode consecutive events of one stream.

    Args:
        events: one or more.
        metadata: what their stream was opened with, which need not be repeated.
    """
    first = events[0]
    packer = _Packer(first.stream_id, first.metadata)
    packed = _bytes_of([packer.event(event) for event in events])
    return _bytes_of([None if first.metadata is metadata else packer.packed(first.metadata, 0), packed])


def _bytes_of(packed: Any) -> bytes:
    try:
        return _encode(packed)
    except UnicodeEncodeError:  # a lone surrogate; looked for only now, since that takes time
        return _encode(_without_surrogates(packed))


class _Packer:
    """Converts values to what MessagePack has. Events of one stream share its id and its metadata."""

    __slots__ = ("_metadata", "_stream_id")

    def __init__(self, stream_id: str | None, metadata: Mapping[str, Any]) -> None:
        self._stream_id = stream_id
        self._metadata = metadata

    def event(self, event: Event) -> Any:
        if event.__class__ is not TokenEvent or event.metadata is not self._metadata:
            return self._struct(event, 0)
        fields = [event.seq, event.tokens, _KINDS.index(event.kind), event.timestamp]
        if event.dropped or event.part or event.phase is not None or event.origin is not None:
            fields += [event.dropped, event.part, event.phase, event.origin]
        return fields

    def _struct(self, struct: msgspec.Struct, depth: int) -> Any:
        kind = type(struct)
        if _CLASSES.get(kind.__name__) is not kind:
            return kind.__name__
        fields = {}
        for name, default in _DEFAULTS[kind.__name__]:
            value = getattr(struct, name)
            if value is default or (self._stream_id is not None and self._is_shared(name, value)):
                continue
            fields[name] = self.packed(value, depth + 1)
        return _extension(_STRUCT, [kind.__name__, fields])

    def _is_shared(self, name: str, value: Any) -> bool:
        return (name == "metadata" and value is self._metadata) or (name == "stream_id" and value == self._stream_id)

    def packed(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is float or kind is str or kind is bytes:
            return value
        if depth > _DEEPEST:
            return "\u2026"
        if isinstance(value, int):
            is_large = not -(2**63) <= value < 2**64
            return _extension(_LARGE, hex(value)) if is_large else int(value)
        if isinstance(value, msgspec.Struct):
            return self._struct(value, depth)
        if isinstance(value, PenstockError):
            return self._error(value, depth)
        if isinstance(value, Mapping):
            return {str(key): self.packed(item, depth + 1) for key, item in value.items()}
        if isinstance(value, tuple):
            return _extension(_TUPLE, [self.packed(item, depth + 1) for item in value])
        if isinstance(value, (list, set, frozenset)):
            return [self.packed(item, depth + 1) for item in value]
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, float):
            return float.__float__(value)
        return value.__name__ if isinstance(value, type) else describe_reason(value)

    def _error(self, error: PenstockError, depth: int) -> Any:
        """The error; one of another class than Penstock's as the nearest class that is Penstock's."""
        name = next(one.__name__ for one in type(error).__mro__ if _ERRORS.get(one.__name__) is one)
        _, (_, args, *state) = error.__reduce__()
        return _extension(_ERROR, [name, *(self.packed(part, depth + 1) for part in (list(args), *state))])


def _extension(code: int, content: Any) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, _bytes_of(content))


def _without_surrogates(value: Any) -> Any:
    kind = type(value)
    if kind is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            return msgspec.msgpack.Ext(_SURROGATES, value.encode("utf-8", "surrogatepass"))
        return value
    if kind is list or kind is tuple:
        return [_without_surrogates(item) for item in value]
    if kind is dict:  # a key cannot be an extension
        return {key.encode("utf-8", "replace").decode(): _without_surrogates(item) for key, item in value.items()}
    return value


# --- decoding --------------------------------------------------------------------------------------------------------


def decode_value(data: bytes) -> Any:
    """Decode what `encode_value` has made. Dicts and lists are plain ones, except in structs.

    Raises:
        CodecError: it is something else.
    """
    return _Unpacker(None, {}).decode(data)


def decode_events(data: bytes, stream_id: str, metadata: Mapping[str, Any]) -> list[Event]:
    """Decode what `encode_events` has made.

    Args:
        data: the bytes.
        stream_id: of the stream.
        metadata: as for `encode_events`; shared by the events.

    Raises:
        CodecError: it is something else.
    """
    found = decode_value(data)
    if not isinstance(found, list) or len(found) != 2 or not isinstance(found[1], bytes):
        raise CodecError("the bytes are not a frame of events")
    others, packed = found
    unpacker = _Unpacker(stream_id, metadata if others is None else FrozenDict(others))
    try:
        return [unpacker.event(one) for one in unpacker.decode(packed)]
    except (ValueError, TypeError, IndexError) as error:
        raise CodecError(f"the bytes are not a frame of events: {type(error).__name__}") from error


class _Unpacker:
    """Converts back. ``stream_id`` None: no struct lacks the fields that the events of a stream share."""

    __slots__ = ("_decoder", "_metadata", "_stream_id")

    def __init__(self, stream_id: str | None, metadata: Mapping[str, Any]) -> None:
        self._stream_id = stream_id
        self._metadata = metadata
        self._decoder = msgspec.msgpack.Decoder(ext_hook=self._made)

    def decode(self, data: bytes) -> Any:
        try:
            return self._decoder.decode(data)
        except CodecError:
            raise
        except (msgspec.MsgspecError, ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
            raise CodecError(f"the bytes are not what Penstock wrote: {type(error).__name__}") from error

    def event(self, packed: Any) -> Event:
        if isinstance(packed, EVENTS):
            return packed
        seq, tokens, kind, timestamp, *rest = packed
        text = "".join(tokens)
        assert self._stream_id is not None
        return TokenEvent(self._stream_id, seq, tuple(tokens), text, _KINDS[kind], timestamp, self._metadata, *rest)

    def _made(self, code: int, data: memoryview) -> Any:
        if code == _SURROGATES:
            return data.tobytes().decode("utf-8", "surrogatepass")
        content = self._decoder.decode(data)
        if code == _STRUCT:
            return self._struct(*content)
        if code == _TUPLE:
            return tuple(content)
        if code == _ERROR:
            name, args, fields, slots = content
            return rebuild_error(_ERRORS[name], tuple(args), fields, slots)
        if code == _LARGE:
            return int(content, 16)
        raise CodecError(f"unknown extension {code}")

    def _struct(self, name: str, fields: dict[str, Any]) -> Any:
        kind = _CLASSES.get(name)
        if kind is None:
            raise CodecError(f"unknown kind of value {name!r}")
        known = kind.__struct_fields__
        if unknown := fields.keys() - set(known):
            raise CodecError(f"{name} has an unknown field {min(unknown)!r}")
        made = fields if name == "ToolCall" else {key: _field(value) for key, value in fields.items()}
        if self._stream_id is not None and "stream_id" in known:
            made.setdefault("stream_id", self._stream_id)
            made.setdefault("metadata", self._metadata)
        return kind(**made)


def _field(value: Any) -> Any:
    kind = type(value)
    return freeze(value) if kind is list or kind is dict else value
