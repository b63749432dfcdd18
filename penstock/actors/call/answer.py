"""Builds the outcome of an answer from its deltas. Pure, except for a lock so that other threads can read it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

import msgspec

from penstock.actors.call.extras import Extras
from penstock.actors.call.held import Held
from penstock.actors.call.tally import Tally
from penstock.actors.call.toolcalls import ToolCallAccumulator
from penstock.actors.stream.outcome import Outcome
from penstock.events import (
    Choice,
    FinishReason,
    FrozenDict,
    ReasoningBlock,
    ReasoningBlockClosed,
    SideEvent,
    TokenKind,
    ToolEvent,
    Usage,
)
from penstock.ports import (
    BlockDelta,
    ChoiceDelta,
    CitationDelta,
    Delta,
    EventDelta,
    FinishDelta,
    MetadataDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)

__all__ = ["OutcomeBuilder"]

_SHORT: Final = 100
"""Characters of the provider's word for the finish reason that do not count into the length of the answer."""


class _Finish:
    """The finish reason of an answer, once it has come."""

    __slots__ = ("raw", "reason", "weight")

    def __init__(self) -> None:
        self.reason: FinishReason | None = None
        self.raw: str | None = None
        self.weight = _SHORT
        """Characters of the provider's word for it, at least `_SHORT`."""

    def note(self, delta: FinishDelta) -> None:
        if self.reason != "tool_calls" or delta.reason != "stop":  # some providers send "stop" after it
            self.reason, self.raw, self.weight = delta.reason, delta.raw, max(_SHORT, len(delta.raw))


