"""An incremental parser of server-sent events: sseclient-py parses the fields, this module makes that safe.

sseclient-py needs an iterable of chunks, stops where the iterable stops, and reads lines with ``bytes.splitlines``. It
does not handle a CR at the end of a chunk, a byte order mark, invalid UTF-8 or a limit, dispatches an unterminated last
block, and joins an event's lines in quadratic time. So it gets only complete blocks with LF line endings, and
everything else is done here, most of it only for chunks that need it. The two forms in which nearly all events come, a
``data:`` line alone or after an ``event:`` line, are split here, in a fraction of the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
import sseclient

from penstock.errors import ProtocolError

__all__ = ["SseDecoder", "SseEvent"]

_BOM = b"\xef\xbb\xbf"
_DATA = "data: "
_NEXT_DATA = f"\n\n{_DATA}"
_TYPED = re.compile(r"(?:\A|(?<=\n\n))(?:event: ([^\n]*)\n)?data: ([^\n]*)\n\n")
_LINES_AT_ONCE = 64
"""The most ``data:`` lines that sseclient gets in one block; its work on a block grows with the square of this."""


class SseEvent(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event.

    ``id`` is the stream's last event id, as in the standard, not the event's own. Two things that the standard ignores
    become events too, with their text as data: an ``error:`` field line (GPUStack, llama.cpp before September 2025)
    of type ``"error"``, and a bare JSON body after or instead of events (Vertex) of type ``"json"``.
    """

    event: str
    data: str
    id: str = ""

    def __repr__(self) -> str:
        return f"SseEvent(event={self.event!r}, chars={len(self.data)})"


