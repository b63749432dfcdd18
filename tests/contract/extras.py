"""Collects what deltas say besides text and calls, in the form of the corpus's ``expect_extras``. Pure.

Places in the text are resolved as the core does it, from the deltas alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from penstock.events import Logprobs, MediaPart, ServerToolCall, ServerToolResult, Usage
from penstock.ports import (
    BlockDelta,
    BlockStart,
    CitationDelta,
    Delta,
    EventDelta,
    MetadataDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)
from tests.corpus.found import sha256

__all__ = ["Collected", "collect"]

_Json: TypeAlias = dict[str, Any]

_GEMINI_PARTS = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse", "text")


class Collected:
    """What an answer has besides text and calls.

    Attributes:
        order: all of it in the order in which it came, each with the name of its list.
    """

    def __init__(self) -> None:
        self.order: list[tuple[str, Any]] = []
        self.texts = {"text": "", "reasoning": "", "refusal": ""}
        self.spans: list[_Json] = []
        self.metadata: _Json = {}
        self.usage = Usage()
        self.call_ids: list[str] = []
        self.tokens: list[Any] = []
        self.late_tokens = 0
        """Tokens with probabilities that came before the text they belong to, or not directly after it."""
        self._last: dict[str, tuple[_Json, int]] = {}
        self._part = 0
        self._phase: str | None = None
        self._has_said = False
        self._block_from = 0

    def of(self, name: str) -> list[Any]:
        """The items of one list."""
        return [item for each, item in self.order if each == name]

    @property
    def written(self) -> int:
        return len(self.texts["text"])

    def note(self, delta: Delta) -> None:
        """Add a delta."""
        match delta:
            case TextDelta(text=text):
                self._say("text", text)
            case ReasoningDelta(text=text):
                self._say("reasoning", text)
            case RefusalDelta(text=text):
                self._say("refusal", text)
            case BlockStart():
                self._start(delta)
            case CitationDelta():
                self._cite(delta)
            case EventDelta(event=event):
                self._note_event(event)
            case ReasoningBlockDelta(block=block):
                seal = sha256(block.signature) if block.signature else None
                self.order.append(("reasoning_blocks", {"kind": block.kind, "sha256": seal}))
            case BlockDelta(data=data):
                self.order.append(("provider_blocks", self._block(dict(data))))
            case MetadataDelta(values=values):
                self.metadata |= values
            case UsageDelta(usage=usage):
                self.usage = usage
            case ToolCallFragment(is_server=False, id=str(identifier)) if identifier not in self.call_ids:
                self.call_ids.append(identifier)
                if delta.type not in ("", "function"):
                    self.order.append(("call_types", [identifier, delta.type]))

    # --- text ------------------------------------------------------------------------------------------------------

    def _say(self, kind: str, text: str) -> None:
        start = len(self.texts[kind])
        self.texts[kind] += text
        self._has_said = True
        span, part = self._last.get(kind, ({}, -1))
        if part != self._part or span.get("phase") != self._phase:
            span = {"kind": kind, "start": start} | ({} if self._phase is None else {"phase": self._phase})
            self.spans.append(span)
            self._last[kind] = span, self._part
        span["end"] = start + len(text)

    def _start(self, delta: BlockStart) -> None:
        if delta.kind == "text":
            self._block_from = self.written
        if delta.is_joint:
            self._part += self._has_said
            self._has_said = False
            self._phase = delta.phase

    @property
    def parts(self) -> list[_Json]:
        """The parts; empty if each kind of text is one part without a phase."""
        kinds = [span["kind"] for span in self.spans]
        is_plain = len(set(kinds)) == len(kinds) and not any("phase" in span for span in self.spans)
        return [] if is_plain else self.spans

    # --- the rest --------------------------------------------------------------------------------------------------

    def _cite(self, delta: CitationDelta) -> None:
        citation = delta.citation
        start, end = (0, self.written - self._block_from) if delta.is_of_block else (citation.start, citation.end)
        span = None if start is None or end is None else [start + self._block_from, end + self._block_from]
        fields = {name: getattr(citation, name) for name in ("kind", "url", "id", "title", "cited_text")}
        self.order.append(("citations", fields | {"span": span}))

    def _note_event(self, event: object) -> None:
        match event:
            case ServerToolCall(id=identifier, name=name):
                self.order.append(("server_tools", {"step": "call", "id": identifier, "name": name.lower()}))
            case ServerToolResult(id=identifier, name=name, is_error=is_error):
                step = {"step": "result", "id": identifier, "name": name.lower(), "is_error": is_error}
                self.order.append(("server_tools", step))
            case MediaPart():
                names = ("kind", "mime", "url", "id", "transcript", "is_partial")
                medium = {name: getattr(event, name) for name in names}
                content = {"length": len(event.data), "sha256": sha256(event.data)}
                self.order.append(("media", medium | content))
            case Logprobs(tokens=tokens):
                self.tokens += tokens
                self.order += [("logprobs", token) for token in tokens]
                joined = "".join(token.token for token in self.tokens)
                self.late_tokens += len(tokens) * (joined not in self.texts.values())

    def _block(self, data: _Json) -> _Json:
        """A block in short: its type, id and place; Gemini's parts have no type, but are named by what they hold."""
        kind = data.get("type") or next((name for name in _GEMINI_PARTS if name in data), None)
        fields = data if "type" in data else data.get(kind or "")
        fields = fields if isinstance(fields, dict) else {}
        identifier = fields.get("tool_use_id") or fields.get("id")
        return {"type": kind, "id": identifier, "at": self.written, "calls": len(self.call_ids)}


def collect(deltas: Iterable[Delta]) -> Collected:
    """Everything that the deltas of one answer say besides text and calls."""
    collected = Collected()
    for delta in deltas:
        collected.note(delta)
    return collected
