"""Gemini's ``GenerateContentResponse`` in server-sent events as deltas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from penstock.adapters.formats.sse import SseEvent
from penstock.adapters.providers.gemini.errors import blocked_prompt, gemini_error
from penstock.adapters.providers.gemini.partial_arguments import PartialArguments
from penstock.adapters.providers.gemini.request import THOUGHT
from penstock.adapters.providers.shared.decoder import EventDecoder
from penstock.adapters.providers.shared.json_values import (
    count_of,
    decode_json,
    json_text,
    short_text,
    text_of,
    whole_number,
    without_surrogates,
)
from penstock.adapters.providers.shared.surrogates import has_escaped_surrogates, replace_surrogates
from penstock.config.options import Raw
from penstock.events import (
    FinishReason,
    MediaKind,
    MediaPart,
    ReasoningBlock,
    ServerToolCall,
    ServerToolResult,
    Usage,
)
from penstock.ports import (
    BlockStart,
    ChoiceDelta,
    Delta,
    ErrorDelta,
    EventDelta,
    FinishDelta,
    FinishHeld,
    MetadataDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)

__all__ = ["GeminiDecoder"]


# --- the fast path: an ordinary response, typed ----------------------------------------------------------------------
# One candidate with one part, which is text or a thought. Others are decoded again by the lenient path below.


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _WireUsage(msgspec.Struct, gc=False, rename="camel"):
    prompt_token_count: _Count | None = None
    candidates_token_count: _Count | None = None
    total_token_count: _Count | None = None
    thoughts_token_count: _Count | None = None
    cached_content_token_count: _Count | None = None
    tool_use_prompt_token_count: _Count | None = None


class _WirePart(msgspec.Struct, gc=False, rename="camel", forbid_unknown_fields=True):
    text: str
    thought: bool = False


class _WireContent(msgspec.Struct, gc=False, rename="camel"):
    parts: tuple[_WirePart]


class _WireCandidate(msgspec.Struct, gc=False, rename="camel"):
    content: _WireContent
    index: int = 0
    finish_reason: str | None = None


class _WireResponse(msgspec.Struct, gc=False, rename="camel"):
    candidates: tuple[_WireCandidate]
    usage_metadata: _WireUsage | None = None
    model_version: str | None = None
    prompt_feedback: Any = None
    error: Any = None


_decode_typed = msgspec.json.Decoder(_WireResponse).decode

_FINISH: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "MODEL_ARMOR",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
        ),
        "content_filter",
    ),
}
_NOT_FINISHED = ("", "FINISH_REASON_UNSPECIFIED")


class _Candidate:
    """The state of one of the answers."""

    __slots__ = ("arguments", "calls", "finish", "is_separated", "open_tools", "tools")

    def __init__(self) -> None:
        self.tools = 0  # calls of Google's own tools so far
        self.open_tools: list[tuple[str, str]] = []  # id and name of those without a result
        self.is_separated = False  # something stands between the text so far and the next
        self.calls = 0
        self.arguments: PartialArguments | None = None  # of the call that is still arriving
        self.finish: FinishDelta | None = None


class GeminiDecoder(EventDecoder):
    """Implements `Decoder` for ``GenerateContentResponse`` in server-sent events, or whole as a JSON array.

    There is no end marker: ``finished`` is True once all candidates have a finish reason.
    """

    def __init__(self, max_event_bytes: int, raw: Raw = "none") -> None:
        super().__init__(max_event_bytes, raw)
        self._candidates: dict[int, _Candidate] = {}
        self._unfinished = 0  # candidates without a finish reason
        self._usage = Usage()
        self._first: _Candidate | None = None
        self._told: dict[str, object] = {}  # metadata

    def _deltas(self, events: list[SseEvent], *, is_end: bool = False) -> list[Delta]:
        out = self._keep_alives()
        for event in events:
            try:
                chunk = _decode_typed(event.data)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                self._decode_leniently(event, out)
                continue
            candidate = chunk.candidates[0]
            if (
                candidate.index
                or candidate.finish_reason is not None
                or chunk.prompt_feedback is not None
                or chunk.error is not None
            ):
                self._decode_leniently(event, out)
                continue
            if self.model is None and chunk.model_version:
                self.model = chunk.model_version
            part = candidate.content.parts[0]
            if part.text:
                if self._first is not None and self._first.is_separated:
                    self._first.is_separated = False
                    out.append(BlockStart("reasoning" if part.thought else "text"))
                out.append(ReasoningDelta(part.text) if part.thought else TextDelta(part.text))
            if (usage := chunk.usage_metadata) is not None:
                self._emit_usage(
                    Usage(
                        input_tokens=usage.prompt_token_count,
                        output_tokens=usage.candidates_token_count,
                        total_tokens=usage.total_token_count,
                        reasoning_tokens=usage.thoughts_token_count,
                        cached_tokens=usage.cached_content_token_count,
                        tool_input_tokens=usage.tool_use_prompt_token_count,
                    ),
                    out,
                )
        if self._has_surrogates:
            out = self._surrogates.join(out, is_end=is_end)
        return out

    # --- the lenient path ------------------------------------------------------------------------------------------

    def _decode_leniently(self, event: SseEvent, out: list[Delta]) -> None:
        try:
            payload = decode_json(event.data)
            self._has_surrogates = self._has_surrogates or has_escaped_surrogates(event.data)
        except (ValueError, RecursionError):
            payload = event.data
        for chunk in payload if isinstance(payload, list) else (payload,):
            if isinstance(chunk, dict):
                self._read_chunk(chunk, out)
            elif event.event == "error":
                out.append(ErrorDelta(gemini_error(200, {}, chunk)))
            elif chunk != "[DONE]":
                self._skip("", chunk, out)

    def _read_chunk(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        if self.model is None:
            self.model = replace_surrogates(text_of(chunk.get("modelVersion"))) or None
        candidates = chunk.get("candidates")
        for candidate in candidates if isinstance(candidates, list) else ():
            if isinstance(candidate, dict):
                self._read_candidate(candidate, out)
            else:
                self._skip("candidates", candidate, out)
        usage = chunk.get("usageMetadata")
        if isinstance(usage, dict):
            self._emit_usage(_to_usage(usage), out)
        self._read_metadata(chunk, out)
        feedback = chunk.get("promptFeedback")
        if isinstance(feedback, dict) and text_of(feedback.get("blockReason")):
            out.append(ErrorDelta(blocked_prompt(feedback)))
        if chunk.get("error"):
            out.append(ErrorDelta(gemini_error(200, {}, chunk)))
        elif not {"candidates", "usageMetadata", "promptFeedback"} & chunk.keys():
            self._skip("", chunk, out)

    def _read_metadata(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        """Append what is said of the whole answer, unless it has been reported."""
        values: dict[str, object] = {}
        if response_id := replace_surrogates(text_of(chunk.get("responseId"))):
            values["response_id"] = response_id
        feedback = chunk.get("promptFeedback")
        if isinstance(feedback, dict) and any(feedback.values()):
            values["prompt_feedback"] = without_surrogates(feedback)
        candidates = chunk.get("candidates")
        first = candidates[0] if isinstance(candidates, list) and candidates else None
        if isinstance(first, dict) and (message := replace_surrogates(text_of(first.get("finishMessage")))):
            values["finish_message"] = message[:_LONGEST_MESSAGE]
        news = {name: value for name, value in values.items() if self._told.get(name) != value}
        if news:
            self._told |= news
            out.append(MetadataDelta(news))

    def _read_candidate(self, wire: dict[str, Any], out: list[Delta]) -> None:
        index = whole_number(wire.get("index")) or 0  # Vertex omits a 0
        if index < 0:
            self._skip("candidates", wire, out)
            return
        candidate = self._candidates.get(index)
        if candidate is None:
            candidate = self._candidates[index] = _Candidate()
            if index == 0:
                self._first = candidate
            self._unfinished += 1
        deltas: list[Delta] = []
        content = wire.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                self._read_part(part, candidate, deltas)
            else:
                self._skip("parts", part, deltas)
        reason = text_of(wire.get("finishReason"))
        # With code that runs, a "STOP" comes before the result and the rest of the answer.
        if reason == "STOP" and candidate.open_tools:
            deltas.append(FinishHeld())
        elif reason not in _NOT_FINISHED:
            self._unfinished -= candidate.finish is None
            self._read_finish(reason, candidate, deltas)
        self.finished = 0 in self._candidates and not self._unfinished
        out.extend(deltas if index == 0 else _choice_deltas(index, deltas))

    def _read_part(self, part: dict[str, Any], candidate: _Candidate, out: list[Delta]) -> None:
        signature = replace_surrogates(text_of(part.get("thoughtSignature")))
        call = part.get("functionCall")
        if isinstance(call, dict):
            self._read_call(call, signature, candidate, out)
        elif "text" in part or (signature and part.keys() <= {"thought", "thoughtSignature"}):
            text = text_of(part.get("text"))
            is_thought = part.get("thought") is True
            if text:
                if candidate.is_separated:
                    candidate.is_separated = False
                    out.append(BlockStart("reasoning" if is_thought else "text"))
                out.append(ReasoningDelta(text) if is_thought else TextDelta(text))
            if signature:
                thought = replace_surrogates(text) if is_thought else ""
                out.append(ReasoningBlockDelta(ReasoningBlock(kind=THOUGHT, text=thought, signature=signature)))
        elif not self._read_tool(part, candidate, out) and not _read_media(part, out):
            self._skip(next((name for name in part if name != "thoughtSignature"), ""), part, out)

    def _read_tool(self, part: dict[str, Any], candidate: _Candidate, out: list[Delta]) -> bool:
        """Read a call or a result of one of Google's own tools; returns whether the part is one."""
        for field, (is_result, name) in _TOOL_PARTS.items():
            value = part.get(field)
            if not isinstance(value, dict):
                continue
            given = replace_surrogates(text_of(value.get("id")))
            known = without_surrogates({key: item for key, item in value.items() if key != "id"})
            name = replace_surrogates(text_of(value.get("toolType"))) or name
            candidate.is_separated = True
            if not is_result:
                tool = (given or f"server_{candidate.tools}", name)
                candidate.tools += 1
                candidate.open_tools.append(tool)
                out.append(EventDelta(ServerToolCall(id=tool[0], name=name, input=known)))
                return True
            tool = next((one for one in candidate.open_tools if one[0] == given), None) or next(
                iter(candidate.open_tools), (given or f"server_{max(candidate.tools - 1, 0)}", name)
            )
            if tool in candidate.open_tools:
                candidate.open_tools.remove(tool)
            status = replace_surrogates(text_of(value.get("outcome"))) or None
            is_error = status not in (None, "OUTCOME_OK")
            output = known.get("output", known.get("response", known))
            out.append(
                EventDelta(ServerToolResult(id=tool[0], name=tool[1], output=output, status=status, is_error=is_error))
            )
            return True
        return False

    def _read_call(self, call: dict[str, Any], signature: str, candidate: _Candidate, out: list[Delta]) -> None:
        name = replace_surrogates(text_of(call.get("name"))) or None
        will_continue = call.get("willContinue") is True
        partial = call.get("partialArgs")
        arguments = candidate.arguments
        if name is None and arguments is None:
            self._skip("functionCall", call, out)
            return
        if name is not None:
            candidate.calls += 1
            if not will_continue and partial is None:
                args = call.get("args")
                candidate.arguments = None
                try:
                    text = json_text(args if args is not None else {})
                except RecursionError:  # nested just deeply enough to be parsed but not encoded again
                    text = "{"  # invalid, so that the call is not run with other arguments
                    self.skipped += 1
                out.append(self._fragment(call, name, text, signature, candidate))
                return
            arguments = candidate.arguments = PartialArguments()
            text = arguments.begin()
        else:
            text = ""
        assert arguments is not None
        skipped = arguments.skipped
        for value in partial if isinstance(partial, list) else ():
            if isinstance(value, dict):
                text += arguments.add(value)
        self.skipped += arguments.skipped - skipped
        if not will_continue:
            text += arguments.end()
            candidate.arguments = None
        if text or name:
            out.append(self._fragment(call, name, text, signature, candidate))

    def _fragment(
        self, call: dict[str, Any], name: str | None, text: str, signature: str, candidate: _Candidate
    ) -> ToolCallFragment:
        """Make a fragment of the candidate's current call, numbered by its order: most calls have no id."""
        return ToolCallFragment(
            index=candidate.calls - 1,
            id=replace_surrogates(text_of(call.get("id"))) or None,
            name=name,
            arguments=text,
            signature=signature,
        )

    def _read_finish(self, raw: str, candidate: _Candidate, out: list[Delta]) -> None:
        """Append a finish reason. A later one replaces it, but never ``tool_calls``."""
        reason = _FINISH.get(raw, "other")
        if reason == "stop" and candidate.calls:
            reason = "tool_calls"
        finish = FinishDelta(reason, replace_surrogates(raw))
        before = candidate.finish
        if before is None or (before != finish and before.reason != "tool_calls"):
            candidate.finish = finish
            out.append(finish)

    def _emit_usage(self, usage: Usage, out: list[Delta]) -> None:
        """Append the counts, which are those of the whole answer so far, if they have changed."""
        if usage != self._usage and usage != _NO_COUNTS:
            self._usage = usage
            out.append(UsageDelta(usage))


