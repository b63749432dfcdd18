"""Items of a Responses answer that are text: messages with their parts, and reasoning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from penstock.events import Citation, Phase, ReasoningBlockClosed, TokenLogprob
from penstock.gateway.projections.responses_wire import ResponsesWire, Slot, logprob_entries

__all__ = ["ItemStatus", "MessageItem", "ReasoningItem", "TextPart", "annotation_of"]

ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete"]


class TextPart:
    """A content part of a message: text or a refusal.

    Attributes:
        start: how many characters of the answer's text come before it; citations are counted from there.
        length: how many characters of it have come.
    """

    __slots__ = (
        *("_annotations", "_logprobs", "_place", "_wire"),
        *("kind", "length", "pieces", "slot", "source", "start"),
    )

    def __init__(self, item: MessageItem, kind: Literal["text", "refusal"], source: int, start: int) -> None:
        self._wire = item.wire
        self.kind = kind
        self.source = source  # the number of the answer's part
        self.start = start
        self.length = 0
        self.pieces: list[str] = []
        self._annotations: list[dict[str, Any]] = []
        self._logprobs: list[dict[str, Any]] = []
        self._place = {**item.place, "content_index": len(item.parts)}
        name = "output_text" if kind == "text" else "refusal"
        self.slot = Slot.of(f"response.{name}.delta", self._place, has_logprobs=kind == "text")
        self._wire.send("response.content_part.added", **self._place, part=self.whole())

    @property
    def end(self) -> int:
        """Where it ends in the answer's text, so far."""
        return self.start + self.length

    def add(self, text: str) -> None:
        """Send a piece."""
        self.pieces.append(text)
        self.length += len(text)
        self._wire.piece(self.slot, text)

    def add_likely(self, text: str, tokens: tuple[TokenLogprob, ...]) -> None:
        """Send a piece with the probabilities of its tokens. ``text`` is empty if it has been sent."""
        self.pieces.append(text)
        self.length += len(text)
        entries = logprob_entries(tokens)
        self._logprobs += entries
        self._wire.send("response.output_text.delta", **self._place, delta=text, logprobs=entries)

    def cite(self, citation: Citation) -> None:
        """Send a citation."""
        annotation = annotation_of(citation, self.start)
        index = len(self._annotations)
        self._annotations.append(annotation)
        self._wire.send(
            "response.output_text.annotation.added", **self._place, annotation_index=index, annotation=annotation
        )

    def close(self) -> None:
        """Send its end."""
        text = self.text()
        if self.kind == "text":
            self._wire.send("response.output_text.done", **self._place, text=text, logprobs=self._logprobs)
        else:
            self._wire.send("response.refusal.done", **self._place, refusal=text)
        self._wire.send("response.content_part.done", **self._place, part=self.whole())

    def text(self) -> str:
        """All of it so far."""
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    def whole(self) -> dict[str, Any]:
        """The part as it is now."""
        text = self.text()
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "annotations": self._annotations, "logprobs": self._logprobs, "text": text}


class MessageItem:
    """A message: parts of one phase between which there is nothing else."""

    __slots__ = ("id", "index", "parts", "phase", "place", "status", "wire")

    def __init__(self, wire: ResponsesWire, index: int, identifier: str, phase: Phase | None) -> None:
        self.wire = wire
        self.index = index
        self.id = identifier
        self.phase = phase
        self.status: ItemStatus = "in_progress"
        self.parts: list[TextPart] = []
        self.place = {"item_id": identifier, "output_index": index}
        wire.send("response.output_item.added", output_index=index, item=self.whole())

    def begin(self, kind: Literal["text", "refusal"], source: int, start: int) -> TextPart:
        """Close the last part and begin a new one."""
        if self.parts:
            self.parts[-1].close()
        part = TextPart(self, kind, source, start)
        self.parts.append(part)
        return part

    def close(self, status: ItemStatus) -> None:
        """Send the end of its last part, and its own."""
        if self.parts:
            self.parts[-1].close()
        self.status = status
        self.wire.send("response.output_item.done", output_index=self.index, item=self.whole())

    def whole(self) -> dict[str, Any]:
        """The item as it is now."""
        content = [part.whole() for part in self.parts]
        item = {"id": self.id, "type": "message", "status": self.status, "content": content, "role": "assistant"}
        return item if self.phase is None else item | {"phase": self.phase}


