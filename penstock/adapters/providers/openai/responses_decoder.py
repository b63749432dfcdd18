"""Events of the Responses API, of OpenAI and of the servers that speak it, as deltas."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from penstock.adapters.formats.sse import SseEvent
from penstock.adapters.providers.openai.responses_events import (
    CALL_ITEMS,
    HOSTED,
    TOLD_OTHERWISE,
    XAI_SEARCHES,
    Wire,
    parts_in,
    to_wire,
)
from penstock.adapters.providers.shared.decoder import EventDecoder
from penstock.adapters.providers.shared.errors import error_frame
from penstock.adapters.providers.shared.json_values import (
    decode_json,
    has_escaped_halves,
    text_of,
    to_usage,
    without_halves,
)
from penstock.events import FinishReason, ReasoningBlock
from penstock.ports import (
    Delta,
    ErrorDelta,
    FinishDelta,
    KeepAlive,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Thinking,
    ToolCallFragment,
    UsageDelta,
)

__all__ = ["ResponsesDecoder"]


_decode_typed = msgspec.json.Decoder(Wire).decode


class ResponsesDecoder(EventDecoder):
    """Implements `Decoder` for Responses events.

    Output is told apart by ``output_index``, never by item id: GitHub Copilot gives the same item a new id in every
    event. What comes only whole, in an event's ``.done`` (LM Studio's arguments) or in a response that does not stream,
    is told then.
    """

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(max_event_bytes)
        self._called = False
        self._refused = False
        self._failed = False
        self._told: set[tuple[type, int | None, int | None]] = set()  # kinds of deltas, by item and part
        self._told_of: set[tuple[type, int | None]] = set()  # the same, by item
        self._hosted: set[int | None] = set()  # calls that are not ours to run, by output index
        self._id: str | None = None
        self._in_background = False
        self._sequence: int | None = None
        self._repeats_until: int | None = None

    @property
    def resume_point(self) -> tuple[str, int] | None:
        """The response's id and the number of the last event that was told; None: it cannot be taken up again."""
        if self._id is None or self._sequence is None or not self._in_background or self.done or self._failed:
            return None
        return self._id, self._sequence

    def resumed(self) -> ResponsesDecoder:
        """A decoder for the body that goes on behind `resume_point`. Events that have been told are no longer told."""
        other = copy.copy(self)
        other._begin_body()
        other._told, other._told_of, other._hosted = set(self._told), set(self._told_of), set(self._hosted)
        other._surrogates = copy.copy(self._surrogates)
        other._repeats_until = self._sequence
        return other

    def _deltas(self, events: list[SseEvent], *, is_end: bool = False) -> list[Delta]:
        out = self._signs_of_life()
        last, repeats_until, handlers = self._sequence, self._repeats_until, _HANDLERS
        for event in events:
            wire: Wire | None
            try:
                wire = _decode_typed(event.data)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                wire = self._unusual(event, out)
            if wire is not None:
                number = wire.sequence_number
                if number is not None:
                    if repeats_until is not None and number <= repeats_until:
                        continue
                    last = number
                handler = handlers.get(wire.type)
                if handler is not None:
                    handler(self, wire, out)
                else:
                    self._other(wire, event, out)
            if self.done:
                break
        if self._has_halves:
            # The other half of a character may follow when this is taken up again.
            out = self._surrogates.mend(out, is_end=self.done or (is_end and self.resume_point is None))
        self._sequence = last
        return out

    def _other(self, wire: Wire, event: SseEvent, out: list[Delta]) -> None:
        if wire.type == "error" or event.event == "error":
            payload = self._payload(event)
            if isinstance(payload, dict):
                self._error_or_whole(event, payload, out)
            else:
                self._fail({}, out)
        elif wire.type in TOLD_OTHERWISE:
            if isinstance(wire.response, dict):
                self._note(wire.response)
        elif wire.type == "keepalive" or wire.type.partition(".")[2].partition(".")[0] in HOSTED:
            if not out or type(out[-1]) is not KeepAlive:
                out.append(KeepAlive())
        else:
            self.skipped += 1

    # --- what is no typed event ------------------------------------------------------------------------------------

    def _unusual(self, event: SseEvent, out: list[Delta]) -> Wire | None:
        """Read the end marker of some servers, errors of any shape, whole responses; or give the event after all."""
        if event.data.strip() == "[DONE]":
            self.done = True
            return None
        payload = self._payload(event)
        if isinstance(payload, dict) and text_of(payload.get("type")).startswith("response."):
            return to_wire(payload)
        self._error_or_whole(event, payload, out)
        return None

    def _payload(self, event: SseEvent) -> object:
        """All that the event says; its text where that is no JSON, or such as the typed way passes over."""
        try:
            payload = decode_json(event.data)
        except (ValueError, RecursionError):
            return event.data
        self._has_halves = self._has_halves or has_escaped_halves(event.data)
        return payload

    def _error_or_whole(self, event: SseEvent, payload: object, out: list[Delta]) -> None:
        end = None
        if isinstance(payload, dict) and isinstance(payload.get("output"), list):
            end = _HANDLERS.get(f"response.{payload.get('status')}")
        if end is not None:  # a whole response, of a server that does not stream
            end(self, Wire("", response=payload), out)
        elif event.event == "error" or (
            isinstance(payload, dict) and (payload.get("error") or payload.get("type") == "error")
        ):
            if isinstance(payload, dict) and not payload.get("error"):
                payload = {key: value for key, value in payload.items() if key != "type"}
            self._fail(payload, out)
        else:
            self.skipped += 1

    # --- text ------------------------------------------------------------------------------------------------------

    def _text(self, wire: Wire, out: list[Delta]) -> None:
        if text := text_of(wire.delta):
            if (TextDelta, wire.output_index, wire.content_index) not in self._told:
                self._note_told(TextDelta, wire.output_index, wire.content_index)
            out.append(TextDelta(text))

    def _whole_text(self, wire: Wire, out: list[Delta]) -> None:
        if (TextDelta, wire.output_index, wire.content_index) not in self._told:
            wire.delta = wire.text
            self._text(wire, out)

    def _refusal(self, wire: Wire, out: list[Delta]) -> None:
        if text := text_of(wire.delta):
            self._refused = True
            self._note_told(RefusalDelta, wire.output_index, wire.content_index)
            out.append(RefusalDelta(text))

    def _whole_refusal(self, wire: Wire, out: list[Delta]) -> None:
        if (RefusalDelta, wire.output_index, wire.content_index) not in self._told:
            wire.delta = wire.refusal
            self._refusal(wire, out)

    def _reasoning(self, wire: Wire, out: list[Delta]) -> None:
        if text := text_of(wire.delta):
            part = wire.summary_index if wire.content_index is None else wire.content_index
            self._note_told(ReasoningDelta, wire.output_index, part)
            out.append(ReasoningDelta(text))

    def _whole_reasoning(self, wire: Wire, out: list[Delta]) -> None:
        part = wire.summary_index if wire.content_index is None else wire.content_index
        if (ReasoningDelta, wire.output_index, part) not in self._told:
            wire.delta = wire.text
            self._reasoning(wire, out)

    # --- items: messages, reasoning, and calls, which are told by item (id, name) and by arguments -----------------

    def _item_added(self, wire: Wire, out: list[Delta]) -> None:
        item = wire.item if isinstance(wire.item, dict) else {}
        kind = text_of(item.get("type"))
        if kind == "reasoning":
            out.append(Thinking())
        elif kind in CALL_ITEMS:
            self._call(wire, item, text_of(item.get(CALL_ITEMS[kind])), out)

    def _item_done(self, wire: Wire, out: list[Delta]) -> None:
        item = wire.item if isinstance(wire.item, dict) else {}
        kind = text_of(item.get("type"))
        if kind in CALL_ITEMS:
            arguments = item.get(CALL_ITEMS[kind])
            if (ToolCallFragment, wire.output_index, -1) not in self._told:
                self._call(wire, item, text_of(arguments), out)
            else:
                wire.arguments = arguments
                self._whole_arguments(wire, out)
        elif kind == "message":
            self._whole_message(wire, item, out)
        elif kind == "reasoning":
            self._reasoning_block(wire, item, out)
        elif kind not in HOSTED:
            self.skipped += 1

    def _whole_message(self, wire: Wire, item: dict[str, Any], out: list[Delta]) -> None:
        if self._has_told(wire, TextDelta, RefusalDelta):
            return
        for index, part in enumerate(parts_in(item.get("content"))):
            wire.content_index, wire.text, wire.refusal = index, part.get("text"), part.get("refusal")
            self._whole_text(wire, out)
            self._whole_refusal(wire, out)

    def _reasoning_block(self, wire: Wire, item: dict[str, Any], out: list[Delta]) -> None:
        summary = [text_of(part.get("text")) for part in parts_in(item.get("summary"))]
        if not self._has_told(wire, ReasoningDelta):
            for text in (*summary, *(text_of(part.get("text")) for part in parts_in(item.get("content")))):
                wire.delta = text
                self._reasoning(wire, out)
        item_id = without_halves(text_of(item.get("id")))
        encrypted = without_halves(text_of(item.get("encrypted_content")))
        if (item_id or encrypted) and (ReasoningBlockDelta, wire.output_index, None) not in self._told:
            self._note_told(ReasoningBlockDelta, wire.output_index, None)
            text = without_halves("".join(summary))
            block = ReasoningBlock(kind="reasoning", text=text, signature=encrypted, id=item_id or None)
            out.append(ReasoningBlockDelta(block))

    def _has_told(self, wire: Wire, *kinds: type) -> bool:
        """Whether any of an item's parts is told: Bedrock counts them differently in the whole item."""
        return any((kind, wire.output_index) in self._told_of for kind in kinds)

    def _note_told(self, kind: type, index: int | None, part: int | None) -> None:
        self._told.add((kind, index, part))
        self._told_of.add((kind, index))

    def _call(self, wire: Wire, item: dict[str, Any], arguments: str, out: list[Delta]) -> None:
        call_id = without_halves(text_of(item.get("call_id")) or text_of(item.get("id")))
        name = without_halves(text_of(item.get("name")))
        is_hosted = name in XAI_SEARCHES and call_id.startswith("xs_")
        if is_hosted:
            self._hosted.add(wire.output_index)
        else:
            self._called = True
        if (ToolCallFragment, wire.output_index, None) in self._told:
            arguments = ""  # they came before the item did, or its beginning got lost on the way
        if arguments:
            self._note_told(ToolCallFragment, wire.output_index, None)
        self._note_told(ToolCallFragment, wire.output_index, -1)
        out.append(ToolCallFragment(wire.output_index, call_id or None, name or None, arguments, is_hosted))

    def _arguments(self, wire: Wire, out: list[Delta]) -> None:
        if text := text_of(wire.delta):
            is_hosted = wire.output_index in self._hosted
            self._called = self._called or not is_hosted
            self._note_told(ToolCallFragment, wire.output_index, None)
            out.append(ToolCallFragment(wire.output_index, None, None, text, is_hosted))

    def _whole_arguments(self, wire: Wire, out: list[Delta]) -> None:
        if (ToolCallFragment, wire.output_index, None) not in self._told:
            wire.delta = wire.arguments if wire.arguments is not None else wire.input
            self._arguments(wire, out)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _completed(self, wire: Wire, out: list[Delta]) -> None:
        self._response(wire, out)
        reason: FinishReason = "tool_calls" if self._called else "refusal" if self._refused else "stop"
        self._finish(reason, "completed", out)

    def _incomplete(self, wire: Wire, out: list[Delta]) -> None:
        response = self._response(wire, out)
        details = response.get("incomplete_details")
        raw = without_halves(text_of(details.get("reason"))) if isinstance(details, dict) else ""
        reasons: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
        self._finish(reasons.get(raw, "other"), raw or "incomplete", out)

    def _response_failed(self, wire: Wire, out: list[Delta]) -> None:
        response = self._response(wire, out)
        self._fail({"error": response.get("error") or {}}, out)
        self.done = True

    def _finish(self, reason: FinishReason, raw: str, out: list[Delta]) -> None:
        out.append(FinishDelta(reason, raw))
        self.finished = True
        self.done = True

    def _fail(self, payload: object, out: list[Delta]) -> None:
        """Tell an error once: ``error`` is followed by ``response.failed`` with the same in it."""
        if not self._failed:
            self._failed = True
            out.append(ErrorDelta(error_frame(payload)))

    def _response(self, wire: Wire, out: list[Delta]) -> dict[str, Any]:
        response: dict[str, Any] = wire.response if isinstance(wire.response, dict) else {}
        self._note(response)
        output = response.get("output")
        if not self._told and isinstance(output, list):  # it was not streamed
            for index, item in enumerate(output):
                self._item_done(Wire(wire.type, output_index=index, item=item), out)
        usage = response.get("usage")
        if isinstance(usage, dict) and (counts := to_usage(usage, "input", "output")):
            out.append(UsageDelta(counts))
        return response

    def _note(self, response: dict[str, Any]) -> None:
        if self.model is None:
            self.model = without_halves(text_of(response.get("model"))) or None
        if self._id is None:
            self._id = without_halves(text_of(response.get("id"))) or None
        self._in_background = self._in_background or response.get("background") is True


