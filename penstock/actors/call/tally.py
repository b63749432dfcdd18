"""How much an answer takes besides its text, for the bound ``max_answer_bytes``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.actors.stream.weights import cost_of, text_weight, weight_of
from penstock.events import MediaPart, ProviderEvent, ReasoningBlock, SideEvent

__all__ = ["Tally"]

_LONG: Final = 256
"""Characters from which a text is looked for among those that have been counted."""


class Tally:
    """Counts what is kept, in bytes, and each thing once.

    A text that a block for the next request repeats (the signature of a closed piece of reasoning, a picture, the
    result of a tool) does not count there again. Previews count until the whole comes, metadata until it is replaced.
    The text of reasoning counts where it is said.
    """

    __slots__ = ("_counted", "_metadata", "_previews", "reasoned", "total")

    def __init__(self) -> None:
        self.total = 0
        self.reasoned = 0
        """Characters of reasoning that no closed piece of it has repeated."""
        self._counted: dict[int, str] = {}  # long texts, by identity
        self._metadata: dict[str, int] = {}
        self._previews: dict[tuple[str, str | None], int] = {}

    def event(self, event: SideEvent) -> None:
        """Count an event of the answer. Raw events are bounded by what the log retains."""
        if isinstance(event, ProviderEvent):
            return
        if isinstance(event, MediaPart):
            self._media(event)
        else:
            self.total += cost_of(event, self._weigh)

    def _media(self, part: MediaPart) -> None:
        """Pieces of sound add up, as the decoder joins them; each preview of something else replaces the last one."""
        key = (part.kind, part.id)
        before = self._previews.pop(key, 0)
        if part.is_partial:
            size = cost_of(part)
            self._previews[key] = after = before + size if part.kind == "audio" else max(before, size)
        else:
            before = before or self._previews.pop((part.kind, None), 0)
            after = cost_of(part, self._weigh)
        self.total += after - before

    def block(self, data: Mapping[str, Any]) -> None:
        """Count a block for the next request."""
        self.total += weight_of(data, self._weigh_in_block)

    def reasoning(self, block: ReasoningBlock) -> None:
        """Count a closed piece of reasoning, apart from the text that has been said."""
        told = min(self.reasoned, len(block.text))
        self.reasoned -= told
        self._weigh(block.text)  # where it stands in a block too, it is not counted again
        self.total += len(block.text) - told + self._weigh(block.signature) + text_weight(block.id or "")

    def metadata(self, values: Mapping[str, Any]) -> None:
        """Count metadata; it replaces that of the same names."""
        for name, value in values.items():
            weight = text_weight(name) + weight_of(value)
            self.total += weight - self._metadata.get(name, 0)
            self._metadata[name] = weight

    def _weigh(self, text: str) -> int:
        if len(text) >= _LONG:
            self._counted[id(text)] = text
        return text_weight(text)

    def _weigh_in_block(self, text: str) -> int:
        return 8 if id(text) in self._counted else self._weigh(text)
