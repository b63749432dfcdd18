"""What an answer has besides text and calls: sources, media, the provider's own tools, probabilities. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.actors.stream.folded import cost_of, weight_of
from penstock.actors.stream.outcome import Outcome
from penstock.events import (
    Citation,
    FrozenDict,
    Logprobs,
    MediaPart,
    Phase,
    ProviderBlock,
    ProviderEvent,
    ServerToolCall,
    ServerToolResult,
    SideEvent,
    TokenLogprob,
)
from penstock.ports import BlockDelta, BlockStart, CitationDelta, EventDelta, MetadataDelta

__all__ = ["Extras"]


class Extras:
    """Collects them for the terminal event, and resolves places in the text."""

    __slots__ = (
        "_block_from",
        "_blocks",
        "_citations",
        "_logprobs",
        "_media",
        "_metadata",
        "_server_tools",
        "part",
        "phase",
        "text_before",
        "weight",
    )

    def __init__(self) -> None:
        self.weight = 0  # about how many bytes it takes
        self.part = 0  # of the text that comes now
        self.phase: Phase | None = None
        self.text_before = 0  # characters of the stream's text before this answer: of earlier rounds of a turn
        self._block_from = 0  # where in the text the present block begins
        self._citations: list[Citation] = []
        self._media: list[MediaPart] = []
        self._server_tools: list[ServerToolCall | ServerToolResult] = []
        self._logprobs: list[TokenLogprob] = []
        self._blocks: list[ProviderBlock] = []
        self._metadata: dict[str, Any] = {}

    def start_block(self, delta: BlockStart, written: int, *, has_said: bool) -> bool:
        """Note the start of a block after ``written`` characters; returns whether a part begins with it.

        ``has_said``: whether there are tokens in the present part.
        """
        if delta.kind == "text":
            self._block_from = written
        if not delta.is_joint:
            return False
        self.part += has_said
        changes = has_said or delta.phase != self.phase
        self.phase = delta.phase
        return changes

    def note(
        self,
        delta: CitationDelta | EventDelta | BlockDelta | MetadataDelta,
        written: int,
        calls: int,
        provider: str | None,
    ) -> list[SideEvent]:
        """Add a delta that comes after ``written`` characters and ``calls`` calls; returns the event to report."""
        match delta:
            case CitationDelta():
                citation = self._placed(delta, written)
                self._citations.append(citation)
                self.weight += cost_of(citation)
                return [citation]
            case EventDelta(event=event):
                self._keep(event)
                return [event]
            case BlockDelta(data=data):
                self.weight += weight_of(data)
                self._blocks.append(ProviderBlock(provider=provider or "", data=data, at=written, calls=calls))
            case MetadataDelta(values=values):
                self.weight += weight_of(values)
                self._metadata |= values
        return []

    def _placed(self, delta: CitationDelta, written: int) -> Citation:
        """The citation with its span counted from the start of the stream's text."""
        start, end = (
            (0, written - self._block_from) if delta.is_of_block else (delta.citation.start, delta.citation.end)
        )
        if start is not None and end is not None:
            origin = self.text_before + self._block_from
            start, end = start + origin, end + origin
        return msgspec.structs.replace(delta.citation, start=start, end=end, part=self.part)

    def _keep(self, event: ServerToolCall | ServerToolResult | MediaPart | Logprobs | ProviderEvent) -> None:
        match event:
            case ServerToolCall() | ServerToolResult():
                self._server_tools.append(event)
            case MediaPart(is_partial=True):
                self.weight += len(event.data)  # the decoder may keep it for the whole
                return
            case MediaPart():
                self._media.append(event)
            case Logprobs(tokens=tokens):
                self._logprobs += tokens
            case _:
                return
        self.weight += cost_of(event)

    def added_to(self, outcome: Outcome) -> Outcome:
        """The outcome with everything that has been collected."""
        return msgspec.structs.replace(
            outcome,
            citations=tuple(self._citations),
            media=tuple(self._media),
            server_tools=tuple(self._server_tools),
            logprobs=tuple(self._logprobs),
            provider_blocks=tuple(self._blocks),
            provider_metadata=FrozenDict(self._metadata),
        )
