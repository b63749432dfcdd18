"""Chat completion chunks, of OpenAI and of everything that calls itself compatible, as deltas."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.adapters.formats.sse import SseEvent
from penstock.adapters.providers.openai.chat_choice import Answer, says_something
from penstock.adapters.providers.shared.decoder import EventDecoder
from penstock.adapters.providers.shared.errors import error_frame
from penstock.adapters.providers.shared.json_values import (
    decode_json,
    has_escaped_halves,
    text_of,
    to_usage,
    whole_number,
    without_halves,
)
from penstock.ports import ChoiceDelta, Delta, ErrorDelta, FinishDelta, ReasoningDelta, TextDelta, UsageDelta

__all__ = ["ChatDecoder"]


# --- the ordinary chunk, typed: one choice, text or reasoning, nothing else -----------------------------------------
# Whatever is not that (or does not fit these types) is decoded again as plain objects by the lenient way below.


class _WireDelta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None


class _WireChoice(msgspec.Struct, gc=False):
    delta: _WireDelta
    index: int = 0
    finish_reason: str | None = None


class _WireChunk(msgspec.Struct, gc=False):
    choices: tuple[_WireChoice]
    model: str | None = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None


_decode_typed = msgspec.json.Decoder(_WireChunk).decode


class ChatDecoder(EventDecoder):
    """Implements `Decoder` for chat completion chunks.

    Choice 0 is the answer; of others (``n`` > 1) everything is told as `ChoiceDelta`. The answer's finish is told when
    all choices that have begun are finished too, or nothing more can come: whoever hears of it stops reading.
    """

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(max_event_bytes)
        self._first = Answer()
        self._others: dict[int, Answer] = {}
        self._held: FinishDelta | None = None  # of the first, for as long as others go on

    def close(self) -> list[Delta]:
        """The body has ended: tell what the last event holds, where it lacks only its blank line."""
        if self.done:
            return []
        out = super().close()
        self._end(out)
        return out

    def _deltas(self, events: list[SseEvent], *, is_end: bool = False) -> list[Delta]:
        out = self._signs_of_life()
        for event in events:
            data = event.data
            try:
                chunk = _decode_typed(data)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                self._unusual(event, out)
                if self.done:
                    break
                continue
            choice = chunk.choices[0]
            delta = choice.delta
            if (
                choice.finish_reason is not None
                or choice.index
                or delta.tool_calls
                or delta.refusal
                or delta.reasoning_details
                or delta.function_call is not None
                or chunk.usage is not None
                or chunk.error is not None
                or chunk.x_groq is not None
            ):
                self._unusual(event, out)
                continue
            if self.model is None and chunk.model:
                self.model = chunk.model
            if reasoning := delta.reasoning or delta.reasoning_content:
                out.append(ReasoningDelta(reasoning))
            if content := delta.content:
                out.append(TextDelta(content))
        if self._has_halves:
            out = self._first.surrogates.mend(out, is_end=self.done or is_end)
        self._first.has_told = self._first.has_told or says_something(out)
        return out

    # --- the lenient way -------------------------------------------------------------------------------------------

    def _unusual(self, event: SseEvent, out: list[Delta]) -> None:
        data = event.data
        if data.strip() == "[DONE]":
            self.done = True
            self._end(out)
            return
        try:
            chunk = decode_json(data)
            self._has_halves = self._has_halves or has_escaped_halves(data)
        except (ValueError, RecursionError):
            chunk = data
        if isinstance(chunk, list) and chunk and isinstance(chunk[0], dict) and "error" in chunk[0]:
            chunk = chunk[0]
        if not isinstance(chunk, dict):
            if event.event == "error":
                self._error(chunk, out)
            else:
                self.skipped += 1
            return
        if self.model is None:
            self.model = without_halves(text_of(chunk.get("model"))) or None
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            self._choice(choice, out)
        if self._held is not None and all(other.finish for other in self._others.values()):
            self._release(out)
        self._usage(chunk, out)
        if _is_error(event, chunk):
            self._error(chunk, out)
        elif "choices" not in chunk and "usage" not in chunk:
            self.skipped += 1

    def _choice(self, choice: object, out: list[Delta]) -> None:
        if not isinstance(choice, dict):
            self.skipped += 1
            return
        index = whole_number(choice.get("index") or 0)
        if index is None or index < 0:
            self.skipped += 1
        elif index:
            other = self._others.setdefault(index, Answer())
            told: list[Delta] = []
            self.skipped += other.read(choice, told)
            self._tell_other(index, other.surrogates.mend(told, is_end=False) if self._has_halves else told, out)
        else:
            before = self._first.finish
            self.skipped += self._first.read(choice, out)
            if self._first.finish is not before:
                self.finished = True
                self._held = self._first.finish
                out.pop()  # which is that

    def _tell_other(self, index: int, told: list[Delta], out: list[Delta]) -> None:
        out += [ChoiceDelta(index, delta) for delta in told]  # type: ignore[arg-type]

    def _end(self, out: list[Delta]) -> None:
        """Nothing more can come: tell what was kept for later."""
        for index, other in self._others.items():
            self._tell_other(index, other.surrogates.mend([], is_end=True), out)
        self._release(out)

    def _release(self, out: list[Delta]) -> None:
        if self._held is not None:
            out.append(self._held)
            self._held = None

    def _error(self, payload: object, out: list[Delta]) -> None:
        self._release(out)
        out.append(ErrorDelta(error_frame(payload)))

    def _usage(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        usage = chunk.get("usage")
        if usage is None and isinstance(groq := chunk.get("x_groq"), dict):
            usage = groq.get("usage")
        if isinstance(usage, dict) and (counts := to_usage(usage, "prompt", "completion")):
            out.append(UsageDelta(counts))


def _is_error(event: SseEvent, chunk: dict[str, Any]) -> bool:
    if chunk.get("error") or event.event == "error":
        return True
    if chunk.get("object") == "error":  # vLLM before 2025
        return True
    return "choices" not in chunk and bool(chunk.get("message") or chunk.get("detail") or chunk.get("errors"))
