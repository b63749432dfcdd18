"""Decodes a compressed body in bounded pieces, with urllib3's decoders."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["Inflater"]

_PIECE: Final = 65_536
_DECODERS: Final = {
    "gzip": "GzipDecoder",
    "x-gzip": "GzipDecoder",
    "deflate": "DeflateDecoder",
    "br": "BrotliDecoder",
    "zstd": "ZstdDecoder",
}


class Inflater:
    """Decodes one content coding. What has been put in comes out in pieces of at most 64 KiB, as it is asked for.

    Args:
        coding: one that urllib3 can decode here; any other is passed through.
    """

    def __init__(self, coding: str) -> None:
        import urllib3.response

        decoder = getattr(urllib3.response, _DECODERS.get(coding.strip().lower(), ""), None)
        self._decoder: Any = decoder() if decoder is not None else None
        self._data = b""

    def put(self, data: bytes) -> None:
        """Add compressed bytes."""
        self._data += data

    def take(self) -> bytes:
        """Return the next piece; ``b""``: more bytes are needed.

        Raises:
            urllib3.exceptions.DecodeError: the bytes are not what the coding says.
        """
        data, self._data = self._data, b""
        if self._decoder is None:
            return data
        if not data and not self._decoder.has_unconsumed_tail:
            return b""
        return self._decode(data)

    def finish(self) -> bytes:
        """Return what is left when the body has ended.

        Raises:
            urllib3.exceptions.DecodeError: as for `take`, or the body is cut.
        """
        if self._decoder is None:
            return b""
        from urllib3.exceptions import DecodeError

        try:
            rest: bytes = self._decoder.decompress(b"") + self._decoder.flush()
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError("the coding of the body is broken", error) from error
        return rest

    def _decode(self, data: bytes) -> bytes:
        from urllib3.exceptions import DecodeError

        try:
            piece: bytes = self._decoder.decompress(data, max_length=_PIECE)
        except Exception as error:  # zlib.error, and those of the other packages
            raise DecodeError("the coding of the body is broken", error) from error
        return piece
