"""Events of the Responses API, from OpenAI and other servers that speak it, as deltas."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from penstock.adapters.formats.sse import SseEvent
from penstock.adapters.providers.openai.responses_events import (
    CALL_ITEMS,
    HOSTED_TOOLS,
    REDUNDANT_EVENTS,
    XAI_SEARCHES,
    ResponsesEvent,
    dicts_in,
    to_event,
)
from penstock.adapters.providers.shared.aborts import abort_error
from penstock.adapters.providers.shared.decoder import EventDecoder
from penstock.adapters.providers.shared.errors import error_frame
from penstock.adapters.providers.shared.json_values import decode_json, text_of, to_usage
from penstock.adapters.providers.shared.surrogates import has_escaped_surrogates, replace_surrogates
from penstock.config.options import Raw
from penstock.errors import ApiError
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


_decode_typed = msgspec.json.Decoder(ResponsesEvent).decode


class ResponsesDecoder(EventDecoder):
    """Implements `Decoder` for Responses events.

    Items are identified by ``output_index``, never by item id: GitHub Copilot gives the same item a new id in every
    event. What was not streamed is taken from the event that has it whole: from a ``.done`` (LM Studio's arguments) or
    from the finished response.
    """

    def __init__(self, max_event_bytes: int, raw: Raw = "none") -> None:
        super().__init__(max_event_bytes, raw)
        self._has_calls = False
        self._has_refusal = False
        self._has_failed = False
        self._emitted: set[tuple[type, int | None, int | None]] = set()  # types of deltas, by item and part
        self._emitted_items: set[tuple[type, int | None]] = set()  # types of deltas, by item
        self._hosted_calls: set[int | None] = set()  # output indices of calls that the provider runs
        self._id: str | None = None
        self._in_background = False
        self._sequence: int | None = None
        self._repeats_until: int | None = None

    @property
    def resume_point(self) -> tuple[str, int] | None:
        """The response's id and the sequence number of its last decoded event; None: it cannot be resumed."""
        if self._id is None or self._sequence is None or not self._in_background or self.done or self._has_failed:
            return None
        return self._id, self._sequence

    def resumed(self) -> ResponsesDecoder:
        """Make a decoder for the body that continues after `resume_point`; it skips events that are repeated there."""
        other = copy.copy(self)
        other._begin_body()
        other._emitted, other._emitted_items = set(self._emitted), set(self._emitted_items)
        other._hosted_calls = set(self._hosted_calls)
        other._surrogates = copy.copy(self._surrogates)
        other._repeats_until = self._sequence
        return other

    def _deltas(self, events: list[SseEvent], *, is_end: bool = False) -> list[Delta]:
        out = self._keep_alives()
        last, repeats_until, handlers = self._sequence, self._repeats_until, _HANDLERS
        for sse in events:
            event: ResponsesEvent | None
            try:
                event = _decode_typed(sse.data)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                event = self._decode_leniently(sse, out)
            if event is not None:
                number = event.sequence_number
                if number is not None:
                    if repeats_until is not None and number <= repeats_until:
                        continue
                    last = number
                handler = handlers.get(event.type)
                if handler is not None:
                    handler(self, event, out)
                else:
                    self._read_other(event, sse, out)
            if self.done:
                break
        if self._has_surrogates:
            # After a resume, the second surrogate of a pair may still follow.
            out = self._surrogates.join(out, is_end=self.done or (is_end and self.resume_point is None))
        self._sequence = last
        return out

    def _read_other(self, event: ResponsesEvent, sse: SseEvent, out: list[Delta]) -> None:
        if event.type == "error" or sse.event == "error":
            payload = self._payload(sse)
            if isinstance(payload, dict):
                self._error_or_whole(sse, payload, out)
            else:
                self._fail({}, out)
        elif event.type in REDUNDANT_EVENTS:
            if isinstance(event.response, dict):
                self._read_metadata(event.response)
        elif event.type == "keepalive" or event.type.partition(".")[2].partition(".")[0] in HOSTED_TOOLS:
            if not out or type(out[-1]) is not KeepAlive:
                out.append(KeepAlive())
        else:
            self._skip(event.type, self._payload(sse), out)

    # --- the lenient path ------------------------------------------------------------------------------------------

    def _decode_leniently(self, sse: SseEvent, out: list[Delta]) -> ResponsesEvent | None:
        """Read the end marker of some servers, errors of any form, and whole responses; else return the event."""
        if sse.data.strip() == "[DONE]":
            self.done = True
            return None
        payload = self._payload(sse)
        if isinstance(payload, dict) and text_of(payload.get("type")).startswith("response."):
            return to_event(payload)
        self._error_or_whole(sse, payload, out)
        return None

    def _payload(self, sse: SseEvent) -> object:
        """Parse the event's data; if it is not JSON, return its text."""
        try:
            payload = decode_json(sse.data)
        except (ValueError, RecursionError):
            return sse.data
        self._has_surrogates = self._has_surrogates or has_escaped_surrogates(sse.data)
        return payload

    def _error_or_whole(self, sse: SseEvent, payload: object, out: list[Delta]) -> None:
        end = None
        if isinstance(payload, dict) and isinstance(payload.get("output"), list):
            end = _HANDLERS.get(f"response.{payload.get('status')}")
        if end is not None:  # a whole response, from a server that does not stream
            end(self, ResponsesEvent("", response=payload), out)
        elif sse.event == "error" or (
            isinstance(payload, dict) and (payload.get("error") or payload.get("type") == "error")
        ):
            if isinstance(payload, dict) and not payload.get("error"):
                payload = {key: value for key, value in payload.items() if key != "type"}
            self._fail(payload, out)
        else:
            self._skip(sse.event, payload, out)

    # --- text ------------------------------------------------------------------------------------------------------

    def _text(self, event: ResponsesEvent, out: list[Delta]) -> None:
        if text := text_of(event.delta):
            if (TextDelta, event.output_index, event.content_index) not in self._emitted:
                self._mark_emitted(TextDelta, event.output_index, event.content_index)
            out.append(TextDelta(text))

    def _whole_text(self, event: ResponsesEvent, out: list[Delta]) -> None:
        if (TextDelta, event.output_index, event.content_index) not in self._emitted:
            event.delta = event.text
            self._text(event, out)

    def _refusal(self, event: ResponsesEvent, out: list[Delta]) -> None:
        if text := text_of(event.delta):
            self._has_refusal = True
            self._mark_emitted(RefusalDelta, event.output_index, event.content_index)
            out.append(RefusalDelta(text))

    def _whole_refusal(self, event: ResponsesEvent, out: list[Delta]) -> None:
        if (RefusalDelta, event.output_index, event.content_index) not in self._emitted:
            event.delta = event.refusal
            self._refusal(event, out)

    def _reasoning(self, event: ResponsesEvent, out: list[Delta]) -> None:
        if text := text_of(event.delta):
            part = event.summary_index if event.content_index is None else event.content_index
            self._mark_emitted(ReasoningDelta, event.output_index, part)
            out.append(ReasoningDelta(text))

    def _whole_reasoning(self, event: ResponsesEvent, out: list[Delta]) -> None:
        part = event.summary_index if event.content_index is None else event.content_index
        if (ReasoningDelta, event.output_index, part) not in self._emitted:
            event.delta = event.text
            self._reasoning(event, out)

    # --- items: messages, reasoning and calls ------------------------------------------------------------------------
    # A call's id and name come with its item (marked as part -1), its arguments by themselves (part None).

    def _item_added(self, event: ResponsesEvent, out: list[Delta]) -> None:
        item = event.item if isinstance(event.item, dict) else {}
        kind = text_of(item.get("type"))
        if kind == "reasoning":
            out.append(Thinking())
        elif kind in CALL_ITEMS:
            self._call(event, item, text_of(item.get(CALL_ITEMS[kind])), out)

    def _item_done(self, event: ResponsesEvent, out: list[Delta]) -> None:
        item = event.item if isinstance(event.item, dict) else {}
        kind = text_of(item.get("type"))
        if kind in CALL_ITEMS:
            arguments = item.get(CALL_ITEMS[kind])
            if (ToolCallFragment, event.output_index, -1) not in self._emitted:
                self._call(event, item, text_of(arguments), out)
            else:
                event.arguments = arguments
                self._whole_arguments(event, out)
        elif kind == "message":
            self._whole_message(event, item, out)
        elif kind == "reasoning":
            self._reasoning_block(event, item, out)
        elif kind not in HOSTED_TOOLS:
            self._skip(f"item.{kind}", item, out)

    def _whole_message(self, event: ResponsesEvent, item: dict[str, Any], out: list[Delta]) -> None:
        if self._has_emitted(event, TextDelta, RefusalDelta):
            return
        for index, part in enumerate(dicts_in(item.get("content"))):
            event.content_index, event.text, event.refusal = index, part.get("text"), part.get("refusal")
            self._whole_text(event, out)
            self._whole_refusal(event, out)

    def _reasoning_block(self, event: ResponsesEvent, item: dict[str, Any], out: list[Delta]) -> None:
        summary = [text_of(part.get("text")) for part in dicts_in(item.get("summary"))]
        if not self._has_emitted(event, ReasoningDelta):
            for text in (*summary, *(text_of(part.get("text")) for part in dicts_in(item.get("content")))):
                event.delta = text
                self._reasoning(event, out)
        item_id = replace_surrogates(text_of(item.get("id")))
        encrypted = replace_surrogates(text_of(item.get("encrypted_content")))
        if (item_id or encrypted) and (ReasoningBlockDelta, event.output_index, None) not in self._emitted:
            self._mark_emitted(ReasoningBlockDelta, event.output_index, None)
            text = replace_surrogates("".join(summary))
            block = ReasoningBlock(kind="reasoning", text=text, signature=encrypted, id=item_id or None)
            out.append(ReasoningBlockDelta(block))

    def _has_emitted(self, event: ResponsesEvent, *kinds: type) -> bool:
        """Tell whether any part of the item was emitted: Bedrock numbers the parts of the whole item differently."""
        return any((kind, event.output_index) in self._emitted_items for kind in kinds)

    def _mark_emitted(self, kind: type, index: int | None, part: int | None) -> None:
        self._emitted.add((kind, index, part))
        self._emitted_items.add((kind, index))

    def _call(self, event: ResponsesEvent, item: dict[str, Any], arguments: str, out: list[Delta]) -> None:
        call_id = replace_surrogates(text_of(item.get("call_id")) or text_of(item.get("id")))
        name = replace_surrogates(text_of(item.get("name")))
        is_hosted = name in XAI_SEARCHES and call_id.startswith("xs_")
        if is_hosted:
            self._hosted_calls.add(event.output_index)
        else:
            self._has_calls = True
        if (ToolCallFragment, event.output_index, None) in self._emitted:
            arguments = ""  # they came before the item, or its first event was lost
        if arguments:
            self._mark_emitted(ToolCallFragment, event.output_index, None)
        self._mark_emitted(ToolCallFragment, event.output_index, -1)
        out.append(ToolCallFragment(event.output_index, call_id or None, name or None, arguments, is_hosted))

    def _arguments(self, event: ResponsesEvent, out: list[Delta]) -> None:
        if text := text_of(event.delta):
            is_hosted = event.output_index in self._hosted_calls
            self._has_calls = self._has_calls or not is_hosted
            self._mark_emitted(ToolCallFragment, event.output_index, None)
            out.append(ToolCallFragment(event.output_index, None, None, text, is_hosted))

    def _whole_arguments(self, event: ResponsesEvent, out: list[Delta]) -> None:
        if (ToolCallFragment, event.output_index, None) not in self._emitted:
            event.delta = event.arguments if event.arguments is not None else event.input
            self._arguments(event, out)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _completed(self, event: ResponsesEvent, out: list[Delta]) -> None:
        self._response(event, out)
        reason: FinishReason = "tool_calls" if self._has_calls else "refusal" if self._has_refusal else "stop"
        self._finish(reason, "completed", out)

    def _incomplete(self, event: ResponsesEvent, out: list[Delta]) -> None:
        response = self._response(event, out)
        details = response.get("incomplete_details")
        raw = replace_surrogates(text_of(details.get("reason"))) if isinstance(details, dict) else ""
        if (error := abort_error(raw)) is not None:
            self._end_with(error, out)
            return
        reasons: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
        self._finish(reasons.get(raw, "other"), raw or "incomplete", out)

    def _response_failed(self, event: ResponsesEvent, out: list[Delta]) -> None:
        response = self._response(event, out)
        self._fail({"error": response.get("error") or {}}, out)
        self.done = True

    def _cancelled(self, event: ResponsesEvent, out: list[Delta]) -> None:
        self._response(event, out)
        error = abort_error("cancelled")
        assert error is not None
        self._end_with(error, out)

    def _end_with(self, error: ApiError, out: list[Delta]) -> None:
        if not self._has_failed:
            self._has_failed = True
            out.append(ErrorDelta(error))
        self.done = True

    def _finish(self, reason: FinishReason, raw: str, out: list[Delta]) -> None:
        out.append(FinishDelta(reason, raw))
        self.finished = True
        self.done = True

    def _fail(self, payload: object, out: list[Delta]) -> None:
        """Emit an error once: ``error`` is followed by ``response.failed``, which repeats it."""
        if not self._has_failed:
            self._has_failed = True
            out.append(ErrorDelta(error_frame(payload)))

    def _response(self, event: ResponsesEvent, out: list[Delta]) -> dict[str, Any]:
        response: dict[str, Any] = event.response if isinstance(event.response, dict) else {}
        self._read_metadata(response)
        output = response.get("output")
        if not self._emitted and isinstance(output, list):  # the response was not streamed
            for index, item in enumerate(output):
                self._item_done(ResponsesEvent(event.type, output_index=index, item=item), out)
        usage = response.get("usage")
        if isinstance(usage, dict) and (counts := to_usage(usage, "input", "output", response.get("service_tier"))):
            out.append(UsageDelta(counts))
        return response

    def _read_metadata(self, response: dict[str, Any]) -> None:
        if self.model is None:
            self.model = replace_surrogates(text_of(response.get("model"))) or None
        if self._id is None:
            self._id = replace_surrogates(text_of(response.get("id"))) or None
        self._in_background = self._in_background or response.get("background") is True


_HANDLERS: Mapping[str, Callable[[ResponsesDecoder, ResponsesEvent, list[Delta]], None]] = {
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
    "response.cancelled": ResponsesDecoder._cancelled,
}
