"""Where an answer's head and body end, without I/O: bytes in, bytes out.

The rules are those of ``http.client``, so that both readers agree: lines may end with LF alone, a chunk's extensions
and the trailer are dropped, and a body that breaks off is an `http.client.IncompleteRead`.
"""

from __future__ import annotations

import http
import http.client
import re
from typing import Final, Protocol

__all__ = ["Body", "ChunkedBody", "HeadCollector", "LengthBody", "UntilCloseBody", "body_of"]

_LONGEST_LINE: Final = 65_536
_LONGEST_HEAD: Final = 262_144
_MOST_INTERIM: Final = 100
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_STATUS: Final = re.compile(rb"HTTP/\d\.\d[ \t]+(\d{3})")


class HeadCollector:
    """Collects the bytes of an answer's head, with the interim answers before it (RFC 9110, section 15.2).

    It only finds the end; http.client parses what was collected.
    """

    def __init__(self) -> None:
        self._data = b""
        self._start = 0  # of the head that is not complete
        self._scanned = 0
        self._interim = 0

    @property
    def head(self) -> bytes:
        """What has been collected, from the first interim answer to the empty line of the final one."""
        return self._data

    def feed(self, raw: bytes) -> bytes | None:
        """Take bytes as received; returns those after the head, ``b""`` included, or None while it is incomplete.

        What cannot become a head counts as complete, so that parsing it gives the error.

        Raises:
            http.client.LineTooLong: 256 KiB came without the end of the head.
        """
        self._data += raw
        data = self._data
        while found := _HEAD_END.search(data, max(self._scanned - 2, self._start)):
            end = found.end()
            if not self._is_interim(data[self._start : self._start + 32]):
                self._data = data[:end]
                return data[end:]
            self._start = self._scanned = end
        self._scanned = len(data)
        if self._is_hopeless(data):
            return b""
        if len(data) > _LONGEST_HEAD:
            raise http.client.LineTooLong("head")
        return None

    def _is_interim(self, line: bytes) -> bool:
        status = _STATUS.match(line)
        if status is None or not 100 <= int(status[1]) < 200 or int(status[1]) == http.HTTPStatus.SWITCHING_PROTOCOLS:
            return False
        self._interim += 1
        return self._interim <= _MOST_INTERIM

    def _is_hopeless(self, data: bytes) -> bool:
        """Whether http.client refuses what has come already."""
        begun = data[self._start : self._start + 5]
        if begun and not b"HTTP/".startswith(begun):
            return True
        return len(data) - max(data.rfind(b"\n"), self._start) > _LONGEST_LINE + 1


class Body(Protocol):
    """The framing of one body."""

    over: bool
    """Whether the body is complete. Bytes after it are dropped, and ``surplus`` is set."""

    surplus: bool
    """Whether bytes came after the end of the body; the connection cannot be used again."""

    def feed(self, raw: bytes) -> bytes:
        """Extract the body's bytes from those received, of any length.

        Raises:
            http.client.IncompleteRead: the framing is broken.
            http.client.LineTooLong: a line of it is longer than 64 KiB.
        """

    def close(self) -> None:
        """Note that the connection was closed.

        Raises:
            http.client.IncompleteRead: the body is not complete.
        """


class ChunkedBody:
    """A body in HTTP chunks (RFC 9112, section 7.1). Implements `Body`."""

    __slots__ = ("_after_chunk", "_in_trailer", "_left", "_line", "over", "surplus")

    def __init__(self) -> None:
        self.over = False
        self.surplus = False
        self._line = b""  # an incomplete size line of a chunk, trailer, or CRLF after a chunk
        self._left = 0  # of the present chunk
        self._after_chunk = False
        self._in_trailer = False

    def feed(self, raw: bytes) -> bytes:
        if not self._left and not self._line and not self._after_chunk and not self._in_trailer:
            # The usual case: one whole chunk, without extensions.
            end = raw.find(b"\r\n", 0, 12)
            if end > 0 and raw[:end].isalnum():
                try:
                    size = int(raw[:end], 16)
                except ValueError:
                    size = 0
                if size and len(raw) == end + size + 4 and raw.endswith(b"\r\n"):
                    return raw[end + 2 : -2]
        return self._feed_pieces(self._line + raw)

    def _feed_pieces(self, raw: bytes) -> bytes:
        out: list[bytes] = []
        at, length = 0, len(raw)
        while at < length:
            if self.over:
                self.surplus = True
                break
            if left := self._left:
                data = raw[at : at + left]
                out.append(data)
                at += len(data)
                self._left = left - len(data)
                self._after_chunk = True
                continue
            end = raw.find(b"\n", at)
            if end < 0:
                if length - at > _LONGEST_LINE:
                    raise http.client.LineTooLong("chunk size")
                self._line = raw[at:]
                return b"".join(out)
            self._take_line(raw[at:end])
            at = end + 1
        self._line = b""
        return b"".join(out)

    def _take_line(self, line: bytes) -> None:
        if self._after_chunk:
            if line.strip():
                raise http.client.IncompleteRead(b"")
            self._after_chunk = False
        elif self._in_trailer:
            self.over = not line.strip()
        else:
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                size = -1
            if size < 0:
                raise http.client.IncompleteRead(b"")
            self._left = size
            self._in_trailer = not size

    def close(self) -> None:
        if not self.over:
            raise http.client.IncompleteRead(b"")


class LengthBody:
    """A body whose length was announced. Implements `Body`."""

    __slots__ = ("_left", "over", "surplus")

    def __init__(self, length: int) -> None:
        self._left = length
        self.over = length <= 0
        self.surplus = False

    def feed(self, raw: bytes) -> bytes:
        left = self._left
        if len(raw) > left:
            self.surplus = True
            raw = raw[:left]
        self._left = left - len(raw)
        self.over = not self._left
        return raw

    def close(self) -> None:
        if not self.over:
            raise http.client.IncompleteRead(b"", self._left)


class UntilCloseBody:
    """A body that ends when the connection is closed. Implements `Body`."""

    __slots__ = ("over", "surplus")

    def __init__(self) -> None:
        self.over = False
        self.surplus = False

    def feed(self, raw: bytes) -> bytes:
        return raw

    def close(self) -> None:
        self.over = True


def body_of(response: http.client.HTTPResponse) -> Body:
    """Return the framing of a body from the parsed head of its response."""
    if response.chunked:
        return ChunkedBody()
    length = response.length
    return UntilCloseBody() if length is None else LengthBody(length)
