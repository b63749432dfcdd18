"""JSON lines as a source: of a file, a URL, a response, or anything that yields text or bytes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from penstock.adapters.sources.codecs import JsonLines, OnBadLine
from penstock.adapters.sources.http import HttpSource
from penstock.config.checks import check_choice, type_of
from penstock.errors import OptionError

__all__ = ["JsonLinesSource", "json_lines"]

_READ: Final = 65_536


def json_lines(
    source: Any, text: str | Callable[[Any], Any], *, on_bad_line: OnBadLine = "fail"
) -> JsonLinesSource | HttpSource:
    """JSON lines as a source of a stream: one value a line, LF or CRLF.

    A BOM and empty lines are dropped. A last line without its end counts if it is JSON. A bad line is one that is not
    JSON, or longer than 1 MiB, or no object where ``text`` is a key.

    Args:
        source: a path; an ``http://`` or ``https://`` URL; a response of requests or httpx; or an iterable or async
            iterable of str or bytes, cut anywhere, such as an open file.
        text: the key of the text in each object (an object without it, or with something else than a text, says
            nothing); or a function of the parsed line that returns None, a text, several, a pair of texts and metadata,
            or deltas.
        on_bad_line: ``"fail"``: the stream fails with `ProtocolError`; ``"skip"``: it is counted as ``skipped``.

    The stream's `statistics` have ``source_bytes``, and for a file ``position`` and ``total`` in bytes.

    Raises:
        OptionError: an argument is not allowed.
    """
    check_choice("on_bad_line", on_bad_line, ("fail", "skip"))
    codec = JsonLines(text, on_bad_line)
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        return HttpSource("json_lines", source, codec)
    if isinstance(source, (str, os.PathLike)):
        return JsonLinesSource(codec, path=Path(source))
    for name in ("iter_content", "aiter_bytes", "iter_bytes"):  # requests; httpx, async or not
        read = getattr(source, name, None)
        if callable(read):
            return JsonLinesSource(codec, pieces=partial(read, _READ))
    if isinstance(source, (Iterable, AsyncIterable)):
        return JsonLinesSource(codec, pieces=lambda: source)
    raise OptionError("source", type_of(source), "a path, a URL, a response, or an iterable of str or bytes")


class JsonLinesSource:
    """Made by `json_lines`. Implements `penstock.ports.Source`."""

    kind = "json_lines"
    blocks = True
    on_own_loop = False

    def __init__(self, codec: JsonLines, *, path: Path | None = None, pieces: Callable[[], Any] | None = None) -> None:
        self._codec = codec
        self._path = path
        self._pieces = pieces
        self._bytes = 0
        self._chunks = 0
        self._total: int | None = None

    def open(self) -> Iterable[Any] | AsyncIterable[Any]:
        """See `Source.open`."""
        if self._path is not None:
            return self._lines_of(self._chunks_of(self._path))
        assert self._pieces is not None
        pieces = self._pieces()
        return self._alines_of(pieces) if isinstance(pieces, AsyncIterable) else self._lines_of(pieces)

    def _chunks_of(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            self._total = os.fstat(file.fileno()).st_size
            while chunk := file.read1(_READ):
                yield chunk

    def _lines_of(self, pieces: Iterable[Any]) -> Iterator[Any]:
        iterator = iter(pieces)
        try:
            for piece in iterator:
                yield from self._codec.feed(self._counted(piece))
            yield from self._codec.close()
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    async def _alines_of(self, pieces: AsyncIterable[Any]) -> AsyncIterator[Any]:
        iterator = aiter(pieces)
        try:
            async for piece in iterator:
                for item in self._codec.feed(self._counted(piece)):
                    yield item
            for item in self._codec.close():
                yield item
        finally:
            aclose = getattr(iterator, "aclose", None)
            if aclose is not None:
                await aclose()

    def _counted(self, piece: str | bytes) -> bytes:
        data = piece.encode(errors="surrogatepass") if isinstance(piece, str) else piece
        self._bytes += len(data)
        self._chunks += 1
        return data

    def cancel(self) -> None:
        """See `Source.cancel`."""

    def counters(self) -> Mapping[str, Any]:
        """See `Source.counters`."""
        counts = {"source_bytes": self._bytes, "source_chunks": self._chunks, "skipped": self._codec.skipped}
        if self._total is None:
            return counts
        progress = min(1.0, self._bytes / self._total) if self._total else 1.0
        return {**counts, "position": self._bytes, "total": self._total, "progress": progress}
