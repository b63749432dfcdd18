"""The base of all decoders: the state that they show, and the way from chunks to deltas."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from penstock.adapters.formats.sse import SseDecoder, SseEvent
from penstock.adapters.providers.shared.surrogates import SurrogateJoiner
from penstock.ports import Delta, KeepAlive

__all__ = ["BodyDecoder", "EventDecoder"]

Part = TypeVar("Part")


class _FormatParser(Protocol[Part]):
    def feed(self, chunk: bytes) -> list[Part]: ...

    def close(self) -> list[Part]: ...


class BodyDecoder(Generic[Part]):
    """Implements `Decoder` except for the meaning of a body's parts (events, lines): subclasses define ``_deltas``."""

    def __init__(self, parser: _FormatParser[Part]) -> None:
        self.skipped = 0
        self.finished = False
        self.done = False
        self.model: str | None = None
        self._parser = parser
        self._has_surrogates = False
        self._surrogates = SurrogateJoiner()

    def feed(self, chunk: bytes) -> list[Delta]:
        """Decode one chunk into the deltas it completes.

        Raises:
            ProtocolError: an event or line is longer than the limit. The decoder is then unusable.
        """
        if self.done:
            return []
        return self._deltas(self._parser.feed(chunk))

    def close(self) -> list[Delta]:
        """Decode the last part of a body that has ended, if the part lacks nothing but its terminator."""
        if self.done:
            return []
        return self._deltas(self._parser.close(), is_end=True)

    def _deltas(self, parts: list[Part], *, is_end: bool = False) -> list[Delta]:
        raise NotImplementedError


class EventDecoder(BodyDecoder[SseEvent]):
    """The base for server-sent events. Comments become `KeepAlive`."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._begin_body()
        super().__init__(self._sse)

    def _begin_body(self) -> None:
        """Start with a new body; what is pending of the previous one is dropped."""
        self._sse = self._parser = SseDecoder(self._max_event_bytes)
        self._comments = 0

    def _keep_alives(self) -> list[Delta]:
        """Begin the deltas of one chunk: a `KeepAlive` if comments came."""
        if self._sse.comments == self._comments:
            return []
        self._comments = self._sse.comments
        return [KeepAlive()]
