"""Builds the outcome of an answer from its deltas. Pure, except for a lock so that other threads can read it."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from penstock.actors.call.toolcalls import ToolCallAccumulator
from penstock.actors.stream.outcome import Outcome
from penstock.events import Choice, FinishReason, ReasoningBlock, TokenKind, ToolEvent, Usage
from penstock.ports import (
    ChoiceDelta,
    Delta,
    FinishDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)

__all__ = ["OutcomeBuilder"]


class _Finish:
    """The finish reason of an answer, once it has come."""

    __slots__ = ("raw", "reason")

    def __init__(self) -> None:
        self.reason: FinishReason | None = None
        self.raw: str | None = None

    def note(self, delta: FinishDelta) -> None:
        if self.reason != "tool_calls" or delta.reason != "stop":  # some providers send "stop" after it
            self.reason, self.raw = delta.reason, delta.raw


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
                self.calls.feed(delta)
                return _size(delta)
            case FinishDelta():
                self.finish.note(delta)
        return 0

    def choice(self, index: int) -> Choice:
        return Choice(
            index=index,
            text="".join(self.text),
            reasoning="".join(self.reasoning),
            refusal="".join(self.refusal),
            tool_calls=self.calls.finish(is_whole=self.finish.reason is not None),
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
        self.sealed = 0
        """Characters kept besides those in ``size``: signatures, and reasoning that only the provider can read."""
        self.model: str | None = None
        """The model's name as the provider reports it."""
        self.usage: Usage | None = None
        self._lock = threading.Lock()
        self._finish = _Finish()
        self._calls = ToolCallAccumulator()
        self._blocks: list[ReasoningBlock] = []
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

    def note(self, delta: Delta) -> list[ToolEvent] | None:
        """Add a delta that is not text of the first choice; returns the events of function calls that follow from it.

        None if the delta says nothing about the answer.
        """
        with self._lock:
            match delta:
                case ToolCallFragment():
                    self.size += _size(delta)
                    return self._calls.feed(delta)
                case ReasoningBlockDelta(block=block):
                    self._blocks.append(block)
                    self.sealed += len(block.signature)
                case ChoiceDelta(index=index, delta=part):
                    other = self._others.get(index)
                    if other is None:
                        other = self._others[index] = _Other()
                    self.size += other.note(part)
                case UsageDelta(usage=usage):
                    self.usage = usage
                case FinishDelta():
                    self._finish.note(delta)
                case _:
                    return None
            return []

    def took(self, tokens: Iterable[tuple[str, TokenKind]]) -> None:
        """Note tokens that are in the stream's buffer now."""
        with self._lock:
            for text, kind in tokens:
                self._taken.setdefault(kind, []).append(text)

    def complete(self) -> list[ToolEvent]:
        """Note that the answer is complete; returns the remaining events of its function calls."""
        with self._lock:
            self._is_complete = True
            return self._calls.complete()

    def outcome(self) -> Outcome:
        """The outcome so far. Any thread."""
        with self._lock:
            others = sorted(self._others.items())
            return Outcome(
                finish_reason=self._finish.reason or "stop",
                raw_finish_reason=self._finish.raw,
                tool_calls=self._calls.finish(is_whole=self.is_whole),
                usage=self.usage,
                model=self.model,
                reasoning_blocks=tuple(self._blocks),
                choices=tuple(other.choice(index) for index, other in others),
                text="".join(self._taken.get("text", ())),
                reasoning="".join(self._taken.get("reasoning", ())),
            )


def _size(delta: ToolCallFragment) -> int:
    return len(delta.arguments) + len(delta.name or "") + len(delta.id or "")
