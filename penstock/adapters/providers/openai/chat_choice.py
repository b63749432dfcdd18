"""One choice of a chat completion, read chunk by chunk."""

from __future__ import annotations

from typing import Any

from penstock.adapters.providers.shared.json_values import json_text, text_of, whole_number
from penstock.adapters.providers.shared.surrogates import SurrogateJoiner, replace_surrogates
from penstock.events import FinishReason
from penstock.ports import Delta, FinishDelta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallFragment

__all__ = ["ChoiceReader", "has_content"]

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


class ChoiceReader:
    """Reads one choice in every form that servers send, and counts what it cannot read.

    Attributes:
        finish: the finish reason, once it has come.
        has_content: whether text, reasoning, a refusal or a call has come.
        surrogates: joins the choice's split surrogate pairs.
    """

    def __init__(self) -> None:
        self.finish: FinishDelta | None = None
        self.has_content = False
        self.surrogates = SurrogateJoiner()
        self._has_calls = False

    def read(self, choice: dict[str, Any], out: list[Delta]) -> int:
        """Append the deltas of a chunk's choice to ``out``, its finish last. Returns how many items were skipped."""
        skipped = 0
        delta = choice.get("delta")
        if not isinstance(delta, dict) and not self.has_content and not has_content(out):
            delta = choice.get("message")  # a whole answer, from a server that does not stream
        if isinstance(delta, dict):
            if reasoning := _reasoning(delta):
                out.append(ReasoningDelta(reasoning))
            _read_content(delta.get("content"), out)
            if refusal := text_of(delta.get("refusal")):
                out.append(RefusalDelta(refusal))
            skipped = self._read_tool_calls(delta, out)
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self._read_finish(reason, out)
        self.has_content = self.has_content or has_content(out)
        return skipped

    def _read_tool_calls(self, delta: dict[str, Any], out: list[Delta]) -> int:
        calls = delta.get("tool_calls")
        calls = calls if isinstance(calls, list) else []
        fragments = [fragment for call in calls if isinstance(call, dict) and (fragment := _fragment(call))]
        skipped = len(calls) - len(fragments)
        legacy = delta.get("function_call")
        if isinstance(legacy, dict) and (fragment := _fragment({"function": legacy})):
            fragments.append(fragment)
        self._has_calls = self._has_calls or bool(fragments)
        out += fragments
        return skipped

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


def _read_content(content: object, out: list[Delta]) -> None:
    """Append text, or a list of text and thinking parts (Mistral), in order."""
    if isinstance(content, str):
        if content:
            out.append(TextDelta(content))
        return
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            _read_content(part, out)
        elif isinstance(part, dict):
            if text := text_of(part.get("text")):
                out.append(TextDelta(text))
            if thinking := _thinking(part.get("thinking")):
                out.append(ReasoningDelta(thinking))
            if refusal := text_of(part.get("refusal")):
                out.append(RefusalDelta(refusal))


def _thinking(thinking: object) -> str:
    if isinstance(thinking, list):
        return "".join(text_of(part.get("text")) for part in thinking if isinstance(part, dict))
    return text_of(thinking)


def _fragment(call: dict[str, Any]) -> ToolCallFragment | None:
    """Read a fragment of a function call or custom tool call; None if it is empty."""
    function = call.get("function")
    if not isinstance(function, dict):
        function = call.get("custom")
    if not isinstance(function, dict):
        function = {}
    arguments = function.get("arguments", function.get("input"))
    if isinstance(arguments, (dict, list)):  # already parsed, as Ollama's own API sends them
        try:
            arguments = json_text(arguments)
        except RecursionError:  # nested just deeply enough to be parsed but not encoded again
            return None
    fragment = ToolCallFragment(
        index=whole_number(call.get("index")),
        id=replace_surrogates(text_of(call.get("id"))) or None,
        name=replace_surrogates(text_of(function.get("name"))) or None,
        arguments=text_of(arguments),
    )
    return fragment if fragment.id or fragment.name or fragment.arguments else None
