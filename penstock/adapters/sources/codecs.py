"""What the bytes of a source mean: text, JSON lines, server-sent events. Pure; one object for each source."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, Protocol, TypeAlias

from penstock.adapters.formats.sse import SseDecoder, SseEvent
from penstock.errors import OptionError, ProtocolError
from penstock.ports import Annotate

__all__ = ["BodyText", "Codec", "JsonLines", "OnBadLine", "SseItems", "items_of"]

OnBadLine: TypeAlias = Literal["fail", "skip"]
_LONGEST_LINE: Final = 1_048_576
_BOM: Final = b"\xef\xbb\xbf"


class Codec(Protocol):
    """Turns the bytes of one source into `Item` values."""

    skipped: int
    """Bad lines so far."""

    is_done: bool
    """Whether the rest of the bytes does not matter."""

    def begin(self, content_type: str) -> None:
        """Note the media type, before the first bytes; ``""`` if it is not known."""

    def feed(self, chunk: bytes) -> Iterable[Any]:
        """The items that the chunk completes, to be read to the end. Chunks may split anywhere.

        Raises:
            ProtocolError: the bytes are not what they should be.
        """

    def close(self) -> Iterable[Any]:
        """The items that the end completes; raises as `feed`."""


def items_of(found: Any) -> list[Any]:
    """The items that a function of the user's has found: None, a text, texts, or a pair of texts and metadata."""
    if found is None or found == "":
        return []
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping):
        tokens, metadata = found
        return [Annotate(metadata), *items_of(tokens)]
    if isinstance(found, str) or not isinstance(found, Iterable) or isinstance(found, (bytes, Mapping)):
        return [found]
    return list(found)


class BodyText:
    """Text in the charset of its media type; UTF-8 if that names none, or one that Python does not know."""

    def __init__(self) -> None:
        self.skipped = 0
        self.is_done = False
        self._decoder: codecs.IncrementalDecoder | None = None  # None: UTF-8, which the stream decodes itself

    def begin(self, content_type: str) -> None:
        """See `Codec.begin`."""
        for parameter in content_type.split(";")[1:]:
            name, _, value = parameter.partition("=")
            if name.strip().lower() != "charset":
                continue
            try:
                info = codecs.lookup(value.strip(" \t\"'"))
            except LookupError:
                return
            if info.name not in ("utf-8", "ascii"):
                self._decoder = info.incrementaldecoder("replace")

    def feed(self, chunk: bytes) -> list[Any]:
        """See `Codec.feed`."""
        if self._decoder is None:
            return [chunk]
        return [self._decoder.decode(chunk)]

    def close(self) -> list[Any]:
        """See `Codec.close`."""
        return [] if self._decoder is None else [self._decoder.decode(b"", True)]


class JsonLines:
    r"""One JSON object a line. LF and CRLF end a line, nothing else does; a BOM and empty lines are dropped.

    Args:
        text: the key of the text in each object, or a function that finds it; see `json_lines`.
        on_bad_line: ``"fail"`` or ``"skip"``.
    """

    def __init__(self, text: str | Callable[[Any], Any], on_bad_line: OnBadLine = "fail") -> None:
        if not isinstance(text, str) and not callable(text):
            raise OptionError("text", type(text), "a key, or a function of one argument")
        self._find = text if callable(text) else None
        self._key = text if isinstance(text, str) else ""
        self._skips = on_bad_line == "skip"
        self._pending = bytearray()
        self._is_too_long = False  # the rest of a line that is skipped
        self._at_start = True
        self.number = 0
        self.skipped = 0
        self.is_done = False

    def begin(self, content_type: str) -> None:
        """See `Codec.begin`."""

    def feed(self, chunk: bytes) -> Iterator[Any]:
        """See `Codec.feed`."""
        *complete, rest = chunk.split(b"\n")
        for line in complete:  # what comes before a bad line counts
            self._add(line)
            yield from self._end_line()
        self._add(rest)

    def _add(self, piece: bytes) -> None:
        if self._is_too_long:
            return
        self._pending += piece
        if len(self._pending) > _LONGEST_LINE + 4:
            self._pending.clear()
            self._is_too_long = True
            self._bad(f"longer than {_LONGEST_LINE} bytes", self.number + 1)

    def _end_line(self) -> list[Any]:
        self.number += 1
        line = bytes(self._pending)
        self._pending.clear()
        if self._is_too_long:
            self._is_too_long = False
            return []
        return self._parse(line)

    def _parse(self, line: bytes) -> list[Any]:
        if self._at_start:
            line = line.removeprefix(_BOM)
            self._at_start = False
        line = line.removesuffix(b"\r")
        if not line.strip(b" \t"):
            return []
        if len(line) > _LONGEST_LINE:
            return self._bad(f"longer than {_LONGEST_LINE} bytes", self.number)
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return self._bad("not JSON", self.number)
        if self._find is not None:
            return items_of(self._find(value))
        if not isinstance(value, dict):
            return self._bad("no JSON object", self.number)
        found = value.get(self._key)
        return [found] if isinstance(found, str) and found else []

    def _bad(self, what: str, number: int) -> list[Any]:
        if not self._skips:
            raise ProtocolError(f"line {number} is {what}")
        self.skipped += 1
        return []

    def close(self) -> list[Any]:
        """A last line without its end counts if it is JSON; see `Codec.close`."""
        return self._end_line() if self._pending else []


class SseItems:
    """Server-sent events. Without a function, the text of each event's data; ``[DONE]`` ends it."""

    def __init__(self, extract: Callable[[SseEvent], Any] | None, max_event_bytes: int) -> None:
        if extract is not None and not callable(extract):
            raise OptionError("extract", type(extract), "a function of one argument, or None")
        self._extract = extract
        self._decoder = SseDecoder(max_event_bytes)
        self.is_done = False
        self.skipped = 0

    def begin(self, content_type: str) -> None:
        """See `Codec.begin`."""

    def feed(self, chunk: bytes) -> Iterator[Any]:
        """See `Codec.feed`."""
        return self._items(self._decoder.feed(chunk))

    def close(self) -> Iterator[Any]:
        """See `Codec.close`."""
        return self._items(self._decoder.close())

    def _items(self, events: list[SseEvent]) -> Iterator[Any]:
        for event in events:
            if event.data == "[DONE]":
                self.is_done = True
            if self.is_done:
                break
            yield from items_of(event.data if self._extract is None else self._extract(event))
