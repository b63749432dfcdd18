"""Answers with parts in the format of the OpenAI Responses API: each part is an output item, or content of one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from penstock.adapters.loopback.answer import Answer
from penstock.adapters.loopback.encoder import (
    AnswerContext,
    PartEvents,
    Segment,
    encode_event,
    needs_parts,
    openai_logprobs,
    part_segments,
    to_usage,
    with_logprobs,
)
from penstock.adapters.loopback.parts import (
    Block,
    Declined,
    Part,
    Picture,
    Ran,
    RawEvent,
    Said,
    Search,
    ServerTool,
    Sound,
    Source,
    Thought,
)
from penstock.adapters.loopback.pieces import ScriptedCall, fragments_of
from penstock.adapters.loopback.responses_encoder import ResponsesEncoder, responses_usage
from penstock.adapters.loopback.responses_items import HostedItem, client_item, hosted_item, is_hosted, picture_item

__all__ = ["ResponsesPartsEncoder", "make_responses_encoder"]

_FIELDS = {
    "response_id": "id",
    "service_tier": "service_tier",
    "system_fingerprint": "system_fingerprint",
    "upstream_provider": "provider",
    "moderation": "moderation",
    "timings": "timings",
}
"""Fields of the response, by the names of metadata."""
_PREFIXES = {
    "code_interpreter_call": "ci",
    "custom_tool_call": "ctc",
    "file_search_call": "fs",
    "image_generation_call": "ig",
    "mcp_call": "mcp",
    "mcp_approval_request": "mcpr",
    "web_search_call": "ws",
}
"""What ids begin with."""

_Events = Iterator[tuple[bool, bytes]]


class _OpenText:
    """A message with text that may go on."""

    def __init__(self, item: dict[str, Any], at: dict[str, Any]) -> None:
        self.item = item
        self.at = at
        self.said = ""
        self.annotations: list[dict[str, Any]] = []
        self.logprobs: list[dict[str, Any]] = []
        self.phase = item.get("phase")

    @property
    def part(self) -> dict[str, Any]:
        """The content of the message."""
        return {
            "type": "output_text",
            "annotations": self.annotations,
            "logprobs": self.logprobs,
            "text": self.said,
        }


class ResponsesPartsEncoder(ResponsesEncoder):
    """Encodes one response that has parts, metadata or probabilities. Implements `AnswerEncoder`."""

    def __init__(self, answer: Answer, context: AnswerContext) -> None:
        super().__init__(answer, context)
        self._open: _OpenText | None = None
        self._calls = 0  # calls that the client must act on

    def body(self) -> _Events:
        """Yield the events of all parts, without pauses."""
        for segment in self.segments():
            yield from segment.events

    def segments(self) -> Iterator[Segment]:
        """Yield the events between the pauses."""
        return part_segments(self._answer, self._part, self._end_text)

    @property
    def response_id(self) -> str:
        """The id by which the response can be requested again."""
        given = self._answer.metadata.get("response_id")
        return given if isinstance(given, str) else super().response_id

    # --- parts -------------------------------------------------------------------------------------------------------

    def _part(self, part: Part) -> PartEvents:
        if _is_left_out(part):
            return
        if not isinstance(part, (Said, RawEvent)):
            for event in self._end_text():
                yield False, event
        match part:
            case Said():
                yield from self._say(part)
            case Thought():
                yield from self._think(part)
            case Declined():
                yield from self._refuse(part)
            case Search() | Ran() | ServerTool():
                yield from self._hosted(hosted_item(part, part.id or self._made_up("call")), part.id)
            case Picture():
                yield from self._hosted(picture_item(part), None, tuple(map(str, part.previews)))
            case Sound():
                yield from self._sound(part)
            case ScriptedCall():
                yield from self._client_call(part)
            case RawEvent():
                yield True, self._raw(part)
            case Block():
                yield False, self._added(part.data)
                yield True, self._done(part.data)

    def _say(self, said: Said) -> _Events:
        if self._open is not None and self._open.phase != said.phase:
            for event in self._end_text():
                yield False, event
        if self._open is None:
            yield from self._begin_text(said)
        text = self._open
        assert text is not None
        start = len(text.said)
        text.said += said.text
        for piece, token in with_logprobs(said, self._answer, self._context):
            made = [] if token is None else openai_logprobs([token])
            text.logprobs += made
            yield True, self._named_event("response.output_text.delta", **text.at, delta=piece, logprobs=made)
        for source in said.citations:
            annotation = _annotation(source, start, len(said.text))
            if annotation is not None:
                number = len(text.annotations)
                text.annotations.append(annotation)
                told = {"annotation_index": number, "annotation": annotation}
                yield False, self._named_event("response.output_text.annotation.added", **text.at, **told)

    def _begin_text(self, said: Said) -> _Events:
        item: dict[str, Any] = {
            "id": self._made_up("msg"),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        if said.phase is not None:
            item["phase"] = said.phase
        yield False, self._added(item)
        at = self._address(len(self._items), item["id"]) | {"content_index": 0}
        self._open = _OpenText(item, at)
        yield False, self._named_event("response.content_part.added", **at, part=self._open.part)

    def _end_text(self) -> Iterator[bytes]:
        """End the open message, if there is one."""
        text, self._open = self._open, None
        if text is None:
            return
        done = {"text": text.said, "logprobs": text.logprobs}
        yield self._named_event("response.output_text.done", **text.at, **done)
        yield self._named_event("response.content_part.done", **text.at, part=text.part)
        yield self._done(text.item | {"status": self._message_status(), "content": [text.part]})

    def _message_status(self) -> str:
        return "incomplete" if self._final_status() == "incomplete" else "completed"

    def _refuse(self, refused: Declined) -> _Events:
        item = {"id": self._made_up("msg"), "type": "message", "role": "assistant"}
        yield False, self._added(item | {"status": "in_progress", "content": []})
        at = self._address(len(self._items), item["id"]) | {"content_index": 0}
        empty, part = ({"type": "refusal", "refusal": text} for text in ("", refused.text))
        yield False, self._named_event("response.content_part.added", **at, part=empty)
        for piece in refused.pieces:
            yield True, self._named_event("response.refusal.delta", **at, delta=piece)
        yield False, self._named_event("response.refusal.done", **at, refusal=refused.text)
        yield False, self._named_event("response.content_part.done", **at, part=part)
        yield False, self._done(item | {"status": self._message_status(), "content": [part]})

    def _think(self, thought: Thought) -> _Events:
        item: dict[str, Any] = {"id": self._made_up("rs"), "type": "reasoning", "summary": []}
        sealed = thought.redacted if thought.redacted is not None else thought.signature
        yield False, self._added(item)
        if thought.text:
            at = self._address(len(self._items), item["id"]) | {"summary_index": 0}
            empty, part = ({"type": "summary_text", "text": text} for text in ("", thought.text))
            yield False, self._named_event("response.reasoning_summary_part.added", **at, part=empty)
            for piece in thought.pieces:
                yield True, self._named_event("response.reasoning_summary_text.delta", **at, delta=piece)
            yield False, self._named_event("response.reasoning_summary_text.done", **at, text=part["text"])
            yield False, self._named_event("response.reasoning_summary_part.done", **at, part=part)
            item["summary"] = [part]
        yield not thought.text, self._done(item | ({"encrypted_content": sealed} if sealed else {}))

    # --- tools and media ---------------------------------------------------------------------------------------------

    def _hosted(self, item: HostedItem, identifier: str | None, previews: tuple[str, ...] = ()) -> PartEvents:
        """A call that the provider runs itself: begun, in progress, done; then its result, if it is an item."""
        kind: str = item.done["type"]
        own = identifier if item.done.get("call_id") is None else None
        item_id = own or self._made_up(_PREFIXES.get(kind, kind))
        yield False, self._added({"id": item_id, "status": "in_progress", **item.added})
        at = self._address(len(self._items), item_id)
        if item.is_told:
            yield False, self._named_event(f"response.{kind}.in_progress", **at)
        if item.event:
            for piece in fragments_of(item.text):
                yield True, self._named_event(f"{item.event}.delta", **at, delta=piece)
            yield False, self._named_event(f"{item.event}.done", **at, **{item.field: item.text})
        if item.progress:
            yield not previews, self._named_event(f"response.{kind}.{item.progress}", **at)
        for number, data in enumerate(previews):
            shown = {"partial_image_index": number, "partial_image_b64": data}
            form = {"output_format": item.done["output_format"]}
            yield True, self._named_event(f"response.{kind}.partial_image", **at, **shown, **form)
        if item.output is None:
            yield None
        if item.is_told and item.done.get("status") != "failed":
            yield False, self._named_event(f"response.{kind}.completed", **at)
        yield True, self._done({"id": item_id, **item.done})
        yield None
        if item.output is not None:
            output = {"id": self._made_up(f"{kind}_output"), **item.output}
            yield False, self._added(output | {"status": "in_progress"})
            yield True, self._done(output)

    def _sound(self, sound: Sound) -> _Events:
        at = {"response_id": self.response_id}
        for word in sound.words:
            yield True, self._named_event("response.audio.transcript.delta", **at, delta=word)
        if sound.words:
            yield False, self._named_event("response.audio.transcript.done", **at)
        yield True, self._named_event("response.audio.delta", **at, delta=sound.encoded)
        yield False, self._named_event("response.audio.done", **at)

    def _client_call(self, call: ScriptedCall) -> _Events:
        index, self._calls = self._calls, self._calls + 1
        if call.type == "function":
            yield from self._call(index, call)
            return
        call_id = call.id or f"call_loopback_{self._context.number}_{index}"
        if call.type != "custom":
            item = client_item(call, call_id)
            item = item if "id" in item else {"id": self._made_up(call.type), **item}
            done = {} if call.type == "mcp_approval" else {"status": "completed"}
            yield False, self._added(item | ({"status": "in_progress"} if done else {}))
            yield True, self._done(item | done)
            return
        item = {"id": self._made_up("ctc"), "type": "custom_tool_call", "call_id": call_id, "name": call.name}
        yield False, self._added(item | {"status": "in_progress", "input": ""})
        at = self._address(len(self._items), item["id"])
        for piece in call.fragments:
            yield True, self._named_event("response.custom_tool_call_input.delta", **at, delta=piece)
        yield False, self._named_event("response.custom_tool_call_input.done", **at, input=call.arguments)
        yield False, self._done(item | {"status": "completed", "input": call.arguments})

    def _raw(self, event: RawEvent) -> bytes:
        if isinstance(event.payload, dict) and "sequence_number" not in event.payload:
            payload = msgspec.json.encode(event.payload | {"sequence_number": self._next_sequence()})
        else:
            payload = event.encoded
        return encode_event(payload, self._line_ending, event.name.encode())

    # --- the response ------------------------------------------------------------------------------------------------

    def _made_up(self, kind: str) -> str:
        """An id for the next item."""
        return f"{self._id(kind)}_{len(self._items)}"

    def _final(self) -> dict[str, Any]:
        final = super()._final()
        if self._answer.send_usage == "never":
            return final
        usage = to_usage(self._answer, self._context)
        counts = responses_usage(usage)
        counts["input_tokens_details"]["cache_write_tokens"] = usage.cache_write_tokens or 0
        cost = self._answer.metadata.get("cost")
        return final | {"usage": counts if cost is None else counts | {"cost": cost}}

    def _response(self, status: str) -> dict[str, Any]:
        metadata = self._answer.metadata
        told = {field: metadata[name] for name, field in _FIELDS.items() if name in metadata}
        return super()._response(status) | told


def _is_left_out(part: Part) -> bool:
    """Whether the API has no form for the part."""
    match part:
        case ServerTool(server=None):
            return not is_hosted(part.name)
        case Picture():
            return not part.encoded
        case Block():
            return part.dialect != "responses"
    return False


def _annotation(source: Source, start: int, length: int) -> dict[str, Any] | None:
    """An annotation of a content part; None: there is no form for the source."""
    low = start + (source.start or 0)
    high = start + (length if source.end is None else source.end)
    if source.kind == "url":
        place = {"start_index": low, "end_index": high}
        return {"type": "url_citation", "url": source.url or "", "title": source.title or "", **place}
    if source.kind != "file":
        return None
    named = {"file_id": source.id or "", "filename": source.title or ""}
    if source.start is None:
        return {"type": "file_citation", **named, "index": high}
    place = {"start_index": low, "end_index": high}
    return {"type": "container_file_citation", "container_id": "cntr_loopback", **named, **place}


def make_responses_encoder(answer: Answer, context: AnswerContext) -> ResponsesEncoder:
    """Make the encoder for an answer."""
    return (ResponsesPartsEncoder if needs_parts(answer, context) else ResponsesEncoder)(answer, context)
