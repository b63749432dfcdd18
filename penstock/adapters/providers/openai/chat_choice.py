"""What one choice of a chat completion says, chunk after chunk."""

from __future__ import annotations

from typing import Any

from penstock.adapters.providers.shared.json_values import Surrogates, json_text, text_of, whole_number, without_halves
from penstock.events import FinishReason
from penstock.ports import Delta, FinishDelta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallFragment

__all__ = ["Answer", "says_something"]

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "sensitive": "content_filter",
    "refusal": "refusal",
}


class Answer:
    """One choice so far. Reads whatever a server may make of a choice; what it cannot read it counts.

    Attributes:
        finish: why it stopped, once it has.
        has_told: text, reasoning, refusal or a call has come.
        surrogates: puts the halves of its characters together.
    """

    def __init__(self) -> None:
        self.finish: FinishDelta | None = None
        self.has_told = False
        self.surrogates = Surrogates()
        self._called = False

    def read(self, choice: dict[str, Any], out: list[Delta]) -> int:
        """Append what a chunk's choice says to ``out``, a finish last; returns how much of it was not understood."""
        skipped = 0
        delta = choice.get("delta")
        if not isinstance(delta, dict) and not self.has_told and not says_something(out):
            delta = choice.get("message")  # a whole answer, of a server that does not stream
        if isinstance(delta, dict):
            if reasoning := _reasoning(delta):
                out.append(ReasoningDelta(reasoning))
            _content(delta.get("content"), out)
            if refusal := text_of(delta.get("refusal")):
                out.append(RefusalDelta(refusal))
            skipped = self._tool_calls(delta, out)
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self._finished(reason, out)
        self.has_told = self.has_told or says_something(out)
        return skipped

    def _tool_calls(self, delta: dict[str, Any], out: list[Delta]) -> int:
        calls = delta.get("tool_calls")
        calls = calls if isinstance(calls, list) else []
        fragments = [fragment for call in calls if isinstance(call, dict) and (fragment := _fragment(call))]
        skipped = len(calls) - len(fragments)
        legacy = delta.get("function_call")
        if isinstance(legacy, dict) and (fragment := _fragment({"function": legacy})):
            fragments.append(fragment)
        self._called = self._called or bool(fragments)
        out += fragments
        return skipped

    def _finished(self, raw: str, out: list[Delta]) -> None:
        """Tell a finish reason; a later one counts unless it would make less of a tool call (Gemini: then "stop")."""
        raw = without_halves(raw)
        reason = _FINISH.get(raw.lower(), "other")
        if reason == "stop" and self._called:
            reason = "tool_calls"
        before = self.finish
        if before is not None and (before.raw == raw or before.reason == "tool_calls"):
            return
        self.finish = FinishDelta(reason, raw)
        out.append(self.finish)


def says_something(deltas: list[Delta]) -> bool:
    """Whether there is anything of an answer among them."""
    return any(type(each) in (TextDelta, ReasoningDelta, RefusalDelta, ToolCallFragment) for each in deltas)


def _reasoning(delta: dict[str, Any]) -> str:
    """The first of the three names that says something: OpenRouter repeats one piece under two of them."""
    for name in ("reasoning", "reasoning_content"):
        if text := text_of(delta.get(name)):
            return text
    details = delta.get("reasoning_details")
    if not isinstance(details, list):
        return ""
    parts = [part for part in details if isinstance(part, dict)]
    return "".join(text_of(part.get("text")) or text_of(part.get("summary")) for part in parts)


def _content(content: object, out: list[Delta]) -> None:
    """Tell text, or a list of text and thinking parts (Mistral), in their order."""
    if isinstance(content, str):
        if content:
            out.append(TextDelta(content))
        return
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            _content(part, out)
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
    """What one fragment says: the function's or the custom tool's; None where that is nothing."""
    function = call.get("function")
    if not isinstance(function, dict):
        function = call.get("custom")
    if not isinstance(function, dict):
        function = {}
    arguments = function.get("arguments", function.get("input"))
    if isinstance(arguments, (dict, list)):  # whole and already parsed, as Ollama's own API sends them
        try:
            arguments = json_text(arguments)
        except RecursionError:  # nested just so deep that it can be read and not be written again
            return None
    fragment = ToolCallFragment(
        index=whole_number(call.get("index")),
        id=without_halves(text_of(call.get("id"))) or None,
        name=without_halves(text_of(function.get("name"))) or None,
        arguments=text_of(arguments),
    )
    return fragment if fragment.id or fragment.name or fragment.arguments else None
