"""What an answer has besides text and calls: sources, media, the provider's own tools, probabilities. Pure.

The events themselves are in the stream's log, from which the terminal event repeats them.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter
from typing import Any, TypeAlias

import msgspec

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
)
from penstock.ports import BlockDelta, BlockStart, CitationDelta, EventDelta, MetadataDelta

__all__ = ["Extras"]

_Event: TypeAlias = ServerToolCall | ServerToolResult | MediaPart | Logprobs | ProviderEvent


class Extras:
    """Resolves places in the text, and collects what is no event.

    Places and parts are counted as if the stream were never reset; see `Intake.offer_event`.
    """

    __slots__ = (
        "_block_from",
        "_blocks",
        "_metadata",
        "_parts",
        "_renamed",
        "_void_blocks",
        "_void_text",
        "part",
        "phase",
        "round",
        "text_before",
        "tool_ids",
    )

    def __init__(self) -> None:
        self.part = 0  # of the text that comes now
        self.phase: Phase | None = None
        self.text_before = 0  # characters of the stream's text before this answer: of earlier rounds of a turn
        self.round = 1
        self.tool_ids: dict[str, int] = {}  # of the provider's own calls, and the round in which each came
        self._block_from = 0  # where in the text the present block begins
        self._parts: list[tuple[int, int]] = []  # where in the text each part begins, and its number
        self._renamed: dict[str, str] = {}  # ids of this round that earlier rounds have too
        self._blocks: list[ProviderBlock] = []
        self._metadata: dict[str, Any] = {}
        self._void_text = 0  # see `Outcome`
        self._void_blocks = 0

    def start_block(self, delta: BlockStart, written: int, *, has_said: bool) -> bool:
        """Note the start of a block after ``written`` characters; returns whether a part begins with it.

        ``has_said``: whether there are tokens in the present part.
        """
        if delta.kind == "text":
            self._block_from = written
        if not delta.is_joint:
            return False
        if has_said:
            if not self._parts:
                self._parts.append((0, self.part))
            self.part += 1
            self._parts.append((written, self.part))
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
                return [self._placed(delta, written)]
            case EventDelta(event=event):
                return [self._identified(event)]
            case BlockDelta(data=data):
                self._blocks.append(ProviderBlock(provider=provider or "", data=data, at=written, calls=calls))
            case MetadataDelta(values=values):
                self._metadata |= values
        return []

    def _placed(self, delta: CitationDelta, written: int) -> Citation:
        """The citation with its span counted from the start of the stream's text, and the part that the span is in."""
        start, end = (
            (0, written - self._block_from) if delta.is_of_block else (delta.citation.start, delta.citation.end)
        )
        part = self.part
        if start is not None and end is not None:
            start, end = start + self._block_from, end + self._block_from
            before = bisect_right(self._parts, start, key=itemgetter(0))
            part = self._parts[before - 1][1] if before else part
            start, end = start + self.text_before, end + self.text_before
        return msgspec.structs.replace(delta.citation, start=start, end=end, part=part)

    def _identified(self, event: _Event) -> _Event:
        """The event, with an id that no call of an earlier round has: those that are made up begin anew in each.

        The result may be of a call of an earlier piece of the answer, so only a call gets another id.
        """
        if isinstance(event, ServerToolCall):
            name = event.id
            while self.tool_ids.setdefault(name, self.round) != self.round:
                name = f"{name}_{self.round}"
            if name == event.id:
                return event
            self._renamed[event.id] = name
        elif not isinstance(event, ServerToolResult) or event.id not in self._renamed:
            return event
        return msgspec.structs.replace(event, id=self._renamed[event.id])

    def void(self, said: int) -> None:
        """Note that the stream is reset: the first ``said`` characters of its text are void, and all blocks so far."""
        self._void_text = max(0, said - self.text_before)
        self._void_blocks = len(self._blocks)

    def added_to(self, outcome: Outcome, *, is_cut: bool) -> Outcome:
        """The outcome with everything that has been collected.

        ``is_cut``: the stream has taken no more than the outcome's text, and blocks after that have no place.
        """
        blocks = self._blocks
        if is_cut:
            blocks = [block for block in blocks if block.at <= len(outcome.text)]
        return msgspec.structs.replace(
            outcome,
            provider_blocks=tuple(blocks),
            provider_metadata=FrozenDict(self._metadata),
            void_text=self._void_text,
            void_provider_blocks=self._void_blocks,
        )
