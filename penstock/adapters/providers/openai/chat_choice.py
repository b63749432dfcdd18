"""One choice of a chat completion, read chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.adapters.providers.openai.chat_extras import ChatExtras
from penstock.adapters.providers.shared.json_values import json_text, text_of, whole_number
from penstock.adapters.providers.shared.surrogates import SurrogateJoiner, replace_surrogates
from penstock.events import FinishReason
from penstock.ports import Delta, FinishDelta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallFragment

__all__ = ["ChoiceReader", "has_content", "has_extras"]

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "error_limit": "length",  # Cohere
    "model_context_window_exceeded": "length",  # Z.ai
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "sensitive": "content_filter",
    "error_toxic": "content_filter",  # Cohere
    "refusal": "refusal",
}

_PARTS = ("", "text", "output_text", "thinking", "reasoning", "refusal")
_AFTER_REASONING = ("content", "refusal", "tool_calls", "function_call", "audio", "images")
_EXTRAS = ("annotations", "audio", "images", "executed_tools", "reasoning_details")
_CALLS = (None, "", "function", "custom")
_NULLS = ("", "null", "None")


class ChoiceReader:
    """Reads one choice in every form that servers send.

    Attributes:
        finish: the finish reason, once it has come.
        has_content: whether text, reasoning, a refusal or a call has come.
        surrogates: joins the choice's split surrogate pairs.
    """

    def __init__(self, skip: Callable[[str, object], None], extras: ChatExtras | None = None) -> None:
        """``skip`` gets what is not understood. Without ``extras``, only text, calls and the finish are read."""
        self.finish: FinishDelta | None = None
        self.has_content = False
        self.surrogates = SurrogateJoiner()
        self._skip = skip
        self._extras = extras
        self._has_calls = False

    def read(self, choice: dict[str, Any], out: list[Delta]) -> None:
        """Append the deltas of a chunk's choice to ``out``, its finish last."""
        delta = choice.get("delta")
        if not isinstance(delta, dict) and not self.has_content and not has_content(out):
            delta = choice.get("message")  # a whole answer, from a server that does not stream
        extras = self._extras
        delta = delta if isinstance(delta, dict) else {}
        if reasoning := _reasoning(delta):
            out.append(ReasoningDelta(reasoning))
        if extras is not None:
            extras.reasoning.read(delta.get("reasoning_details"), out)
            if any(delta.get(name) for name in _AFTER_REASONING):
                extras.reasoning.close(out)
        self._read_content(delta.get("content"), out)
        if refusal := text_of(delta.get("refusal")):
            out.append(RefusalDelta(refusal))
        if extras is not None:
            if (logprobs := choice.get("logprobs")) is not None:
                extras.read_logprobs(logprobs, out)
            extras.read_delta(delta, out)
        self._read_tool_calls(delta, out)
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            if extras is not None:
                extras.close(out)
                extras.read_end(choice, out)
            self._read_finish(reason, out)
        self.has_content = self.has_content or has_content(out)

    def _read_content(self, content: object, out: list[Delta]) -> None:
        """Append text, or a list of text and thinking parts (Mistral), in order."""
        if isinstance(content, str):
            if content:
                out.append(TextDelta(content))
            return
        for part in content if isinstance(content, list) else ():
            if isinstance(part, str):
                self._read_content(part, out)
            elif isinstance(part, dict):
                self._read_part(part, out)
            else:
                self._skip("content", part)

    def _read_part(self, part: dict[str, Any], out: list[Delta]) -> None:
        if text := text_of(part.get("text")):
            out.append(TextDelta(text))
        if thinking := _thinking(part.get("thinking")):
            out.append(ReasoningDelta(thinking))
        if refusal := text_of(part.get("refusal")):
            out.append(RefusalDelta(refusal))
        kind = text_of(part.get("type"))
        if kind == "image_url":
            if self._extras is not None:
                self._extras.pictures.read_one(part, out)
        elif kind not in _PARTS and not (text or thinking or refusal):
            self._skip(f"content.{replace_surrogates(kind)}", part)

    def _read_tool_calls(self, delta: dict[str, Any], out: list[Delta]) -> None:
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if not isinstance(call, dict):
                self._skip("tool_calls", call)
                continue
            try:
                fragment = _fragment(call)
            except RecursionError:  # arguments nested just deeply enough to be parsed but not encoded again
                self._skip("tool_calls", call)
                continue
            if fragment is not None:
                self._add_call(call, fragment, out)
            elif call.get("type") not in _CALLS:
                self._skip("tool_calls", call)
        legacy = delta.get("function_call")
        if isinstance(legacy, dict):
            call = {"function": legacy}
            try:
                fragment = _fragment(call)
            except RecursionError:
                self._skip("function_call", legacy)
                return
            if fragment is not None:
                self._add_call(call, fragment, out)

    def _add_call(self, call: dict[str, Any], fragment: ToolCallFragment, out: list[Delta]) -> None:
        self._has_calls = True
        out.append(fragment)
        if self._extras is not None:
            self._extras.read_call(call, fragment, out)

    def _read_finish(self, raw: str, out: list[Delta]) -> None:
        """Append a finish reason. A later one replaces it, but never ``tool_calls`` (Gemini then sends "stop")."""
        raw = replace_surrogates(raw)
        reason = _FINISH.get(raw.lower(), "other")
        if reason == "stop" and self._has_calls:
            reason = "tool_calls"
        before = self.finish
        if before is not None and (before.raw == raw or before.reason == "tool_calls"):
            return
        self.finish = FinishDelta(reason, raw)
        out.append(self.finish)


