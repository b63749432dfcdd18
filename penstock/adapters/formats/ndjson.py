"""An incremental parser of newline-delimited JSON (``application/x-ndjson``)."""

from __future__ import annotations

import msgspec

from penstock.errors import ProtocolError

__all__ = ["NdjsonDecoder"]

_BOM = b"\xef\xbb\xbf"


class NdjsonDecoder:
    """Splits one body, fed in chunks, into lines. After a `ProtocolError` it is unusable.

    Only LF and CRLF end a line: U+2028, NEL and a lone CR may occur inside JSON.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._limit = max_event_bytes
        self._pending = bytearray()
        self._at_start = True

    def feed(self, chunk: bytes) -> list[str]:
        """Return the lines that ``chunk`` completes, without line endings; blank lines are skipped.

        Chunks may split anywhere, even inside a UTF-8 character; an incomplete line waits for the next call. Invalid
        UTF-8 becomes U+FFFD.

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
        """Return the unterminated last line of a body that has ended, if it is complete JSON."""
        rest = bytes(self._pending)
        self._pending.clear()
        return [line for line in self._lines(rest) if _is_complete(line)]

    def _lines(self, complete: bytes) -> list[str]:
        if self._at_start and complete:
            self._at_start = False
            complete = complete.removeprefix(_BOM)
        lines = []
        for line in complete.split(b"\n"):
            self._check(len(line))
            if text := line.strip():
                lines.append(text.decode("utf-8", "replace"))
        return lines

    def _check(self, length: int) -> None:
        if length > self._limit:
            raise ProtocolError(f"a line is longer than {self._limit} bytes")


def _is_complete(line: str) -> bool:
    """Tell whether ``line`` is a JSON object or array; a number may lack digits."""
    if not line.startswith(("{", "[")):
        return False
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True
