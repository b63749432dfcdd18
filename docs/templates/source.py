"""Template of a source: a stream that is fed from an iterable.

A new source is a module in ``penstock/adapters/sources``. Copy this file, and replace `_next` by what reads yours.
"""

from __future__ import annotations

from collections.abc import Iterable

import penstock
from penstock import otp

__all__ = ["stream_from"]

_NEXT = "next"


def stream_from(system: penstock.System, texts: Iterable[str], stream_id: str | None = None) -> penstock.Stream:
    """Open a stream whose tokens are the texts of an iterable, which may block.

    While the stream is full, nothing is read. The stream ends when the iterable does, and fails with `StreamCrashed` if
    it raises; the cause is the exception. If the stream ends first, no further text is read.
    """
    stream = system.open_stream(stream_id, on_orphan="cancel")
    system.start_child(
        otp.ChildSpec(id=f"source/{stream.stream_id}", cls=_Source, args=(stream, texts), restart="temporary")
    )
    return stream


class _Source(otp.Process):
    """Reads one text a message, so that an exit signal takes effect between two of them."""

    def __init__(self, stream: penstock.Stream, texts: Iterable[str]) -> None:
        super().__init__()
        self._stream_id = stream.stream_id
        self._sink = stream.sink()
        self._texts = iter(texts)
        self._text: str | None = None  # has been read, and waits for room

    def on_start(self) -> None:
        self.ref.tell(_NEXT)

    def on_receive(self, message: object) -> None:
        if self._text is None:
            self._text = self._next()
        if self._text is None:
            self._sink.end()
            self.exit()
        tell = self.ref.tell
        try:
            count = self._sink.push_now([(self._text, "text")], lambda: tell(_NEXT))
        except penstock.StreamClosed:
            self.exit()
        if count:
            self._text = None
            tell(_NEXT)

    def _next(self) -> str | None:
        """Return the next text, or None if there is none."""
        try:
            with otp.blocking():  # another thread takes the place of this one meanwhile
                return next(self._texts, None)
        except Exception as error:
            self._sink.end(self._crashed(error))
            self.exit()

    def _crashed(self, reason: object) -> penstock.StreamCrashed:
        failure = penstock.StreamCrashed(self._stream_id, ("source", reason))
        failure.__cause__ = reason if isinstance(reason, BaseException) else None
        return failure

    def dispose(self, reason: object) -> None:
        """End the stream even if this process was killed. Any thread."""
        super().dispose(reason)
        if not otp.is_clean(reason):
            self._sink.end(self._crashed(reason))