_NO_COUNTS = Usage()
_LONGEST_MESSAGE = 4_096  # characters
_TOOL_PARTS = {
    "executableCode": (False, "code_execution"),
    "codeExecutionResult": (True, "code_execution"),
    "toolCall": (False, "tool"),
    "toolResponse": (True, "tool"),
}
"""Parts of Google's own tools: whether it is a result, and the tool's name where the part has none."""
_MEDIA_KINDS: tuple[MediaKind, ...] = ("image", "audio", "video")


def _read_media(part: dict[str, Any], out: list[Delta]) -> bool:
    """Read a picture, sound or file; returns whether the part is one."""
    for field in ("inlineData", "fileData"):
        value = part.get(field)
        if not isinstance(value, dict):
            continue
        mime = replace_surrogates(text_of(value.get("mimeType")))
        data, url = text_of(value.get("data")), replace_surrogates(text_of(value.get("fileUri")))
        if data or url:
            kind: MediaKind = next((one for one in _MEDIA_KINDS if mime.startswith(one)), "file")
            data = replace_surrogates(data)
            out.append(EventDelta(MediaPart(kind=kind, mime=mime or None, data=data, url=url or None)))
            return True
    return False


def _to_usage(usage: Mapping[str, Any]) -> Usage:
    asked, answered = (_by_modality(usage.get(f"{side}TokensDetails")) for side in ("prompt", "candidates"))
    counts = Usage(
        input_tokens=count_of(usage.get("promptTokenCount")),
        output_tokens=count_of(usage.get("candidatesTokenCount")),
        total_tokens=count_of(usage.get("totalTokenCount")),
        reasoning_tokens=count_of(usage.get("thoughtsTokenCount")),
        cached_tokens=count_of(usage.get("cachedContentTokenCount")),
        tool_input_tokens=count_of(usage.get("toolUsePromptTokenCount")),
        audio_input_tokens=asked.get("AUDIO"),
        image_input_tokens=asked.get("IMAGE"),
        audio_output_tokens=answered.get("AUDIO"),
        image_output_tokens=answered.get("IMAGE"),
    )
    if counts == _NO_COUNTS:
        return counts
    return msgspec.structs.replace(counts, service_tier=short_text(usage.get("serviceTier")))


def _by_modality(details: object) -> dict[str, int]:
    return {
        text_of(one.get("modality")): count
        for one in (details if isinstance(details, list) else ())
        if isinstance(one, dict) and (count := count_of(one.get("tokenCount"))) is not None
    }


def _choice_deltas(index: int, deltas: list[Delta]) -> list[Delta]:
    """Wrap the deltas of another answer than the first; its signatures are dropped."""
    choices: list[Delta] = []
    for delta in deltas:
        if isinstance(delta, (TextDelta, ReasoningDelta)):
            choices.append(ChoiceDelta(index, type(delta)(replace_surrogates(delta.text))))
        elif isinstance(delta, ToolCallFragment):
            arguments = replace_surrogates(delta.arguments)
            choices.append(ChoiceDelta(index, msgspec.structs.replace(delta, arguments=arguments)))
        elif isinstance(delta, FinishDelta):
            choices.append(ChoiceDelta(index, delta))
    return choices
