"""Chat completion chunks, from OpenAI and every compatible server, as deltas."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.adapters.formats.sse import SseEvent
from penstock.adapters.providers.openai.chat_choice import ChoiceReader, has_content, has_extras
from penstock.adapters.providers.openai.chat_extras import ChatExtras
from penstock.adapters.providers.shared.aborts import abort_error
from penstock.adapters.providers.shared.decoder import EventDecoder
from penstock.adapters.providers.shared.errors import error_frame
from penstock.adapters.providers.shared.json_values import decode_json, plain_json, text_of, to_usage, whole_number
from penstock.adapters.providers.shared.surrogates import has_escaped_surrogates, replace_surrogates
from penstock.config.options import Raw
from penstock.errors import ApiError
from penstock.events import ProviderEvent
from penstock.ports import (
    ChoiceDelta,
    Delta,
    ErrorDelta,
    EventDelta,
    FinishDelta,
    ReasoningDelta,
    TextDelta,
    UsageDelta,
)

__all__ = ["ChatDecoder"]


# --- the fast path: an ordinary chunk, typed -------------------------------------------------------------------------
# One choice with text or reasoning and nothing else. Any other chunk is decoded again by the lenient path below, and so
# is the first one with a choice, for what chunks repeat: model, id, service tier. Perplexity repeats its sources too;
# they are read from the first chunk, from those with usage, and from the last one.


class _WireDelta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None
    annotations: Any = None
    audio: Any = None
    images: Any = None
    executed_tools: Any = None


class _WireChoice(msgspec.Struct, gc=False):
    delta: _WireDelta
    index: int = 0
    finish_reason: str | None = None
    logprobs: Any = None


class _WireChunk(msgspec.Struct, gc=False):
    choices: tuple[_WireChoice]
    usage: Any = None
    error: Any = None
    x_groq: Any = None


_decode_typed = msgspec.json.Decoder(_WireChunk).decode


class _Notes(list[tuple[str, object]]):
    """What is not understood. The parts of a decoder have it, and it does not know the decoder."""

    def __call__(self, kind: str, payload: object) -> None:
        self.append((kind, payload))


class ChatDecoder(EventDecoder):
    """Implements `Decoder` for chat completion chunks.

    Choice 0 is the answer; the others (``n`` > 1) become `ChoiceDelta`. The answer's finish is held back until all
    choices that have begun are finished too, or nothing more can come, because readers stop when they see it.
    """

    def __init__(self, max_event_bytes: int, raw: Raw = "none") -> None:
        super().__init__(max_event_bytes, raw)
        self._note = _Notes()  # of the present event
        self._extras = ChatExtras(self._note)
        self._first = ChoiceReader(self._note, self._extras)
        self._others: dict[int, ChoiceReader] = {}
        self._abort: ApiError | None = None  # the server did not finish the answer
        self._is_plain = False  # the first chunk has been read, and no reasoning entry is open
        self._held_finish: FinishDelta | None = None  # the answer's, until the other choices are finished

    def close(self) -> list[Delta]:
        """Decode the last event of a body that has ended, if it lacks only its blank line, and end the answer."""
        out = super().close()
        self._end(out)
        return out

    def _deltas(self, events: list[SseEvent], *, is_end: bool = False) -> list[Delta]:
        out = self._keep_alives()
        for event in events:
            data = event.data
            try:
                chunk = _decode_typed(data)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                self._decode_leniently(event, out)
                if self.done:
                    break
                continue
            choice = chunk.choices[0]
            delta = choice.delta
            if (
                not self._is_plain
                or choice.finish_reason is not None
                or choice.index
                or delta.tool_calls
                or delta.refusal
                or delta.reasoning_details
                or delta.function_call is not None
                or chunk.usage is not None
                or chunk.error is not None
                or chunk.x_groq is not None
                or choice.logprobs is not None
                or delta.annotations is not None
                or delta.audio is not None
                or delta.images is not None
                or delta.executed_tools is not None
            ):
                self._decode_leniently(event, out)
                continue
            if reasoning := delta.reasoning or delta.reasoning_content:
                out.append(ReasoningDelta(reasoning))
            if content := delta.content:
                out.append(TextDelta(content))
        if self._has_surrogates:
            out = self._first.surrogates.join(out, is_end=self.done or is_end)
        self._first.has_content = self._first.has_content or has_content(out)
        return out

    # --- the lenient path ------------------------------------------------------------------------------------------

    def _decode_leniently(self, event: SseEvent, out: list[Delta]) -> None:
        self._read_event(event, out)
        self._tell_unknown(out)

    def _tell_unknown(self, out: list[Delta]) -> None:
        if self._note:
            for kind, payload in self._note:
                self._skip(kind, payload, out)
            self._note.clear()

    def _read_event(self, event: SseEvent, out: list[Delta]) -> None:
        data = event.data
        if data.strip() == "[DONE]":
            self.done = True
            self._end(out)
            return
        try:
            chunk = decode_json(data)
            self._has_surrogates = self._has_surrogates or has_escaped_surrogates(data)
        except (ValueError, RecursionError):
            chunk = data
        if isinstance(chunk, list) and chunk and isinstance(chunk[0], dict) and "error" in chunk[0]:
            chunk = chunk[0]
        if not isinstance(chunk, dict):
            if event.event == "error":
                self._read_error(chunk, out)
            else:
                self._note(self._source_of(event)[0], chunk)
            return
        if self.model is None:
            self.model = replace_surrogates(text_of(chunk.get("model"))) or None
        choices = chunk.get("choices")
        choices = choices if isinstance(choices, list) else ()
        for choice in choices:
            self._read_choice(choice, out)
        self._extras.read_chunk(chunk, out)
        self._tell_unknown(out)  # before the finish
        self._is_plain = (self._is_plain or bool(choices)) and not self._extras.reasoning.is_open
        if self._held_finish is not None and all(other.finish for other in self._others.values()):
            self._release_finish(out)
        self._read_usage(chunk, out)
        if _is_error(event, chunk):
            self._read_error(chunk, out)
        elif self._abort is not None:
            out.append(ErrorDelta(self._abort))
            self._abort = None
        elif "choices" not in chunk and "usage" not in chunk:
            self._note(text_of(chunk.get("object")) or text_of(chunk.get("type")), chunk)

    def _read_choice(self, choice: object, out: list[Delta]) -> None:
        if not isinstance(choice, dict):
            self._note("choice", choice)
            return
        index = whole_number(choice.get("index") or 0)
        if index is None or index < 0:
            self._note("choice", choice)
        elif index:
            other = self._others.setdefault(index, ChoiceReader(self._note))
            deltas: list[Delta] = []
            other.read(choice, deltas)
            _append_choice(index, other.surrogates.join(deltas, is_end=False) if self._has_surrogates else deltas, out)
            if self._raw == "unknown" and has_extras(choice):
                out.append(EventDelta(ProviderEvent(type="choice", payload=plain_json(choice))))
        else:
            before = self._first.finish
            self._first.read(choice, out)
            if self._first.finish is not before:
                self.finished = True
                finish = self._first.finish
                assert finish is not None
                out.pop()  # the finish, which `read` appends last
                self._abort = abort_error(finish.raw) if before is None else None
                if self._abort is None:
                    self._held_finish = finish

    def _end(self, out: list[Delta]) -> None:
        """Append what was held back, since nothing more can come."""
        for index, other in self._others.items():
            _append_choice(index, other.surrogates.join([], is_end=True), out)
        if self.done or self.finished:
            self._extras.close(out)
        self._release_finish(out)

    def _release_finish(self, out: list[Delta]) -> None:
        if self._held_finish is not None:
            out.append(self._held_finish)
            self._held_finish = None

    def _read_error(self, payload: object, out: list[Delta]) -> None:
        self._release_finish(out)
        out.append(ErrorDelta(error_frame(payload)))

    def _read_usage(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        usage = chunk.get("usage")
        if usage is None and isinstance(groq := chunk.get("x_groq"), dict):
            usage = groq.get("usage")
        if isinstance(usage, dict) and (counts := to_usage(usage, "prompt", "completion", chunk.get("service_tier"))):
            out.append(UsageDelta(counts))


def _append_choice(index: int, deltas: list[Delta], out: list[Delta]) -> None:
    out += [ChoiceDelta(index, delta) for delta in deltas]  # type: ignore[arg-type]


def _is_error(event: SseEvent, chunk: dict[str, Any]) -> bool:
    if chunk.get("error") or event.event == "error":
        return True
    if chunk.get("object") == "error":  # vLLM before 2025
        return True
    return "choices" not in chunk and bool(chunk.get("message") or chunk.get("detail") or chunk.get("errors"))
