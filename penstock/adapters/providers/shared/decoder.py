"""What the decoders of all wire formats have in common: the state they show, and the way from chunks to deltas."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from penstock.adapters.formats.sse import SseDecoder, SseEvent
from penstock.adapters.providers.shared.json_values import Surrogates
from penstock.ports import Delta, KeepAlive

__all__ = ["EventDecoder", "PartDecoder"]

Part = TypeVar("Part")


class _Parser(Protocol[Part]):
    def feed(self, chunk: bytes) -> list[Part]: ...

    def close(self) -> list[Part]: ...


class PartDecoder(Generic[Part]):
    """Implements `Decoder` but for what the parts of a body (events, lines) mean: a subclass has ``_deltas``."""

    def __init__(self, parser: _Parser[Part]) -> None:
        self.skipped = 0
        self.finished = False
        self.done = False
        self.model: str | None = None
        self._parser = parser
        self._has_halves = False
        self._surrogates = Surrogates()

    def feed(self, chunk: bytes) -> list[Delta]:
        """Decode one chunk into the deltas it completes.

        Raises:
            ProtocolError: an event or line is longer than the limit.
        """
        if self.done:
            return []
        return self._deltas(self._parser.feed(chunk))

    def close(self) -> list[Delta]:
        """The body has ended: tell what the last part holds, where it lacks only what ends it."""
        if self.done:
            return []
        return self._deltas(self._parser.close(), is_end=True)

    def _deltas(self, parts: list[Part], *, is_end: bool = False) -> list[Delta]:
        raise NotImplementedError


class EventDecoder(PartDecoder[SseEvent]):
    """The same for server-sent events, whose comments are signs of life."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._begin_body()
        super().__init__(self._sse)

    def _begin_body(self) -> None:
        """Another body, at its start: nothing of the one before is pending."""
        self._sse = self._parser = SseDecoder(self._max_event_bytes)
        self._comments = 0

    def _signs_of_life(self) -> list[Delta]:
        """What to begin the deltas of one chunk with."""
        if self._sse.comments == self._comments:
            return []
        self._comments = self._sse.comments
        return [KeepAlive()]
