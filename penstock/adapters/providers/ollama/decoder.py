"""The lines of Ollama's chat API as deltas."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.adapters.formats.ndjson import NdjsonDecoder
from penstock.adapters.providers.ollama.extras import THINKING, metadata_of, picture_of
from penstock.adapters.providers.shared.aborts import abort_error
from penstock.adapters.providers.shared.decoder import BodyDecoder
from penstock.adapters.providers.shared.errors import error_frame
from penstock.adapters.providers.shared.json_values import count_of, decode_json, json_text, text_of
from penstock.adapters.providers.shared.logprobs import token_logprobs
from penstock.adapters.providers.shared.surrogates import has_escaped_surrogates, replace_surrogates
from penstock.config.options import Raw
from penstock.events import FinishReason, Logprobs, Usage
from penstock.ports import (
    BlockDelta,
    Delta,
    ErrorDelta,
    EventDelta,
    FinishDelta,
    MetadataDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)

__all__ = ["OllamaDecoder"]


class _WireMessage(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[Any] | None = None
    images: Any = None


class _WireLine(msgspec.Struct, gc=False):
    """An ordinary line: text or reasoning. Any other line is decoded again by the lenient path."""

    message: _WireMessage
    done: bool = False
    model: str = ""
    error: Any = None
    logprobs: Any = None


_decode_typed = msgspec.json.Decoder(_WireLine).decode

_FINISH: dict[str, FinishReason] = {"stop": "stop", "": "stop", "length": "length"}


class OllamaDecoder(BodyDecoder[str]):
    """Implements `Decoder` for ``/api/chat``."""

    def __init__(self, max_event_bytes: int, raw: Raw = "none") -> None:
        super().__init__(NdjsonDecoder(max_event_bytes), raw)
        self._calls = 0
        self._thinking: list[str] = []

    def _source_of(self, part: str) -> tuple[str, str]:
        return "", part

    def _deltas(self, lines: list[str], *, is_end: bool = False) -> list[Delta]:
        out: list[Delta] = []
        for line in lines:
            try:
                wire = _decode_typed(line)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                wire = None
            if (
                wire is None
                or wire.done
                or (message := wire.message).tool_calls
                or message.images
                or wire.logprobs is not None
                or wire.error is not None
            ):
                self._decode_leniently(line, out)
                if self.done:
                    break
                continue
            if self.model is None and wire.model:
                self.model = wire.model
            if thinking := message.thinking:
                self._thinking.append(thinking)
                out.append(ReasoningDelta(thinking))
            if content := message.content:
                out.append(TextDelta(content))
        if self._has_surrogates:
            out = self._surrogates.join(out, is_end=self.done or is_end)
        return out

    # --- the lenient path ------------------------------------------------------------------------------------------

    def _decode_leniently(self, text: str, out: list[Delta]) -> None:
        try:
            line = decode_json(text)
            self._has_surrogates = self._has_surrogates or has_escaped_surrogates(text)
        except (ValueError, RecursionError):
            line = text
        if not isinstance(line, dict):
            self._skip("", line, out)
            return
        if line.get("error"):
            out.append(ErrorDelta(error_frame(line)))
            return
        if self.model is None:
            self.model = replace_surrogates(text_of(line.get("model"))) or None
        message = line.get("message")
        if isinstance(message, dict):
            self._read_message(message, line.get("logprobs"), out)
        elif line.get("done") is not True:
            self._skip("", line, out)
        if line.get("done") is True:
            self._read_end(line, out)

    def _read_message(self, message: dict[str, Any], logprobs: object, out: list[Delta]) -> None:
        if thinking := text_of(message.get("thinking")):
            self._thinking.append(thinking)
            out.append(ReasoningDelta(thinking))
        if content := text_of(message.get("content")):
            out.append(TextDelta(content))
        if logprobs is not None:
            tokens = token_logprobs(logprobs, lambda kind, payload: self._skip(kind, payload, out))
            if tokens:
                out.append(EventDelta(Logprobs(tokens=tokens)))
        self._read_pictures(message.get("images"), out)
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            fragment = _whole_call(call, self._calls)
            if fragment is None:
                self._skip("tool_calls", call, out)
            else:
                self._calls += 1
                out.append(fragment)

    def _read_pictures(self, images: object, out: list[Delta]) -> None:
        for image in images if isinstance(images, list) else () if images is None else (images,):
            picture = picture_of(image)
            if picture is None:
                self._skip("images", image, out)
            else:
                out.append(EventDelta(picture))

    def _read_end(self, line: dict[str, Any], out: list[Delta]) -> None:
        """Read the last line: the finish reason, which older servers do not send, the counts and durations.

        The model needs its thoughts to go on after its calls, so they go back with the results.
        """
        self.finished = self.done = True
        if self._calls and self._thinking:
            thinking = replace_surrogates("".join(self._thinking))
            out.append(BlockDelta({"type": THINKING, "thinking": thinking}))
        if metadata := metadata_of(line):
            out.append(MetadataDelta(metadata))
        raw = replace_surrogates(text_of(line.get("done_reason")))
        reason = _FINISH.get(raw, "other")
        if reason == "stop" and self._calls:
            reason = "tool_calls"  # Ollama has no reason of its own for calls
        error = abort_error(raw)
        out.append(FinishDelta(reason, raw) if error is None else ErrorDelta(error))
        counts = Usage(
            input_tokens=count_of(line.get("prompt_eval_count")),
            output_tokens=count_of(line.get("eval_count")),
        )
        if counts != Usage():
            out.append(UsageDelta(counts))


def _whole_call(call: object, number: int) -> ToolCallFragment | None:
    """Read a call, which always comes whole, and number it: in older versions Ollama's index is 0 for all calls.

    See https://github.com/ollama/ollama/issues/15457 and https://github.com/ollama/ollama/issues/7881.
    """
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        return None
    arguments = function.get("arguments")
    try:
        text = replace_surrogates(arguments) if isinstance(arguments, str) else json_text(arguments or {})
    except RecursionError:  # nested just deeply enough to be parsed but not encoded again
        return None
    name = replace_surrogates(text_of(function.get("name")))
    call_id = replace_surrogates(text_of(call.get("id")))
    return ToolCallFragment(index=number, id=call_id or None, name=name or None, arguments=text) if name else None