class ReasoningItem:
    """Reasoning: parts of a summary, or with ``is_raw`` of the reasoning itself, as open models give it."""

    __slots__ = ("_block", "_list", "_parts", "_place", "_raw", "_slot", "_source", "id", "index", "status", "wire")

    def __init__(self, wire: ResponsesWire, index: int, identifier: str, *, is_raw: bool) -> None:
        self.wire = wire
        self.index = index
        self.id = identifier
        self.status: ItemStatus = "in_progress"
        self._raw = is_raw
        self._parts: list[list[str]] = []
        self._source = -1
        self._block: ReasoningBlockClosed | None = None
        self._list = "content" if is_raw else "summary"
        self._place: dict[str, Any] = {}
        self._slot: Slot
        wire.send("response.output_item.added", output_index=index, item=self.whole())

    def add(self, source: int, text: str) -> None:
        """Send a piece of the answer's part ``source``."""
        if source != self._source or not self._parts:
            self._begin(source)
        self._parts[-1].append(text)
        self.wire.piece(self._slot, text)

    def _begin(self, source: int) -> None:
        self._end_part()
        self._source = source
        name = "content_index" if self._raw else "summary_index"
        self._place = {"item_id": self.id, "output_index": self.index, name: len(self._parts)}
        self._parts.append([])
        kind = "reasoning_text" if self._raw else "reasoning_summary_text"
        self._slot = Slot.of(f"response.{kind}.delta", self._place)
        kind = "content_part" if self._raw else "reasoning_summary_part"
        self.wire.send(f"response.{kind}.added", **self._place, part=self._part(""))

    def _end_part(self) -> None:
        if not self._parts:
            return
        text = "".join(self._parts[-1])
        self._parts[-1] = [text]
        names = (
            ("reasoning_text", "content_part") if self._raw else ("reasoning_summary_text", "reasoning_summary_part")
        )
        self.wire.send(f"response.{names[0]}.done", **self._place, text=text)
        self.wire.send(f"response.{names[1]}.done", **self._place, part=self._part(text))

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "reasoning_text" if self._raw else "summary_text", "text": text}

    def close(self, status: ItemStatus, block: ReasoningBlockClosed | None = None) -> None:
        """Send the end of its last part, and its own. ``block``: what the provider signed of it."""
        self._end_part()
        self.status, self._block = status, block
        self.wire.send("response.output_item.done", output_index=self.index, item=self.whole())

    def whole(self) -> dict[str, Any]:
        """The item as it is now."""
        parts = [self._part("".join(pieces)) for pieces in self._parts]
        item: dict[str, Any] = {"id": self.id, "type": "reasoning", "summary": []}
        item[self._list] = parts
        block = self._block
        if block is not None:
            if block.signature:
                item["encrypted_content"] = block.signature
            mark = {"provider": block.provider, "kind": block.kind, "id": block.id}
            item["penstock"] = {name: value for name, value in mark.items() if value is not None}
        return item | {"status": "incomplete"} if self.status == "incomplete" else item


_PAGES = ("url", "search_result")


def annotation_of(citation: Citation, start: int) -> dict[str, Any]:
    """A citation in the form of the API. ``start``: of the part that it is in; indices are counted from there.

    A search result is a page, and a range of a document a file. Without a span both indices are 0.
    """
    others = {name: value for name, value in citation.location.items() if name not in _NAMES}
    if citation.cited_text:
        others["content"] = citation.cited_text
    has_span = citation.start is not None and citation.end is not None
    first, last = (citation.start or 0) - start, (citation.end or 0) - start
    span = {"start_index": max(first, 0), "end_index": max(last, 0)} if has_span else {}
    if citation.url and (citation.kind in _PAGES or not citation.id):
        page = {"url": citation.url, "title": citation.title or ""}
        return {"type": "url_citation", **({"start_index": 0, "end_index": 0} | span), **page, **others}
    file: dict[str, Any] = {"file_id": citation.id or "", "filename": citation.title or ""}
    if citation.url:
        file["url"] = citation.url
    location: Mapping[str, Any] = citation.location
    if "container_id" in location:
        file = {"container_id": location["container_id"], **file}
        return {"type": "container_file_citation", **({"start_index": 0, "end_index": 0} | span), **file, **others}
    index = location.get("index", location.get("document_index", span.get("end_index", 0)))
    return {"type": "file_citation", "index": index, **file, **span, **others}


_NAMES = frozenset({"type", "start_index", "end_index", "url", "title", "file_id", "filename", "content"})
"""Fields of annotations that a citation's own location must not replace."""
