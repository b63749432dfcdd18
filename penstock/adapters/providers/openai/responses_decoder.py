"""Events of the Responses API, from OpenAI and other servers that speak it, as deltas."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from penstock.adapters.formats.sse import SseEvent
from penstock.adapters.providers.openai.chat_media import AudioPieces
from penstock.adapters.providers.openai.responses_events import (
    CALL_ITEMS,
    PROGRESS,
    REDUNDANT_EVENTS,
    ResponsesEvent,
    dicts_in,
    payload_of,
    to_event,
)
from penstock.adapters.providers.openai.responses_items import (
    CLIENT_CALLS,
    OUTPUTS_OF_HOSTED,
    SEALED,
    is_for_client,
    is_hosted,
    picture,
)
from penstock.adapters.providers.openai.responses_metadata import ResponseMetadata
from penstock.adapters.providers.openai.responses_parts import Key, PartName, TextParts
from penstock.adapters.providers.openai.responses_tools import ToolItems
from penstock.adapters.providers.shared.aborts import abort_error
from penstock.adapters.providers.shared.decoder import EventDecoder, Skips
from penstock.adapters.providers.shared.errors import error_frame
from penstock.adapters.providers.shared.json_values import decode_json, text_of, to_usage
from penstock.adapters.providers.shared.surrogates import has_escaped_surrogates, replace_surrogates
from penstock.config.options import Raw
from penstock.errors import ApiError
from penstock.events import FinishReason, ReasoningBlock
from penstock.ports import (
    Delta,
    ErrorDelta,
    EventDelta,
    FinishDelta,
    KeepAlive,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Thinking,
    UsageDelta,
)

__all__ = ["ResponsesDecoder"]


_decode_typed = msgspec.json.Decoder(ResponsesEvent).decode

_DELTAS: dict[PartName, Callable[[str], Delta]] = {
    "text": TextDelta,
    "refusal": RefusalDelta,
    "reasoning": ReasoningDelta,
    "summary": ReasoningDelta,
}
_PART_TEXTS: dict[str, tuple[PartName, str]] = {
    "output_text": ("text", "text"),
    "text": ("text", "text"),
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("reasoning", "text"),
}
"""What a content part of each type is, and the field with its text."""


_NONE: Final = object()
"""The item, and the part of it, before there is any."""


class _ChunkNotes:
    """Takes what is not understood. The parts of a decoder have it, and it does not know the decoder."""

    __slots__ = ("_skip", "out")

    def __init__(self, skip: Skips) -> None:
        self._skip = skip
        self.out: list[Delta] = []
        """The deltas of the present chunk."""

    def __call__(self, kind: str, payload: object) -> None:
        self._skip(replace_surrogates(kind), payload, self.out)


class ResponsesDecoder(EventDecoder):
    """Implements `Decoder` for Responses events.

    Items are identified by ``output_index``, never by item id: GitHub Copilot gives the same item a new id in every
    event. What was not streamed is taken from the event that has it whole: from a ``.done`` (LM Studio's arguments),
    from the finished item, or from the finished response. What of a whole value differs from its pieces is counted.
    """

    def __init__(self, max_event_bytes: int, raw: Raw = "none") -> None:
        super().__init__(max_event_bytes, raw)
        self._note = _ChunkNotes(self._skip)
        self._has_refusal = False
        self._has_failed = False
        self._parts = TextParts(self._note)
        self._pieces = self._parts.pieces
        self._tools = ToolItems(self._note)
        self._metadata = ResponseMetadata(self._note)
        self._item: object = _NONE
        self._part: object = _NONE
        self._append: Callable[[str], None]
        self._sound: list[dict[str, Any]] = []
        self._done_items: set[int] = set()  # output indices
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
        other._skip = copy.copy(self._skip)
        other._note = _ChunkNotes(other._skip)
        other._parts = self._parts.copy(other._note)
        other._pieces = other._parts.pieces
        other._item = _NONE
        other._tools = self._tools.copy(other._note)
        other._metadata = self._metadata.copy(other._note)
        other._sound, other._done_items = list(self._sound), set(self._done_items)
        other._surrogates = copy.copy(self._surrogates)
        other._repeats_until = self._sequence
        return other

    def _deltas(self, events: list[SseEvent], *, is_end: bool = False) -> list[Delta]:
        out = self._note.out = self._keep_alives()
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
        elif (read := _RARE.get(event.type)) is not None:
            payload = self._payload(sse)
            if isinstance(payload, dict):
                read(self, event, payload, out)
        elif event.type == "keepalive" or event.type.partition(".")[2].partition(".")[0] in PROGRESS:
            if not out or type(out[-1]) is not KeepAlive:
                out.append(KeepAlive())
        elif event.type not in REDUNDANT_EVENTS:
            self._note(event.type, self._payload(sse))

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
        if (
            isinstance(payload, dict)
            and isinstance(payload.get("output"), list)
            and text_of(payload.get("status")) in _ENDS
        ):  # a whole response, from a server that does not stream
            self._end(ResponsesEvent("", response=payload), out)
        elif sse.event == "error" or (
            isinstance(payload, dict) and (payload.get("error") or payload.get("type") == "error")
        ):
            if isinstance(payload, dict) and not payload.get("error"):
                payload = {key: value for key, value in payload.items() if key != "type"}
            self._fail(payload, out)
        else:
            kind = text_of(payload.get("type")) if isinstance(payload, dict) else ""
            self._note(kind or self._source_of(sse)[0], payload)

    # --- text ------------------------------------------------------------------------------------------------------

    def _text(self, event: ResponsesEvent, out: list[Delta]) -> None:
        text = event.delta
        if type(text) is str and text:
            item, part = event.output_index, event.content_index
            if part is not self._part or item is not self._item:
                key: Key = ("text", item, part)
                self._append = (self._pieces.get(key) or self._parts.begin(key, out)).append
                self._item, self._part = item, part
            self._append(text)
            out.append(TextDelta(text))
            if event.logprobs:
                self._parts.read_logprobs(("text", item, part), event.logprobs, out)
        elif text == "" and event.logprobs:  # of text that has come
            self._parts.read_logprobs(("text", event.output_index, event.content_index), event.logprobs, out)

    def _whole_text(self, event: ResponsesEvent, out: list[Delta]) -> None:
        key: Key = ("text", event.output_index, event.content_index)
        self._close(event, key, event.text, out)
        self._parts.read_logprobs(key, event.logprobs, out, is_whole=True)

    def _refusal(self, event: ResponsesEvent, out: list[Delta]) -> None:
        self._say(("refusal", event.output_index, event.content_index), event.delta, out)

    def _whole_refusal(self, event: ResponsesEvent, out: list[Delta]) -> None:
        self._close(event, ("refusal", event.output_index, event.content_index), event.refusal, out)

    def _reasoning(self, event: ResponsesEvent, out: list[Delta]) -> None:
        text = event.delta
        if type(text) is str and text:
            key: Key = ("reasoning", event.output_index, event.content_index)
            (self._pieces.get(key) or self._parts.begin(key, out)).append(text)
            out.append(ReasoningDelta(text))

    def _whole_reasoning(self, event: ResponsesEvent, out: list[Delta]) -> None:
        self._close(event, ("reasoning", event.output_index, event.content_index), event.text, out)

    def _summary(self, event: ResponsesEvent, out: list[Delta]) -> None:
        text = event.delta
        if type(text) is str and text:
            key: Key = ("summary", event.output_index, event.summary_index)
            (self._pieces.get(key) or self._parts.begin(key, out)).append(text)
            out.append(ReasoningDelta(text))

    def _whole_summary(self, event: ResponsesEvent, out: list[Delta]) -> None:
        self._close(event, ("summary", event.output_index, event.summary_index), event.text, out)

    def _say(self, key: Key, text: object, out: list[Delta]) -> None:
        if type(text) is str and text:
            (self._pieces.get(key) or self._parts.begin(key, out)).append(text)
            self._has_refusal = self._has_refusal or key[0] == "refusal"
            out.append(_DELTAS[key[0]](text))

    def _close(self, event: ResponsesEvent, key: Key, whole: object, out: list[Delta]) -> None:
        """Emit what of a whole part has not come. Text that has come cannot be taken back: a difference is counted."""
        rest = self._parts.close(key, text_of(whole))
        if rest is None:
            self._note(event.type, payload_of(event))
        else:
            self._say(key, rest, out)

    def _part_done(self, event: ResponsesEvent, payload: dict[str, Any], out: list[Delta]) -> None:
        part = payload.get("part")
        if isinstance(part, dict):
            self._read_part(event, event.content_index, part, out)

    def _read_part(self, event: ResponsesEvent, number: int | None, part: dict[str, Any], out: list[Delta]) -> None:
        """Read a whole content part: text that has not come, its probabilities and sources."""
        name, field = _PART_TEXTS.get(text_of(part.get("type")), ("text", "text"))
        key: Key = (name, event.output_index, number)
        self._close(event, key, part.get(field), out)
        if name == "text":
            self._parts.read_logprobs(key, part.get("logprobs"), out, is_whole=True)
            self._parts.cite_rest(key, part.get("annotations"), out)

    def _annotation(self, event: ResponsesEvent, payload: dict[str, Any], out: list[Delta]) -> None:
        self._parts.cite(("text", event.output_index, event.content_index), [payload.get("annotation")], out)

    def _audio(self, event: ResponsesEvent, out: list[Delta]) -> None:
        piece = {"transcript" if ".transcript." in event.type else "data": event.delta}
        before = len(out)
        AudioPieces(self._note).read(piece, out)
        if out[before:] and event.delta:
            self._sound.append(piece)

    # --- items -----------------------------------------------------------------------------------------------------

    def _item_added(self, event: ResponsesEvent, out: list[Delta]) -> None:
        item = event.item if isinstance(event.item, dict) else {}
        kind = text_of(item.get("type"))
        if kind == "reasoning":
            out.append(Thinking())
        elif kind == "message":
            self._parts.note_phase(event.output_index, item.get("phase"))
        elif kind in CALL_ITEMS:
            self._tools.begin(event.output_index, item, out)

    def _item_done(self, event: ResponsesEvent, out: list[Delta]) -> None:
        item = event.item if isinstance(event.item, dict) else {}
        kind, index = text_of(item.get("type")), event.output_index
        if kind and index is not None:
            if index in self._done_items:
                return
            self._done_items.add(index)
        if kind in CALL_ITEMS:
            self._tools.done(event, item, out)
        elif kind == "message":
            self._whole_message(event, item, out)
        elif kind == "reasoning":
            self._reasoning_item(event, item, out)
        elif kind in CLIENT_CALLS and is_for_client(item):
            self._tools.act(index, item, out)
        elif is_hosted(kind):
            self._tools.ran(item, out)
        elif kind in OUTPUTS_OF_HOSTED:
            self._tools.answered(item, out)
        elif kind in SEALED:
            self._tools.return_later(item, out)
        else:
            self._note(f"item.{kind}", event.item)

    def _whole_message(self, event: ResponsesEvent, item: dict[str, Any], out: list[Delta]) -> None:
        parts, index = dicts_in(item.get("content")), event.output_index
        for part in parts:
            if text_of(part.get("type")) not in _PART_TEXTS and not text_of(part.get("text")):
                self._note(f"content.{text_of(part.get('type'))}", part)
        if self._parts.has(index, "text", "refusal"):
            self._parts.close_message(index, parts, out)
            return
        self._parts.note_phase(index, item.get("phase"))
        for number, part in enumerate(parts):
            self._read_part(event, number, part, out)

    def _reasoning_item(self, event: ResponsesEvent, item: dict[str, Any], out: list[Delta]) -> None:
        summary = dicts_in(item.get("summary"))
        index = event.output_index
        if not self._parts.has(index, "reasoning", "summary"):
            for number, part in enumerate(summary):
                self._close(event, ("summary", index, number), part.get("text"), out)
            for number, part in enumerate(dicts_in(item.get("content"))):
                self._close(event, ("reasoning", index, number), part.get("text"), out)
        item_id = replace_surrogates(text_of(item.get("id")))
        encrypted = replace_surrogates(text_of(item.get("encrypted_content")))
        if item_id or encrypted:
            text = replace_surrogates("".join(text_of(part.get("text")) for part in summary))
            block = ReasoningBlock(kind="reasoning", text=text, signature=encrypted, id=item_id or None)
            out.append(ReasoningBlockDelta(block))
        self._tools.return_later(item, out)

    def _arguments(self, event: ResponsesEvent, out: list[Delta]) -> None:
        self._tools.add(event, out)

    def _whole_arguments(self, event: ResponsesEvent, out: list[Delta]) -> None:
        self._tools.close(event, event.arguments if event.arguments is not None else event.input, out)

    def _partial_picture(self, event: ResponsesEvent, payload: dict[str, Any], out: list[Delta]) -> None:
        names = ("partial_image_b64", "output_format", "item_id")
        found = picture(*(payload.get(name) for name in names), is_partial=True)
        if found is None:
            self._note(event.type, payload)
        else:
            out.append(EventDelta(found))

    # --- the end -----------------------------------------------------------------------------------------------------

    def _about(self, event: ResponsesEvent, out: list[Delta]) -> None:
        if isinstance(event.response, dict):
            self._read_metadata(event.response, out)

    def _end(self, event: ResponsesEvent, out: list[Delta]) -> None:
        """End as the event's type or its response says, whichever leaves more of the answer undone."""
        response = self._response(event, out)
        words = (event.type.removeprefix("response."), text_of(response.get("status")))
        if "failed" in words or response.get("error"):
            self._fail({"error": response.get("error") or {}}, out)
            self.done = True
        elif error := abort_error(words[0]) or abort_error(words[1]):
            self._end_with(error, out)
        elif "incomplete" in words:
            self._incomplete(response, out)
        else:
            reason: FinishReason = "tool_calls" if self._tools.client else "refusal" if self._has_refusal else "stop"
            self._finish(reason, "completed", out)

    def _incomplete(self, response: dict[str, Any], out: list[Delta]) -> None:
        details = response.get("incomplete_details")
        raw = replace_surrogates(text_of(details.get("reason"))) if isinstance(details, dict) else ""
        if (error := abort_error(raw)) is not None:
            self._end_with(error, out)
            return
        reasons: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
        self._finish(reasons.get(raw, "other"), raw or "incomplete", out)

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
        self._read_metadata(response, out)
        output = response.get("output")
        if self._pieces or self._tools.has_come:
            self._parts.close_response(output, out)
        elif isinstance(output, list):  # the response was not streamed
            self._done_items.clear()
            for index, item in enumerate(output):
                self._item_done(ResponsesEvent(event.type, output_index=index, item=item), out)
        sound = AudioPieces(self._note)
        for piece in self._sound:
            sound.read(piece, [])
        sound.close(out)
        usage = response.get("usage")
        if isinstance(usage, dict) and (counts := to_usage(usage, "input", "output", response.get("service_tier"))):
            out.append(UsageDelta(counts))
        return response

    def _read_metadata(self, response: dict[str, Any], out: list[Delta]) -> None:
        if self.model is None:
            self.model = replace_surrogates(text_of(response.get("model"))) or None
        if self._id is None:
            self._id = replace_surrogates(text_of(response.get("id"))) or None
        self._in_background = self._in_background or response.get("background") is True
        if "store" in response:
            self._tools.is_stored = response["store"] is not False
        self._metadata.read(response, out)


_ENDS = ("completed", "incomplete", "failed", "cancelled")
_HANDLERS: Mapping[str, Callable[[ResponsesDecoder, ResponsesEvent, list[Delta]], None]] = {
    "response.output_text.delta": ResponsesDecoder._text,
    "response.output_text.done": ResponsesDecoder._whole_text,
    "response.refusal.delta": ResponsesDecoder._refusal,
    "response.refusal.done": ResponsesDecoder._whole_refusal,
    "response.reasoning_text.delta": ResponsesDecoder._reasoning,
    "response.reasoning_text.done": ResponsesDecoder._whole_reasoning,
    "response.reasoning_summary_text.delta": ResponsesDecoder._summary,
    "response.reasoning_summary_text.done": ResponsesDecoder._whole_summary,
    "response.function_call_arguments.delta": ResponsesDecoder._arguments,
    "response.function_call_arguments.done": ResponsesDecoder._whole_arguments,
    "response.custom_tool_call_input.delta": ResponsesDecoder._arguments,
    "response.custom_tool_call_input.done": ResponsesDecoder._whole_arguments,
    "response.audio.delta": ResponsesDecoder._audio,
    "response.audio.transcript.delta": ResponsesDecoder._audio,
    "response.output_item.added": ResponsesDecoder._item_added,
    "response.output_item.done": ResponsesDecoder._item_done,
    "response.created": ResponsesDecoder._about,
    "response.queued": ResponsesDecoder._about,
    "response.in_progress": ResponsesDecoder._about,
    **{f"response.{status}": ResponsesDecoder._end for status in _ENDS},
}
_RARE: Mapping[str, Callable[[ResponsesDecoder, ResponsesEvent, dict[str, Any], list[Delta]], None]] = {
    "response.content_part.done": ResponsesDecoder._part_done,
    "response.output_text.annotation.added": ResponsesDecoder._annotation,
    "response.image_generation_call.partial_image": ResponsesDecoder._partial_picture,
}
"""Handlers of events with fields that `ResponsesEvent` does not have; they get the parsed event too."""
