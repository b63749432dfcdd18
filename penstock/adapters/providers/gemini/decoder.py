"""What Gemini streams: ``GenerateContentResponse`` in server-sent events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from penstock.adapters.formats.sse import SseEvent
from penstock.adapters.providers.gemini.arguments import PartialArguments
from penstock.adapters.providers.gemini.errors import blocked_prompt, gemini_error
from penstock.adapters.providers.gemini.request import THOUGHT
from penstock.adapters.providers.shared.decoder import EventDecoder
from penstock.adapters.providers.shared.json_values import (
    count_of,
    decode_json,
    has_escaped_halves,
    json_text,
    text_of,
    whole_number,
    without_halves,
)
from penstock.events import FinishReason, ReasoningBlock, Usage
from penstock.ports import (
    ChoiceDelta,
    Delta,
    ErrorDelta,
    FinishDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)

__all__ = ["GeminiDecoder"]


# --- the ordinary chunk, typed: one candidate, one part of text or of a thought ---------------------------------------
# Whatever is not that (or does not fit these types) is decoded again as plain objects by the lenient way below.


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _WireUsage(msgspec.Struct, gc=False, rename="camel"):
    prompt_token_count: _Count | None = None
    candidates_token_count: _Count | None = None
    total_token_count: _Count | None = None
    thoughts_token_count: _Count | None = None
    cached_content_token_count: _Count | None = None


class _WirePart(msgspec.Struct, gc=False, rename="camel", forbid_unknown_fields=True):
    text: str
    thought: bool = False


class _WireContent(msgspec.Struct, gc=False, rename="camel"):
    parts: tuple[_WirePart]


class _WireCandidate(msgspec.Struct, gc=False, rename="camel"):
    content: _WireContent
    index: int = 0
    finish_reason: str | None = None


class _WireChunk(msgspec.Struct, gc=False, rename="camel"):
    candidates: tuple[_WireCandidate]
    usage_metadata: _WireUsage | None = None
    model_version: str | None = None
    prompt_feedback: Any = None
    error: Any = None


_decode_typed = msgspec.json.Decoder(_WireChunk).decode

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
    """What has to be remembered of one of the answers."""

    __slots__ = ("arguments", "calls", "finish")

    def __init__(self) -> None:
        self.calls = 0
        self.arguments: PartialArguments | None = None  # of the call that is still being sent
        self.finish: FinishDelta | None = None


class GeminiDecoder(EventDecoder):
    """Implements `Decoder` for ``GenerateContentResponse`` in server-sent events, or whole as a JSON array.

    There is no end marker: ``finished`` says that all candidates have a finish reason.
    """

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(max_event_bytes)
        self._candidates: dict[int, _Candidate] = {}
        self._unfinished = 0  # of them
        self._usage = Usage()

    def _deltas(self, events: list[SseEvent], *, is_end: bool = False) -> list[Delta]:
        out = self._signs_of_life()
        for event in events:
            try:
                chunk = _decode_typed(event.data)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                self._unusual(event, out)
                continue
            candidate = chunk.candidates[0]
            if (
                candidate.index
                or candidate.finish_reason is not None
                or chunk.prompt_feedback is not None
                or chunk.error is not None
            ):
                self._unusual(event, out)
                continue
            if self.model is None and chunk.model_version:
                self.model = chunk.model_version
            part = candidate.content.parts[0]
            if part.text:
                out.append(ReasoningDelta(part.text) if part.thought else TextDelta(part.text))
            if (usage := chunk.usage_metadata) is not None:
                self._tell_usage(
                    Usage(
                        input_tokens=usage.prompt_token_count,
                        output_tokens=usage.candidates_token_count,
                        total_tokens=usage.total_token_count,
                        reasoning_tokens=usage.thoughts_token_count,
                        cached_tokens=usage.cached_content_token_count,
                    ),
                    out,
                )
        if self._has_halves:
            out = self._surrogates.mend(out, is_end=is_end)
        return out

    # --- the lenient way -------------------------------------------------------------------------------------------

    def _unusual(self, event: SseEvent, out: list[Delta]) -> None:
        try:
            told = decode_json(event.data)
            self._has_halves = self._has_halves or has_escaped_halves(event.data)
        except (ValueError, RecursionError):
            told = event.data
        for chunk in told if isinstance(told, list) else (told,):
            if isinstance(chunk, dict):
                self._chunk(chunk, out)
            elif event.event == "error":
                out.append(ErrorDelta(gemini_error(200, {}, chunk)))
            elif chunk != "[DONE]":
                self.skipped += 1

    def _chunk(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        if self.model is None:
            self.model = without_halves(text_of(chunk.get("modelVersion"))) or None
        candidates = chunk.get("candidates")
        for candidate in candidates if isinstance(candidates, list) else ():
            if isinstance(candidate, dict):
                self._candidate(candidate, out)
            else:
                self.skipped += 1
        usage = chunk.get("usageMetadata")
        if isinstance(usage, dict):
            self._tell_usage(_to_usage(usage), out)
        feedback = chunk.get("promptFeedback")
        if isinstance(feedback, dict) and text_of(feedback.get("blockReason")):
            out.append(ErrorDelta(blocked_prompt(feedback)))
        if chunk.get("error"):
            out.append(ErrorDelta(gemini_error(200, {}, chunk)))
        elif not {"candidates", "usageMetadata", "promptFeedback"} & chunk.keys():
            self.skipped += 1

    def _candidate(self, wire: dict[str, Any], out: list[Delta]) -> None:
        index = whole_number(wire.get("index")) or 0  # Vertex leaves a 0 out
        if index < 0:
            self.skipped += 1
            return
        candidate = self._candidates.get(index)
        if candidate is None:
            candidate = self._candidates[index] = _Candidate()
            self._unfinished += 1
        told: list[Delta] = []
        content = wire.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                self._part(part, candidate, told)
            else:
                self.skipped += 1
        reason = text_of(wire.get("finishReason"))
        if reason not in _NOT_FINISHED:
            self._unfinished -= candidate.finish is None
            self._finished(reason, candidate, told)
        self.finished = 0 in self._candidates and not self._unfinished
        out.extend(told if index == 0 else _of_choice(index, told))

    def _part(self, part: dict[str, Any], candidate: _Candidate, out: list[Delta]) -> None:
        signature = without_halves(text_of(part.get("thoughtSignature")))
        call = part.get("functionCall")
        if isinstance(call, dict):
            self._call(call, signature, candidate, out)
        elif "text" in part or (signature and part.keys() <= {"thought", "thoughtSignature"}):
            text = text_of(part.get("text"))
            is_thought = part.get("thought") is True
            if text:
                out.append(ReasoningDelta(text) if is_thought else TextDelta(text))
            if signature:
                thought = without_halves(text) if is_thought else ""
                out.append(ReasoningBlockDelta(ReasoningBlock(kind=THOUGHT, text=thought, signature=signature)))
        else:  # code that Google runs and what it gives, images, searches in files
            self.skipped += 1

    def _call(self, call: dict[str, Any], signature: str, candidate: _Candidate, out: list[Delta]) -> None:
        name = without_halves(text_of(call.get("name"))) or None
        more = call.get("willContinue") is True
        partial = call.get("partialArgs")
        arguments = candidate.arguments
        if name is None and arguments is None:
            self.skipped += 1
            return
        if name is not None:
            candidate.calls += 1
            if not more and partial is None:
                args = call.get("args")
                candidate.arguments = None
                try:
                    text = json_text(args if args is not None else {})
                except RecursionError:  # nested just so deep that it can be read and not be written again
                    text = "{"  # better a call that cannot be run than one that means less
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
        if not more:
            text += arguments.end()
            candidate.arguments = None
        if text or name:
            out.append(self._fragment(call, name, text, signature, candidate))

    def _fragment(
        self, call: dict[str, Any], name: str | None, text: str, signature: str, candidate: _Candidate
    ) -> ToolCallFragment:
        """One call's fragment, by its number among the candidate's calls: most have no id."""
        return ToolCallFragment(
            index=candidate.calls - 1,
            id=without_halves(text_of(call.get("id"))) or None,
            name=name,
            arguments=text,
            signature=signature,
        )

    def _finished(self, raw: str, candidate: _Candidate, out: list[Delta]) -> None:
        """Tell a finish reason: again where it is another one, but never less than that a call was made."""
        reason = _FINISH.get(raw, "other")
        if reason == "stop" and candidate.calls:
            reason = "tool_calls"
        told = FinishDelta(reason, without_halves(raw))
        before = candidate.finish
        if before is None or (before != told and before.reason != "tool_calls"):
            candidate.finish = told
            out.append(told)

    def _tell_usage(self, usage: Usage, out: list[Delta]) -> None:
        """Tell counts, which are those of the whole answer so far, where they have changed."""
        if usage != self._usage and usage != _NOTHING_TOLD:
            self._usage = usage
            out.append(UsageDelta(usage))


_NOTHING_TOLD = Usage()


def _to_usage(usage: Mapping[str, Any]) -> Usage:
    return Usage(
        input_tokens=count_of(usage.get("promptTokenCount")),
        output_tokens=count_of(usage.get("candidatesTokenCount")),
        total_tokens=count_of(usage.get("totalTokenCount")),
        reasoning_tokens=count_of(usage.get("thoughtsTokenCount")),
        cached_tokens=count_of(usage.get("cachedContentTokenCount")),
    )


def _of_choice(index: int, deltas: list[Delta]) -> list[Delta]:
    """The deltas of another answer than the first; of its signatures there is nothing to be told."""
    found: list[Delta] = []
    for delta in deltas:
        if isinstance(delta, (TextDelta, ReasoningDelta)):
            found.append(ChoiceDelta(index, type(delta)(without_halves(delta.text))))
        elif isinstance(delta, ToolCallFragment):
            arguments = without_halves(delta.arguments)
            found.append(ChoiceDelta(index, msgspec.structs.replace(delta, arguments=arguments)))
        elif isinstance(delta, FinishDelta):
            found.append(ChoiceDelta(index, delta))
    return found