def has_extras(choice: dict[str, Any]) -> bool:
    """Whether a choice has something that is read of choice 0 only."""
    delta = choice.get("delta")
    said = delta if isinstance(delta, dict) else choice.get("message")
    delta = said if isinstance(said, dict) else {}
    return bool(choice.get("logprobs") or any(delta.get(name) for name in _EXTRAS))


def has_content(deltas: list[Delta]) -> bool:
    """Tell whether any of the deltas is part of the answer itself."""
    return any(type(delta) in (TextDelta, ReasoningDelta, RefusalDelta, ToolCallFragment) for delta in deltas)


def _reasoning(delta: dict[str, Any]) -> str:
    """Return the first non-empty of three fields: OpenRouter sends the same reasoning in two of them."""
    for name in ("reasoning", "reasoning_content"):
        if text := text_of(delta.get(name)):
            return text
    details = delta.get("reasoning_details")
    if not isinstance(details, list):
        return ""
    parts = [part for part in details if isinstance(part, dict)]
    return "".join(text_of(part.get("text")) or text_of(part.get("summary")) for part in parts)


def _thinking(thinking: object) -> str:
    if isinstance(thinking, list):
        return "".join(text_of(part.get("text")) for part in thinking if isinstance(part, dict))
    return text_of(thinking)


def _fragment(call: dict[str, Any]) -> ToolCallFragment | None:
    """Read a fragment of a function call or custom tool call; None if it is empty.

    Raises:
        RecursionError: its arguments are parsed already, and nested too deeply to be encoded again.
    """
    function, is_custom = call.get("function"), call.get("type") == "custom"
    if not isinstance(function, dict) or (is_custom and isinstance(call.get("custom"), dict)):
        function = call.get("custom")
        is_custom = is_custom or isinstance(function, dict)
    if not isinstance(function, dict):
        function = {}
    arguments = function.get("arguments", function.get("input"))
    if isinstance(arguments, (dict, list)):  # already parsed, as Ollama's own API sends them
        arguments = json_text(arguments)
    fragment = ToolCallFragment(
        index=whole_number(call.get("index")),
        id=_said(call.get("id")),
        name=_said(function.get("name")),
        arguments=text_of(arguments),
        signature=_signature(call),
        type="custom" if is_custom else "",
    )
    return fragment if fragment.id or fragment.name or fragment.arguments or fragment.signature else None


def _said(value: object) -> str | None:
    """An id or name; None if it is missing, or a word for that."""
    text = text_of(value)
    return None if text in _NULLS else replace_surrogates(text)


def _signature(call: dict[str, Any]) -> str:
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    return replace_surrogates(text_of(google.get("thought_signature"))) if isinstance(google, dict) else ""