_HANDLERS: Mapping[str, Callable[[ResponsesDecoder, Wire, list[Delta]], None]] = {
    "response.output_text.delta": ResponsesDecoder._text,
    "response.output_text.done": ResponsesDecoder._whole_text,
    "response.refusal.delta": ResponsesDecoder._refusal,
    "response.refusal.done": ResponsesDecoder._whole_refusal,
    "response.reasoning_text.delta": ResponsesDecoder._reasoning,
    "response.reasoning_text.done": ResponsesDecoder._whole_reasoning,
    "response.reasoning_summary_text.delta": ResponsesDecoder._reasoning,
    "response.reasoning_summary_text.done": ResponsesDecoder._whole_reasoning,
    "response.function_call_arguments.delta": ResponsesDecoder._arguments,
    "response.function_call_arguments.done": ResponsesDecoder._whole_arguments,
    "response.custom_tool_call_input.delta": ResponsesDecoder._arguments,
    "response.custom_tool_call_input.done": ResponsesDecoder._whole_arguments,
    "response.output_item.added": ResponsesDecoder._item_added,
    "response.output_item.done": ResponsesDecoder._item_done,
    "response.completed": ResponsesDecoder._completed,
    "response.incomplete": ResponsesDecoder._incomplete,
    "response.failed": ResponsesDecoder._response_failed,
}