class _Blocks:
    """The iterable that sseclient reads from: yields what was put in once, then stops until the next `put`."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting = b""

    def put(self, blocks: bytes) -> None:
        self._waiting = blocks

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        blocks, self._waiting = self._waiting, b""
        if not blocks:
            raise StopIteration
        return blocks

    def close(self) -> None:
        self._waiting = b""


class SseDecoder:
    """Splits one event stream, fed in chunks, into events. After a `ProtocolError` it is unusable.

    Attributes:
        comments: comment lines so far; providers send them as keep-alives.
        retry_ms: the last valid ``retry:`` value in milliseconds, or None.
        last_event_id: the stream's last event id; ``""`` before the first.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self.comments = 0
        self.retry_ms: int | None = None
        self.last_event_id = ""
        self._limit = max_event_bytes
        self._pending = bytearray()
        self._ended_in_cr = False
        self._at_start = True
        self._source = _Blocks()
        self._client = sseclient.SSEClient(self._source)

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Decode one chunk into the events it completes.

        Chunks may split anywhere, even inside a UTF-8 character or between CR and LF; an incomplete event waits for
        the next call.

        Raises:
            ProtocolError: an event is longer than ``max_event_bytes``, complete or not.
        """
        if self._at_start or self._ended_in_cr or b"\r" in chunk:
            chunk = self._normalise(chunk)
        pending = self._pending
        if not pending and chunk.endswith(b"\n\n"):
            return self._parse(chunk)
        if not chunk:
            return []
        seen = max(len(pending) - 1, 0)
        pending += chunk
        end = pending.rfind(b"\n\n", seen) + 2
        events: list[SseEvent] = []
        if end >= 2:
            complete = bytes(pending[:end])
            del pending[:end]
            events = self._parse(complete)
        if len(pending) > self._limit:
            raise ProtocolError(f"an event is longer than {self._limit} bytes")
        if pending.startswith((b":", b"\n")) and b"\n" in chunk:
            self._drop_leading_comments()
        return events

    def close(self) -> list[SseEvent]:
        """Return the event of the unterminated last block of a body that has ended, if it is certainly complete.

        The standard discards that block, since its last line may be cut off. A valid JSON object or array and
        ``[DONE]`` cannot be cut off, so they are kept.
        """
        rest = self._pending.decode("utf-8", "replace")
        self._pending.clear()
        if not rest.strip("\n"):
            return []
        events = self._parse((rest.rstrip("\n") + "\n\n").encode())
        return [event for event in events if _is_complete(event.data)]

    def _normalise(self, chunk: bytes) -> bytes:
        """Replace CR and CRLF with LF, and remove the BOM.

        A CR at the end of the chunk becomes LF at once; an LF at the beginning of the next chunk is then dropped.
        """
        if self._at_start:
            if not chunk:
                return chunk
            chunk = bytes(self._pending) + chunk
            self._pending.clear()
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._pending += chunk
                return b""
            self._at_start = False
            chunk = chunk.removeprefix(_BOM)
        if self._ended_in_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._ended_in_cr = False
        if chunk.endswith(b"\r"):
            self._ended_in_cr = True
        return _with_lf(chunk)

    def _drop_leading_comments(self) -> None:
        """Count comments as soon as their line ends: a keep-alive need not wait for a blank line."""
        pending = self._pending
        end = pending.rfind(b"\n") + 1
        start = 0
        while start < end and pending[start] in b":\n":
            self.comments += pending[start] == 58
            start = pending.index(b"\n", start) + 1
        del pending[:start]

    def _parse(self, blocks: bytes) -> list[SseEvent]:
        """Parse complete blocks that end in a blank line."""
        if len(blocks) > self._limit + 1 and max(map(len, blocks.split(b"\n\n"))) >= self._limit:
            raise ProtocolError(f"an event is longer than {self._limit} bytes")
        # Only data: and event: lines, and one data: line in each block: nothing but parsing is needed.
        ends = blocks.count(b"\n\n")
        data = blocks.count(b"\ndata:") + blocks.startswith(b"data:")
        if data <= ends:
            types = blocks.count(b"\nevent:") + blocks.startswith(b"event:")
            if ends + data + types == blocks.count(b"\n"):
                return self._plain_events(blocks, ends, types)
        events: list[SseEvent] = []
        for block in blocks.split(b"\n\n"):
            if block := block.strip(b"\n"):
                self._parse_block(block, events)
        return events

    def _plain_events(self, blocks: bytes, ends: int, types: int) -> list[SseEvent]:
        """The events of ``ends`` blocks that have only ``data:`` and ``event:`` lines."""
        last = self.last_event_id
        text = blocks.decode("utf-8", "replace")
        if types:
            pairs = _TYPED.findall(text)
            if len(pairs) == ends:
                return [SseEvent(kind or "message", data, last) for kind, data in pairs]
        elif text.startswith(_DATA):
            parts = text[len(_DATA) : -2].split(_NEXT_DATA)
            if len(parts) == ends:
                return [SseEvent("message", data, last) for data in parts]
        return self._events(blocks)

    def _parse_block(self, block: bytes, events: list[SseEvent]) -> None:
        """Parse one block with everything that the standard and the providers allow in it."""
        lines = block.split(b"\n")
        first = next((at for at, line in enumerate(lines) if not line.startswith(b":")), len(lines))
        self.comments += first
        del lines[:first]
        if lines and lines[0].startswith((b"{", b"[")):
            events.append(SseEvent("json", b"\n".join(lines).decode("utf-8", "replace"), self.last_event_id))
            return
        head: dict[bytes, bytes] = {}
        data: list[bytes] = []
        for line in lines:
            name, _, value = line.partition(b":")
            if not name:
                self.comments += 1
            elif name == b"data":
                data.append(line)
            elif name == b"event":
                head[name] = line
            elif name == b"id":
                self._read_id(value)
            elif name == b"retry":
                self._read_retry(value)
            elif name == b"error":
                text = value.removeprefix(b" ").decode("utf-8", "replace")
                events.append(SseEvent("error", text, self.last_event_id))
        if not data:
            return
        if len(data) <= _LINES_AT_ONCE:
            events.extend(self._events(b"\n".join([*head.values(), *data, b"", b""])))
            return
        segments: list[SseEvent] = []
        for start in range(0, len(data), _LINES_AT_ONCE):
            lines = [*head.values(), *data[start : start + _LINES_AT_ONCE], b"", b""]
            segments.extend(self._events(b"\n".join(lines)))
        joined = "\n".join([segment.data for segment in segments])
        events.append(SseEvent(segments[0].event, joined, self.last_event_id))

    def _events(self, blocks: bytes) -> list[SseEvent]:
        self._source.put(blocks)
        last = self.last_event_id
        try:
            return [SseEvent(event.event, event.data, last) for event in self._client.events()]
        except UnicodeDecodeError:
            self._source.put(blocks.decode("utf-8", "replace").encode())
            return [SseEvent(event.event, event.data, last) for event in self._client.events()]

    def _read_id(self, value: bytes) -> None:
        if b"\0" not in value:
            self.last_event_id = value.removeprefix(b" ").decode("utf-8", "replace")

    def _read_retry(self, value: bytes) -> None:
        digits = value.removeprefix(b" ")
        if digits.isdigit() and len(digits) < 16:
            self.retry_ms = int(digits)


def _with_lf(chunk: bytes) -> bytes:
    """Replace each CR and CRLF with LF, in a fraction of the time of two calls of `bytes.replace`."""
    lines = b"\n".join(chunk.splitlines())
    return lines + b"\n" if chunk.endswith((b"\n", b"\r")) else lines


def _is_complete(data: str) -> bool:
    text = data.strip()
    if text == "[DONE]":
        return True
    if not text.startswith(("{", "[")):
        return False
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True