class _Other:
    """What has come of a choice other than the first."""

    __slots__ = ("calls", "finish", "reasoning", "refusal", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls = ToolCallAccumulator()
        self.finish = _Finish()

    def note(self, delta: TextDelta | ReasoningDelta | RefusalDelta | ToolCallFragment | FinishDelta) -> int:
        """Add a delta; returns its size in characters."""
        match delta:
            case TextDelta(text=text):
                self.text.append(text)
                return len(text)
            case ReasoningDelta(text=text):
                self.reasoning.append(text)
                return len(text)
            case RefusalDelta(text=text):
                self.refusal.append(text)
                return len(text)
            case ToolCallFragment():
                before = self.calls.size
                self.calls.feed(delta)
                return self.calls.size - before + len(delta.signature)
            case FinishDelta():
                self.finish.note(delta)
        return 0

    def choice(self, index: int, provider: str | None) -> Choice:
        return Choice(
            index=index,
            text="".join(self.text),
            reasoning="".join(self.reasoning),
            refusal="".join(self.refusal),
            tool_calls=self.calls.finish(is_whole=self.finish.reason is not None, provider=provider),
            finish_reason=self.finish.reason,
            raw_finish_reason=self.finish.raw,
        )


class OutcomeBuilder:
    """Builds the outcome of one answer, which may come over several connections.

    One thread feeds it; any thread may read the `outcome` so far at any time. With ``keeps_text``, the text and the
    reasoning that were passed to `took` are part of the outcome.
    """

    def __init__(self, *, keeps_text: bool = False) -> None:
        self.keeps_text = keeps_text
        self.size = 0
        """Characters received so far, of any kind."""
        self.unwritten = 0
        """How many of them are not text of the answer: reasoning, refusals, calls, other choices."""
        self.tally = Tally()
        """Counts the bytes kept besides the characters in ``size``."""
        self.model: str | None = None
        """The model's name as the provider reports it."""
        self.provider: str | None = None
        """The name of the provider that is asked."""
        self.usage: Usage | None = None
        self.has_said = False
        """Whether there are tokens in the present part of the answer."""
        self.held = Held()
        self.blocks_before = 0
        """How many closed pieces of reasoning earlier rounds have, since the last reset."""
        self._lock = threading.Lock()
        self._finish = _Finish()
        self._calls = ToolCallAccumulator()
        self._blocks: list[ReasoningBlock] = []
        self._void_blocks = 0  # how many of them came before a reset
        self._extras: Extras | None = None
        self._others: dict[int, _Other] = {}
        self._taken: dict[TokenKind, list[str]] = {}
        self._is_complete = False

    @property
    def is_finished(self) -> bool:
        """Whether a finish reason has come."""
        return self._finish.reason is not None

    @property
    def is_whole(self) -> bool:
        """Whether the answer is complete, even without a finish reason: the end marker may be all that came."""
        return self._is_complete or self.is_finished

    @property
    def written(self) -> int:
        """How many characters of text have been counted in ``size``."""
        return self.size - self.unwritten

    @property
    def extras(self) -> Extras:
        """What the answer has besides text and calls. Made when first asked for."""
        if self._extras is None:
            self._extras = Extras()
        return self._extras

    def note(self, delta: Delta, written: int = 0) -> list[SideEvent]:
        """Add a delta that is not text of the first choice; returns the events that follow from it.

        ``written`` is the number of characters of text before it.
        """
        with self._lock:
            match delta:
                case ToolCallFragment():
                    before = self._calls.size
                    events = self._calls.feed(delta)
                    size = self._calls.size - before
                    self.size += size
                    self.unwritten += size
                    self.tally.total += len(delta.signature)
                    return list(events)
                case ReasoningBlockDelta(block=block):
                    return [self._note_reasoning(block)]
                case ChoiceDelta(index=index, delta=part):
                    other = self._others.get(index)
                    if other is None:
                        other = self._others[index] = _Other()
                    size = other.note(part)
                    self.size += size
                    self.unwritten += size
                case CitationDelta() | EventDelta() | BlockDelta() | MetadataDelta():
                    return self._note_extra(delta, written)
                case UsageDelta(usage=usage):
                    self.usage = usage
                case FinishDelta():
                    before = self._finish.weight
                    self._finish.note(delta)
                    self.tally.total += self._finish.weight - before
            return []

    def _note_extra(
        self, delta: CitationDelta | EventDelta | BlockDelta | MetadataDelta, written: int
    ) -> list[SideEvent]:
        events = self.extras.note(delta, written, self._calls.client_calls, self.provider)
        for event in events:
            self.tally.event(event)
        if isinstance(delta, BlockDelta):
            self.tally.block(delta.data)
        elif isinstance(delta, MetadataDelta):
            self.tally.metadata(delta.values)
        return events

    def _note_reasoning(self, block: ReasoningBlock) -> ReasoningBlockClosed:
        self._blocks.append(msgspec.structs.replace(block, provider=self.provider))
        self.tally.reasoning(block)
        return ReasoningBlockClosed(
            index=self.blocks_before + len(self._blocks) - 1,
            kind=block.kind,
            signature=block.signature,
            id=block.id,
            provider=self.provider,
        )

    def void(self, said: int) -> None:
        """Note that the stream is reset; see `Feed.void_answer`. Any thread."""
        with self._lock:
            self._void_blocks = len(self._blocks)
            self.blocks_before = -self._void_blocks
            self.extras.void(said)

    def took(self, tokens: Iterable[tuple[str, TokenKind]]) -> None:
        """Note tokens that are in the stream's buffer now."""
        with self._lock:
            for text, kind in tokens:
                self._taken.setdefault(kind, []).append(text)

    def complete(self) -> list[ToolEvent]:
        """Note that the answer is complete; returns the remaining events of its function calls."""
        with self._lock:
            self._is_complete = True
            return self._calls.complete(is_finished=self.is_finished, provider=self.provider)

    def outcome(self) -> Outcome:
        """The outcome so far. Any thread."""
        with self._lock:
            others = sorted(self._others.items())
            outcome = Outcome(
                finish_reason=self._finish.reason or "stop",
                raw_finish_reason=self._finish.raw,
                tool_calls=self._calls.finish(
                    is_whole=self.is_whole, is_finished=self.is_finished, provider=self.provider
                ),
                usage=self.usage,
                model=self.model,
                reasoning_blocks=tuple(self._blocks),
                choices=tuple(other.choice(index, self.provider) for index, other in others),
                text="".join(self._taken.get("text", ())),
                reasoning="".join(self._taken.get("reasoning", ())),
                void_reasoning_blocks=self._void_blocks,
            )
            if self._extras is not None:
                outcome = self._extras.added_to(outcome, is_cut=self.keeps_text and not self.is_whole)
            if not self.held.dropped:
                return outcome
            metadata = FrozenDict({**outcome.provider_metadata, "dropped_events": self.held.dropped})
            return msgspec.structs.replace(outcome, provider_metadata=metadata)
