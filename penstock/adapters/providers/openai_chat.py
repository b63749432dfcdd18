"""OpenAI's chat completions, and everything that calls itself compatible with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.adapters.providers.api_errors import error_answer, error_frame
from penstock.adapters.providers.endpoint import OPENAI_URL, Endpoint
from penstock.adapters.providers.pieces import (
    Surrogates,
    decode_json,
    text_of,
    to_usage,
    whole_number,
    without_halves,
)
from penstock.adapters.sse import SseDecoder, SseEvent
from penstock.config.options import RequestOptions
from penstock.errors import OptionError, ProviderError
from penstock.events import FinishReason
from penstock.ports import (
    ChatCall,
    Delta,
    ErrorDelta,
    FinishDelta,
    KeepAlive,
    ProviderRequest,
    ReasoningDelta,
    RefusalDelta,
    Secret,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)

__all__ = ["ChatDecoder", "OpenAiChat"]


class OpenAiChat:
    """Implements `Provider` for ``POST {base_url}/chat/completions``.

    Without a key no ``Authorization`` is sent, as local servers like it; OpenAI's own URL then refuses in `request`.
    """

    name = "openai_chat"

    def __init__(
        self,
        api_key: Secret | None,
        base_url: str = OPENAI_URL,
        *,
        organization: str | None = None,
        project: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._endpoint = Endpoint(api_key, base_url, organization=organization, project=project, headers=headers)

    def __repr__(self) -> str:
        return f"OpenAiChat({self._endpoint.base_url})"

    def request(self, call: ChatCall) -> ProviderRequest:
        """Build the request. Usage is asked for; the parameter ``stream_options=None`` leaves that out.

        Raises:
            OptionError: there is no key for OpenAI's own URL, or a parameter is not allowed or cannot be JSON.
        """
        for name in ("model", "messages"):
            if name in call.parameters:
                raise OptionError(name, type(call.parameters[name]), "given once, not as a parameter too")
        body: dict[str, Any] = {"model": call.model, "messages": call.input, "stream": True}
        body["stream_options"] = {"include_usage": True}
        body.update(call.parameters)
        if body["stream"] is not True:
            raise OptionError("stream", body["stream"], "True")
        if body["stream_options"] is None:
            del body["stream_options"]
        return self._endpoint.request("chat/completions", body)

    def decoder(self, options: RequestOptions) -> ChatDecoder:
        """A fresh decoder for one response."""
        return ChatDecoder(options.max_event_bytes)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Map an HTTP error answer to a typed error."""
        return error_answer(status, headers, body)


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


class ChatDecoder:
    """Implements `Decoder` for chat completion chunks. Of several choices (``n`` > 1) only index 0 is told."""

    def __init__(self, max_event_bytes: int) -> None:
        self.skipped = 0
        self.finished = False
        self.done = False
        self.model: str | None = None
        self._sse = SseDecoder(max_event_bytes)
        self._comments = 0
        self._called = False
        self._told = False
        self._has_halves = False
        self._surrogates = Surrogates()
        self._finish: FinishDelta | None = None

    def feed(self, chunk: bytes) -> list[Delta]:
        """Decode one chunk into the deltas it completes.

        Raises:
            ProtocolError: an event is longer than the limit.
        """
        if self.done:
            return []
        return self._deltas(self._sse.feed(chunk))

    def close(self) -> list[Delta]:
        """The body has ended: tell what the last event holds, where it lacks only its blank line."""
        if self.done:
            return []
        return self._deltas(self._sse.close(), is_end=True)

    def _deltas(self, events: list[SseEvent], *, is_end: bool = False) -> list[Delta]:
        out: list[Delta] = []
        if self._sse.comments != self._comments:
            self._comments = self._sse.comments
            out.append(KeepAlive())
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
            out = self._surrogates.mend(out, is_end=self.done or is_end)
        self._told = self._told or _says_something(out)
        return out

    # --- the lenient way -------------------------------------------------------------------------------------------

    def _unusual(self, event: SseEvent, out: list[Delta]) -> None:
        data = event.data
        if data.strip() == "[DONE]":
            self.done = True
            return
        try:
            chunk = decode_json(data)
            self._has_halves = self._has_halves or "\\ud" in data.lower()
        except (ValueError, RecursionError):
            chunk = data
        if isinstance(chunk, list) and chunk and isinstance(chunk[0], dict) and "error" in chunk[0]:
            chunk = chunk[0]
        if not isinstance(chunk, dict):
            if event.event == "error":
                out.append(ErrorDelta(error_frame(chunk)))
            else:
                self.skipped += 1
            return
        if self.model is None:
            self.model = without_halves(text_of(chunk.get("model"))) or None
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and not choice.get("index"):
                self._choice(choice, out)
            else:
                self.skipped += 1
        self._usage(chunk, out)
        if _is_error(event, chunk):
            out.append(ErrorDelta(error_frame(chunk)))
        elif "choices" not in chunk and "usage" not in chunk:
            self.skipped += 1

    def _choice(self, choice: dict[str, Any], out: list[Delta]) -> None:
        delta = choice.get("delta")
        if not isinstance(delta, dict) and not self._told and not _says_something(out):
            delta = choice.get("message")  # a whole answer, of a server that does not stream
        if isinstance(delta, dict):
            if reasoning := _reasoning(delta):
                out.append(ReasoningDelta(reasoning))
            _content(delta.get("content"), out)
            if refusal := text_of(delta.get("refusal")):
                out.append(RefusalDelta(refusal))
            self._tool_calls(delta, out)
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self._finished(reason, out)

    def _tool_calls(self, delta: dict[str, Any], out: list[Delta]) -> None:
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            fragment = _fragment(call) if isinstance(call, dict) else None
            if fragment is None:
                self.skipped += 1
            else:
                self._called = True
                out.append(fragment)
        legacy = delta.get("function_call")
        if isinstance(legacy, dict) and (fragment := _fragment({"function": legacy})):
            self._called = True
            out.append(fragment)

    def _finished(self, raw: str, out: list[Delta]) -> None:
        """Tell a finish reason; a later one counts unless it would make less of a tool call (Gemini: then "stop")."""
        self.finished = True
        reason = _FINISH.get(raw.lower(), "other")
        if reason == "stop" and self._called:
            reason = "tool_calls"
        before = self._finish
        if before is not None and (before.raw == raw or before.reason == "tool_calls"):
            return
        self._finish = FinishDelta(reason, raw)
        out.append(self._finish)

    def _usage(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        usage = chunk.get("usage")
        if usage is None and isinstance(groq := chunk.get("x_groq"), dict):
            usage = groq.get("usage")
        if isinstance(usage, dict) and (counts := to_usage(usage, "prompt", "completion")):
            out.append(UsageDelta(counts))


def _says_something(deltas: list[Delta]) -> bool:
    return any(type(each) in (TextDelta, ReasoningDelta, RefusalDelta, ToolCallFragment) for each in deltas)


def _is_error(event: SseEvent, chunk: dict[str, Any]) -> bool:
    if chunk.get("error") or event.event == "error":
        return True
    if chunk.get("object") == "error":  # vLLM before 2025
        return True
    return "choices" not in chunk and bool(chunk.get("message") or chunk.get("detail") or chunk.get("errors"))


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
        arguments = msgspec.json.encode(arguments).decode()
    fragment = ToolCallFragment(
        index=whole_number(call.get("index")),
        id=without_halves(text_of(call.get("id"))) or None,
        name=without_halves(text_of(function.get("name"))) or None,
        arguments=text_of(arguments),
    )
    return fragment if fragment.id or fragment.name or fragment.arguments else None
