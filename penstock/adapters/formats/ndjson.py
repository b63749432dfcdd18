"""JSON in lines (``application/x-ndjson``) out of bytes: whole lines, whatever way the bytes are cut."""

from __future__ import annotations

import msgspec

from penstock.errors import ProtocolError

__all__ = ["NdjsonDecoder"]

_BOM = b"\xef\xbb\xbf"


class NdjsonDecoder:
    """Cuts one body, pushed in as chunks, into lines. After a `ProtocolError` it is unusable.

    A line ends in LF or CRLF and in nothing else: U+2028, NEL and a lone CR may stand inside JSON.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._limit = max_event_bytes
        self._pending = bytearray()
        self._at_start = True

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that ``chunk`` completes, without their ends; blank ones are left out.

        Chunks may split anywhere, also inside a UTF-8 character; what is left over waits. Broken UTF-8 is U+FFFD.

        Raises:
            ProtocolError: a line is longer than ``max_event_bytes``, complete or not.
        """
        pending = self._pending
        end = chunk.rfind(b"\n") + 1
        if not end:
            pending += chunk
            self._check(len(pending))
            return []
        complete = bytes(pending) + chunk[:end] if pending else chunk[:end]
        pending[:] = chunk[end:]
        self._check(len(pending))
        return self._lines(complete)

    def close(self) -> list[str]:
        """The body has ended: the unterminated last line, where it is whole JSON and so cannot have been cut."""
        rest = bytes(self._pending)
        self._pending.clear()
        return [line for line in self._lines(rest) if _is_whole(line)]

    def _lines(self, complete: bytes) -> list[str]:
        if self._at_start and complete:
            self._at_start = False
            complete = complete.removeprefix(_BOM)
        found = []
        for line in complete.split(b"\n"):
            self._check(len(line))
            if text := line.strip():
                found.append(text.decode("utf-8", "replace"))
        return found

    def _check(self, length: int) -> None:
        if length > self._limit:
            raise ProtocolError(f"a line is longer than {self._limit} bytes")


def _is_whole(line: str) -> bool:
    """Whether ``line`` is a JSON object or array; of a number, some digits may be missing."""
    if not line.startswith(("{", "[")):
        return False
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True
