"""The base of all decoders: the state that they show, and the way from chunks to deltas."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from penstock.adapters.formats.sse import SseDecoder, SseEvent
from penstock.adapters.providers.shared.json_values import decode_json, plain_json, text_of
from penstock.adapters.providers.shared.surrogates import SurrogateJoiner, replace_surrogates
from penstock.config.options import Raw
from penstock.events import ProviderEvent
from penstock.ports import Delta, EventDelta, KeepAlive

__all__ = ["BodyDecoder", "EventDecoder", "Skips"]

Part = TypeVar("Part")


class _FormatParser(Protocol[Part]):
    def feed(self, chunk: bytes) -> list[Part]: ...

    def close(self) -> list[Part]: ...


class Skips:
    """Counts what a decoder does not understand, and passes it on if ``raw="unknown"``.

    The parts of a decoder have it, and it does not know the decoder: a method of that would make a circle of the two.
    """

    __slots__ = ("_is_passed_on", "count")

    def __init__(self, raw: Raw) -> None:
        self.count = 0
        self._is_passed_on = raw == "unknown"

    def __call__(self, kind: str, payload: object, out: list[Delta]) -> None:
        """Count something. ``kind``: the provider's name for it, such as the type of the event or block."""
        self.count += 1
        if self._is_passed_on:
            out.append(EventDelta(ProviderEvent(type=replace_surrogates(kind), payload=plain_json(payload))))


class BodyDecoder(Generic[Part]):
    """Implements `Decoder` except for the meaning of a body's parts (events, lines): subclasses define ``_deltas``.

    ``raw`` decides which `ProviderEvent` deltas are made; see `penstock.config.options.RequestOptions`.
    """

    def __init__(self, parser: _FormatParser[Part], raw: Raw = "none") -> None:
        self.finished = False
        self.done = False
        self.model: str | None = None
        self._parser = parser
        self._raw = raw
        self._skip = Skips(raw)
        self._has_surrogates = False
        self._surrogates = SurrogateJoiner()

    @property
    def skipped(self) -> int:
        """Events, choices or fields that were not understood."""
        return self._skip.count

    def feed(self, chunk: bytes) -> list[Delta]:
        """Decode one chunk into the deltas it completes.

        Raises:
            ProtocolError: an event or line is longer than the limit. The decoder is then unusable.
        """
        if self.done:
            return []
        parts = self._parser.feed(chunk)
        return self._deltas(parts) if self._raw != "all" else self._all_deltas(parts)

    def close(self) -> list[Delta]:
        """Decode the last part of a body that has ended, if the part lacks nothing but its terminator."""
        if self.done:
            return []
        parts = self._parser.close()
        if self._raw != "all":
            return self._deltas(parts, is_end=True)
        return self._all_deltas(parts) + ([] if self.done else self._deltas([], is_end=True))

    def _all_deltas(self, parts: list[Part]) -> list[Delta]:
        """The deltas of each part, after the part as it came."""
        out: list[Delta] = []
        for part in parts:
            if self.done:
                break
            event, data = self._source_of(part)
            try:
                payload = decode_json(data)
            except (ValueError, RecursionError):
                payload = data
            kind = text_of(payload.get("type")) if isinstance(payload, dict) else ""
            out.append(EventDelta(ProviderEvent(type=replace_surrogates(kind or event), payload=plain_json(payload))))
            out += self._deltas([part])
        return out if parts else self._deltas([])

    def _source_of(self, part: Part) -> tuple[str, str]:
        """The name of a part's type, ``""`` if it has none, and its data."""
        raise NotImplementedError

    def _deltas(self, parts: list[Part], *, is_end: bool = False) -> list[Delta]:
        raise NotImplementedError


class EventDecoder(BodyDecoder[SseEvent]):
    """The base for server-sent events. Comments become `KeepAlive`."""

    def __init__(self, max_event_bytes: int, raw: Raw = "none") -> None:
        self._max_event_bytes = max_event_bytes
        self._begin_body()
        super().__init__(self._sse, raw)

    def _source_of(self, part: SseEvent) -> tuple[str, str]:
        return "" if part.event == "message" else part.event, part.data

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
