"""The output of a Responses answer: which items are open, what belongs to which, and what closes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

from penstock.events import (
    Citation,
    MediaPart,
    Phase,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    TokenKind,
    TokenLogprob,
    ToolCall,
    ToolCallCompleted,
    ToolCallStarted,
    ToolResult,
)
from penstock.gateway.projections.responses_calls import CallItem, OutputItem, is_known_late
from penstock.gateway.projections.responses_hosted import PICTURE, HostedToolItem
from penstock.gateway.projections.responses_texts import ItemStatus, MessageItem, ReasoningItem, TextPart
from penstock.gateway.projections.responses_wire import ResponsesWire
from penstock.gateway.projections.sent import Sent

__all__ = ["ResponsesOutput"]

_ITEMS: Final = {
    "function": "function_call",
    "custom": "custom_tool_call",
    "mcp_approval": "mcp_approval_request",
}
"""The types of items by the type of the call. The others are that with ``_call``."""


class _Item(Protocol):
    def whole(self) -> dict[str, Any]: ...


class _Ready:
    """An item that came whole."""

    __slots__ = ("_item",)

    def __init__(self, wire: ResponsesWire, index: int, item: dict[str, Any]) -> None:
        self._item = item
        wire.send("response.output_item.added", output_index=index, item=item)
        wire.send("response.output_item.done", output_index=index, item=item)

    def whole(self) -> dict[str, Any]:
        return self._item


class ResponsesOutput:
    """Makes items of events, in the order in which they begin.

    Text, refusals and reasoning are open one at a time; calls and the provider's own tools stay open beside them.

    Attributes:
        items: those that count: of an answer that began again, only those since.
        sent: the text that has come since then.
        calls, results, told: how many complete calls, results and other events that a snapshot repeats.
    """

    def __init__(self, wire: ResponsesWire, name: str, declared: Mapping[str, str], *, raw_reasoning: bool) -> None:
        self._wire = wire
        self._name = name
        self._declared = declared
        self._raw_reasoning = raw_reasoning
        self._index = 0
        self._counts: dict[str, int] = {}
        self._used: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        self.items: list[_Item] = []
        self.sent = Sent()
        self.calls = self.results = self.told = 0
        self._growing: TextPart | None = None
        self._message: MessageItem | None = None
        self._reasoning: ReasoningItem | None = None
        self._texts: list[TextPart] = []
        self._citations: list[Citation] = []  # those of text that has not come
        self._open: dict[int, CallItem] = {}
        self._late: dict[int, ToolCallStarted] = {}  # calls of which it is not known what they are
        self._called: dict[str, dict[str, Any]] = {}  # the items of calls, by the ids of the events
        self._hosted: dict[str, HostedToolItem] = {}
        self._over: HostedToolItem | None = None  # one that is over unless the next event belongs to it
        self._gaps = False  # pieces of the open calls are missing

    # --- ids -------------------------------------------------------------------------------------------------------

    def _next(self, prefix: str) -> tuple[int, str]:
        """The index of the next item, and its number among those with this prefix, after the stream's name."""
        count = self._counts.get(prefix, 0)
        self._counts[prefix] = count + 1
        self._index += 1
        return self._index - 1, f"{self._name}_{count}"

    def _unique(self, identifier: str) -> str:
        """The id, with a number if another item has it: providers repeat ids in each round."""
        unique, number = identifier, 1
        while unique in self._used:
            unique, number = f"{identifier}_{number}", number + 1
        self._used.add(unique)
        return unique

    # --- text ------------------------------------------------------------------------------------------------------

    def say(self, kind: TokenKind, source: int, phase: Phase | None, text: str) -> None:
        """Add a piece of text of the answer's part ``source``."""
        self.sent.add(kind, text)
        growing = self._growing
        if growing is not None and growing.kind == kind and growing.source == source and self._has_phase(phase):
            growing.add(text)
        elif kind == "reasoning":
            self._reason().add(source, text)
        else:
            self._part(kind, source, phase, len(text)).add(text)

    def _has_phase(self, phase: Phase | None) -> bool:
        return self._message is not None and self._message.phase == phase

    def likely(self, text: str, source: int, phase: Phase | None, tokens: tuple[TokenLogprob, ...]) -> None:
        """Add a piece of text with probabilities. An empty ``text``: they are of text that has come."""
        if text:
            self.sent.add("text", text)
            growing = self._growing
            is_same = growing is not None and growing.kind == "text" and growing.source == source
            if growing is None or not is_same or not self._has_phase(phase):
                growing = self._part("text", source, phase, len(text))
            growing.add_likely(text, tokens)
        elif self._growing is not None and self._growing.kind == "text":
            self._growing.add_likely("", tokens)

    def _reason(self) -> ReasoningItem:
        if self._reasoning is None:
            self._settle()
            self._close_message()
            index, number = self._next("rs")
            self._reasoning = ReasoningItem(self._wire, index, f"rs_{number}", is_raw=self._raw_reasoning)
            self.items.append(self._reasoning)
        return self._reasoning

    def _part(self, kind: Literal["text", "refusal"], source: int, phase: Phase | None, length: int) -> TextPart:
        """Begin a part of a message. ``length``: of its first piece, which has been counted."""
        self._settle()
        self._close_reasoning()
        if self._message is not None and self._message.phase != phase:
            self._close_message()
        if self._message is None:
            index, number = self._next("msg")
            self._message = MessageItem(self._wire, index, f"msg_{number}", phase)
            self.items.append(self._message)
        start = self.sent.lengths["text"] - (length if kind == "text" else 0)
        if self._citations:
            self._cite_pending(start)
        self._growing = part = self._message.begin(kind, source, start)
        if kind == "text":
            self._texts.append(part)
        return part

    def _close_message(self, status: ItemStatus = "completed") -> None:
        if self._message is not None:
            if self._citations:
                self._cite_pending(self.sent.lengths["text"])
            message, self._message, self._growing = self._message, None, None
            message.close(status)

    def _close_reasoning(self, status: ItemStatus = "completed", block: ReasoningBlockClosed | None = None) -> None:
        if self._reasoning is not None:
            reasoning, self._reasoning = self._reasoning, None
            reasoning.close(status, block)

    def seal(self, block: ReasoningBlockClosed) -> None:
        """End reasoning with what the provider signed. Without open reasoning it becomes an item of its own."""
        self.told += 1
        self._settle()
        if self._reasoning is None:
            index, number = self._next("rs")
            self._reasoning = ReasoningItem(self._wire, index, f"rs_{number}", is_raw=self._raw_reasoning)
            self.items.append(self._reasoning)
        self._close_reasoning("completed", block)

    # --- citations -------------------------------------------------------------------------------------------------

    def cite(self, citation: Citation) -> None:
        """Add a citation to the part that its span is in, or to the last one. It may be of text that comes later."""
        self.told += 1
        if self._texts and (citation.start is None or citation.start < self.sent.lengths["text"]):
            self._place_of(citation.start).cite(citation)
        else:
            self._citations.append(citation)

    def _place_of(self, start: int | None) -> TextPart:
        if start is not None:
            for part in reversed(self._texts):
                if part.start <= start:
                    return part
        return self._texts[-1]

    def _cite_pending(self, length: int | None) -> None:
        """Add the citations of the first ``length`` characters of text, which have come; None: all of them."""
        waiting, self._citations = self._citations, []
        for citation in waiting:
            if self._texts and (length is None or citation.start is None or citation.start < length):
                self._place_of(citation.start).cite(citation)
            else:
                self._citations.append(citation)

    # --- calls for the client --------------------------------------------------------------------------------------

    def start_call(self, event: ToolCallStarted) -> None:
        """Begin a call, unless only the whole one says what it is. One of an earlier round may have been left open."""
        if (before := self._open.pop(event.index, None)) is not None:
            before.close("incomplete")
        if event.is_server:
            return
        kind = self._declared.get(event.name) or ("custom_tool_call" if event.call_type == "custom" else None)
        if kind is None and is_known_late(event.id, event.name):
            self._late[event.index] = event
        else:
            self.close_texts()
            self._open[event.index] = self._call(kind or "function_call", event.id, event.name)

    def _call(self, kind: str, identifier: str, name: str) -> CallItem:
        index, number = self._next(kind)
        call = CallItem(self._wire, index, kind, number, identifier, self._unique(identifier), name)
        self.items.append(call)
        return call

    def grow_call(self, index: int, text: str) -> None:
        """Add a piece of a call's arguments."""
        call = self._open.get(index)
        if call is not None and not self._gaps:
            call.add(text)

    def complete_call(self, event: ToolCallCompleted) -> None:
        """End a call."""
        self.calls += 1
        call = event.call
        item = self._open.pop(event.index, None)
        self._late.pop(event.index, None)
        if not self._open:
            self._gaps = False
        if call.is_server:
            if item is not None:  # it did not look like one
                item.close("incomplete")
                self.items.remove(item)
            if call.id not in self._hosted:
                self.call_hosted(ServerToolCall(id=call.id, name=call.name, input=call.arguments), counts=False)
            return
        if item is None:
            self.close_texts()
            kind = _ITEMS.get(call.type, f"{call.type}_call")
            item = self._call(kind, call.id, call.name)
        item.complete(call)
        self._called[call.id] = item.whole()

    def complete_known(self, call: ToolCall) -> None:
        """End a call of a snapshot, which has no index."""
        index = next((index for index, item in self._open.items() if item.given_id == call.id), None)
        if index is None:
            index = next((index for index, event in self._late.items() if event.id == call.id), -1)
        self.complete_call(ToolCallCompleted(index=index, call=call))

    def lose_pieces(self) -> None:
        """Note that pieces of open calls are missing: the whole calls have them."""
        self._gaps = bool(self._open)

    def result(self, event: ToolResult) -> None:
        """Add the result of a call that was run here."""
        self.results += 1
        self.close_texts()
        index, number = self._next("out")
        self.items.append(OutputItem(self._wire, index, number, event, self._called.get(event.call_id)))

    # --- the provider's own tools, and pictures ----------------------------------------------------------------------

    def call_hosted(self, event: ServerToolCall, *, counts: bool = True) -> None:
        """Begin a call of one of the provider's own tools."""
        self.told += counts
        known = self._hosted.get(event.id)
        if known is not None and known.is_open and known.kind == PICTURE:  # a preview came first
            known.call(event)
        else:
            known = self._host(event.id, event.name, event)
        self._settle()
        self._over = known if known.is_over else None

    def _host(self, identifier: str, name: str, event: ServerToolCall | None = None) -> HostedToolItem:
        self.close_texts()
        before = self._hosted.get(identifier)
        if before is not None and before.is_open:
            before.close()
        prefix = "ig" if name == "image_generation" else "st"
        index, number = self._next(prefix)
        known = HostedToolItem(self._wire, index, self._unique(identifier or f"{prefix}_{number}"), name, event)
        self._hosted[identifier] = known
        self.items.append(known)
        return known

    def answer_hosted(self, event: ServerToolResult) -> None:
        """Add the result of one of the provider's own tools."""
        self.told += 1
        known = self._hosted.get(event.id)
        if known is None or not known.is_open:
            known = self._host(event.id, event.name)
        if known is self._over:
            self._over = None
        separate = known.result(event)
        if separate is not None:
            index, number = self._next("sto")
            self.items.append(_Ready(self._wire, index, separate | {"id": f"sto_{number}"}))

    def show(self, part: MediaPart) -> None:
        """Add a picture, or a preview of one."""
        if not part.is_partial:
            self.told += 1
        identifier = part.id or ""
        known = self._hosted.get(identifier)
        if known is None or not known.is_open or known.kind != PICTURE:
            known = self._host(identifier, "image_generation")
        if known is self._over and not part.is_partial:
            self._over = None
        known.picture(part)

    def _settle(self) -> None:
        """Close the tool that is over."""
        over = self._over
        if over is not None:
            self._over = None
            if over.is_open:
                over.close()

    def settle(self, identifier: str | None) -> None:
        """Close the tool that is over, unless an event with this id belongs to it."""
        if self._over is not None and (identifier is None or self._hosted.get(identifier) is not self._over):
            self._settle()

    # --- ends --------------------------------------------------------------------------------------------------------

    def close_texts(self) -> None:
        """Close what is open of text and reasoning."""
        self._settle()
        self._close_reasoning()
        self._close_message()

    def close(self, status: ItemStatus) -> None:
        """Close all that is open. What is not complete by itself gets ``status``."""
        self._settle()
        self._close_reasoning(status)
        if self._citations:
            if not self._texts:
                self._part("text", 0, None, 0)
            self._cite_pending(None)
        self._close_message(status)
        for call in self._open.values():
            call.close("incomplete")
        self._open.clear()
        for hosted in self._hosted.values():
            if hosted.is_open:
                hosted.close(status)

    def reset(self) -> None:
        """Close all that is open as incomplete, and begin again. Nothing happens if there is nothing."""
        if self.items:
            self.close("incomplete")
        self._begin()

    def whole(self) -> list[dict[str, Any]]:
        """The items as they are now."""
        return [item.whole() for item in self.items]
