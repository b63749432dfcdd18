"""Gemini's ``GenerateContentResponse`` in server-sent events as deltas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.adapters.formats.sse import SseEvent
from penstock.adapters.providers.gemini.errors import blocked_prompt, gemini_error
from penstock.adapters.providers.gemini.logprobs import read_logprobs
from penstock.adapters.providers.gemini.metadata import GeminiMetadata
from penstock.adapters.providers.gemini.parts import CONTENT_FIELDS, KNOWN_FIELDS, Parts
from penstock.adapters.providers.gemini.sources import GeminiSources
from penstock.adapters.providers.gemini.usage import NO_COUNTS, has_details, to_usage, wire_counts, with_details
from penstock.adapters.providers.gemini.wire import NO_WIRE_COUNTS, decode_wire
from penstock.adapters.providers.shared.decoder import EventDecoder
from penstock.adapters.providers.shared.json_values import decode_json, plain_json, text_of, whole_number
from penstock.adapters.providers.shared.surrogates import has_escaped_surrogates, replace_surrogates
from penstock.config.options import Raw
from penstock.events import FinishReason, ProviderEvent, Usage
from penstock.ports import (
    ChoiceDelta,
    Delta,
    ErrorDelta,
    EventDelta,
    FinishDelta,
    FinishHeld,
    ReasoningDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)

__all__ = ["GeminiDecoder"]

_FINISH: Final[dict[str, FinishReason]] = {
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
_NOT_FINISHED: Final = ("", "FINISH_REASON_UNSPECIFIED")

_ANSWERS: Final = frozenset({"candidates", "usageMetadata", "promptFeedback"})
"""A response has at least one of these."""
_OF_CHUNK: Final = _ANSWERS | {"modelVersion", "responseId", "createTime", "modelStatus", "error"}
_OF_CANDIDATE: Final = frozenset(
    {
        *("content", "index", "finishReason", "finishMessage", "safetyRatings", "avgLogprobs", "logprobsResult"),
        *("citationMetadata", "groundingMetadata", "urlContextMetadata"),
    }
)
"""Fields that are understood. Others are no surprise, but ``raw="unknown"`` passes them on."""

_OF_OTHERS: Final = frozenset({"content", "index", "finishReason"})
"""Fields that are read of every candidate; the others of candidate 0 only."""


class _Candidate:
    """The state of one of the answers."""

    __slots__ = ("finish", "parts")

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.finish: FinishDelta | None = None


class GeminiDecoder(EventDecoder):
    """Implements `Decoder` for ``GenerateContentResponse`` in server-sent events, or whole as a JSON array.

    There is no end marker: ``finished`` is True once all candidates have a finish reason.
    """

    def __init__(self, max_event_bytes: int, raw: Raw = "none") -> None:
        super().__init__(max_event_bytes, raw)
        self._first = Parts(self._skip)  # of candidate 0
        self._candidates: dict[int, _Candidate] = {}
        self._unfinished = 0  # candidates without a finish reason
        self._usage = NO_COUNTS
        self._counts = NO_WIRE_COUNTS  # those of the usage
        self._has_details = False  # whether the usage has counts by modality
        self._metadata = GeminiMetadata(self._skip)
        self._sources = GeminiSources(self._first.text, self._skip)
        self._has_begun = False  # a response has been decoded, and with it what is the same in all of them

    def _deltas(self, events: list[SseEvent], *, is_end: bool = False) -> list[Delta]:
        out = self._keep_alives()
        first = self._first
        keep = first.text.pieces.append
        for event in events if self._has_begun else self._begin(events, out):
            try:
                chunk = decode_wire(event.data)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                self._decode_leniently(event, out)
                continue
            part = chunk.candidates[0].content.parts[0]
            if text := part.text:
                if first.is_separated:
                    first.begin_text(is_thought=part.thought, out=out)
                if part.thought:
                    out.append(ReasoningDelta(text))
                else:
                    out.append(TextDelta(text))
                    keep(text)
            counts = chunk.usage_metadata
            if (
                counts is not None
                and counts != self._counts
                and (counts.total_token_count is not None or counts != NO_WIRE_COUNTS)
            ):
                self._counts = counts
                self._usage = usage = (
                    with_details(counts, self._usage)
                    if self._has_details
                    else Usage(
                        input_tokens=counts.prompt_token_count,
                        output_tokens=counts.candidates_token_count,
                        total_tokens=counts.total_token_count,
                        reasoning_tokens=counts.thoughts_token_count,
                        cached_tokens=counts.cached_content_token_count,
                        tool_input_tokens=counts.tool_use_prompt_token_count,
                        service_tier=self._usage.service_tier,
                    )
                )
                out.append(UsageDelta(usage))
        if self._has_surrogates:
            out = self._surrogates.join(out, is_end=is_end)
        return out

    def _begin(self, events: list[SseEvent], out: list[Delta]) -> list[SseEvent]:
        """Decode the first response leniently, or all of them if unknown fields are asked for; return the others."""
        count = len(events) if self._raw == "unknown" else 1
        for event in events[:count]:
            self._decode_leniently(event, out)
            self._has_begun = self._raw != "unknown"
        return events[count:]

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
        if self.model is None and (model := chunk.get("modelVersion")):
            if isinstance(model, str):
                self.model = replace_surrogates(model)
            else:
                self._skip("modelVersion", model, out)
        candidates = chunk.get("candidates")
        first: Mapping[str, Any] = {}
        for candidate in candidates if isinstance(candidates, list) else ():
            if isinstance(candidate, dict):
                if self._read_candidate(candidate, out):
                    first = candidate
            else:
                self._skip("candidates", candidate, out)
        if candidates is not None and not isinstance(candidates, list):
            self._skip("candidates", candidates, out)
        usage = chunk.get("usageMetadata")
        if isinstance(usage, dict):
            self._emit_usage(to_usage(usage), out)
        elif usage is not None:
            self._skip("usageMetadata", usage, out)
        self._metadata.read(chunk, first, self._sources.uncited, out)
        feedback = chunk.get("promptFeedback")
        if isinstance(feedback, dict) and text_of(feedback.get("blockReason")):
            out.append(ErrorDelta(blocked_prompt(feedback)))
        if chunk.get("error"):
            out.append(ErrorDelta(gemini_error(200, {}, chunk)))
        elif not _ANSWERS & chunk.keys():
            self._skip("", chunk, out)
            return
        if self._raw == "unknown":
            _pass_on(chunk, _OF_CHUNK, out)

    def _read_candidate(self, wire: dict[str, Any], out: list[Delta]) -> bool:
        """Read one of the answers; returns whether it is the first, candidate 0."""
        given = wire.get("index")
        index = whole_number(given)
        if index is None:  # Vertex omits a 0
            index = 0
            if given is not None:
                self._skip("index", given, out)
        if index < 0:
            self._skip("candidates", wire, out)
            return False
        candidate = self._candidates.get(index)
        if candidate is None:
            parts = self._first if index == 0 else Parts(self._skip)
            candidate = self._candidates[index] = _Candidate(parts)
            self._unfinished += 1
        deltas: list[Delta] = []
        self._read_content(wire.get("content"), candidate.parts, deltas)
        if index == 0:
            if (result := wire.get("logprobsResult")) is not None:
                read_logprobs(result, self._skip, deltas)
            self._sources.read(wire, deltas)
            if self._raw == "unknown":
                _pass_on(wire, _OF_CANDIDATE, deltas)
        reason = text_of(raw := wire.get("finishReason"))
        if raw is not None and not isinstance(raw, str):
            self._skip("finishReason", raw, deltas)
        # With code that runs, a "STOP" comes before the result and the rest of the answer.
        if reason == "STOP" and candidate.parts.open_tools:
            deltas.append(FinishHeld())
        elif reason not in _NOT_FINISHED:
            self._unfinished -= candidate.finish is None
            _read_finish(reason, candidate, deltas)
        self.finished = 0 in self._candidates and not self._unfinished
        if index == 0:
            out += deltas
            return True
        said = _choice_deltas(index, deltas)
        out += said
        if self._raw == "unknown" and (len(said) < len(deltas) or wire.keys() - _OF_OTHERS):
            out.append(EventDelta(ProviderEvent(type="candidate", payload=plain_json(wire))))
        return False

    def _read_content(self, content: object, parts: Parts, out: list[Delta]) -> None:
        given = content.get("parts") if isinstance(content, dict) else None
        if content is not None and not isinstance(content, dict):
            self._skip("content", content, out)
        elif given is not None and not isinstance(given, list):
            self._skip("parts", given, out)
        for part in given if isinstance(given, list) else ():
            if isinstance(part, dict):
                parts.read(part, out)
                if self._raw == "unknown" and CONTENT_FIELDS & part.keys():
                    _pass_on(part, KNOWN_FIELDS, out)
            else:
                self._skip("parts", part, out)

    def _emit_usage(self, usage: Usage, out: list[Delta]) -> None:
        """Append the counts, which are those of the whole answer so far, if they have changed."""
        if usage != self._usage and usage != NO_COUNTS:
            self._usage = usage
            self._counts, self._has_details = wire_counts(usage), has_details(usage)
            out.append(UsageDelta(usage))


def _pass_on(fields: Mapping[str, Any], known: frozenset[str], out: list[Delta]) -> None:
    """Append the fields that are not ``known``, for ``raw="unknown"``."""
    out += [
        EventDelta(ProviderEvent(type=replace_surrogates(name), payload=plain_json(value)))
        for name, value in fields.items()
        if name not in known
    ]


def _read_finish(raw: str, candidate: _Candidate, out: list[Delta]) -> None:
    """Append a finish reason. A later one replaces it, but never ``tool_calls``."""
    reason = _FINISH.get(raw, "other")
    if reason == "stop" and candidate.parts.calls:
        reason = "tool_calls"
    before = candidate.finish
    finish = FinishDelta(reason, replace_surrogates(raw))
    if before is None or (before != finish and before.reason != "tool_calls"):
        candidate.finish = finish
        out.append(finish)


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
