"""OpenAI's Responses API, and the servers that speak it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from penstock.adapters.providers.api_errors import error_answer, error_frame
from penstock.adapters.providers.endpoint import OPENAI_URL, Endpoint
from penstock.adapters.providers.pieces import text_of, to_usage
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

__all__ = ["OpenAiResponses", "ResponsesDecoder"]


class OpenAiResponses:
    """Implements `Provider` for ``POST {base_url}/responses``; ``ChatCall.input`` is the API's ``input``.

    Without a key no ``Authorization`` is sent, as local servers like it; OpenAI's own URL then refuses in `request`.
    """

    name = "openai_responses"

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
        return f"OpenAiResponses({self._endpoint.base_url})"

    def request(self, call: ChatCall) -> ProviderRequest:
        """Build the request.

        Raises:
            OptionError: there is no key for OpenAI's own URL, or a parameter is not allowed or cannot be JSON.
        """
        for name in ("model", "input"):
            if name in call.parameters:
                raise OptionError(name, type(call.parameters[name]), "given once, not as a parameter too")
        body = {"model": call.model, "input": call.input, "stream": True, **call.parameters}
        if body["stream"] is not True:
            raise OptionError("stream", body["stream"], "True")
        return self._endpoint.request("responses", body)

    def decoder(self, options: RequestOptions) -> ResponsesDecoder:
        """A fresh decoder for one response."""
        return ResponsesDecoder(options.max_event_bytes)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Map an HTTP error answer to a typed error."""
        return error_answer(status, headers, body)


class _Wire(msgspec.Struct, gc=False):
    """Every event in one: what any of the types we read says."""

    type: str
    delta: Any = None
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    text: Any = None
    refusal: Any = None
    arguments: Any = None
    input: Any = None
    item: Any = None
    response: Any = None


_decode_typed = msgspec.json.Decoder(_Wire).decode
_decode_any = msgspec.json.Decoder().decode

_CALL_ITEMS = {"function_call": "arguments", "custom_tool_call": "input"}

_TOLD_OTHERWISE = frozenset(
    {
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.content_part.added",
        "response.content_part.done",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_part.done",
        "response.output_text.annotation.added",
    }
)
"""Understood, but they say nothing that a delta could carry or that another event does not say."""


class ResponsesDecoder:
    """Implements `Decoder` for Responses events.

    Output is told apart by ``output_index``, never by item id: GitHub Copilot gives the same item a new id in every
    event. What comes only whole, in an event's ``.done`` (LM Studio's arguments), is told then.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self.skipped = 0
        self.finished = False
        self.done = False
        self.model: str | None = None
        self._sse = SseDecoder(max_event_bytes)
        self._comments = 0
        self._called = False
        self._refused = False
        self._failed = False
        self._told: set[tuple[type, int | None, int | None]] = set()
        self._spoken: set[int | None] = set()  # by output index: Bedrock counts content differently in the whole item
        self._handlers: dict[str, Callable[[_Wire, list[Delta]], None]] = {
            "response.output_text.delta": self._text,
            "response.output_text.done": self._whole_text,
            "response.refusal.delta": self._refusal,
            "response.refusal.done": self._whole_refusal,
            "response.reasoning_text.delta": self._reasoning,
            "response.reasoning_text.done": self._whole_reasoning,
            "response.reasoning_summary_text.delta": self._reasoning,
            "response.reasoning_summary_text.done": self._whole_reasoning,
            "response.function_call_arguments.delta": self._arguments,
            "response.function_call_arguments.done": self._whole_arguments,
            "response.custom_tool_call_input.delta": self._arguments,
            "response.custom_tool_call_input.done": self._whole_arguments,
            "response.output_item.added": self._item_added,
            "response.output_item.done": self._item_done,
            "response.completed": self._completed,
            "response.incomplete": self._incomplete,
            "response.failed": self._response_failed,
        }

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
        return self._deltas(self._sse.close())

    def _deltas(self, events: list[SseEvent]) -> list[Delta]:
        out: list[Delta] = []
        if self._sse.comments != self._comments:
            self._comments = self._sse.comments
            out.append(KeepAlive())
        for event in events:
            try:
                wire = _decode_typed(event.data)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                self._unusual(event, out)
            else:
                handler = self._handlers.get(wire.type)
                if handler is not None:
                    handler(wire, out)
                else:
                    self._other(wire, event, out)
            if self.done:
                break
        return out

    def _other(self, wire: _Wire, event: SseEvent, out: list[Delta]) -> None:
        if wire.type == "error" or event.event == "error":
            self._unusual(event, out)
        elif wire.type not in _TOLD_OTHERWISE:
            self.skipped += 1
        elif isinstance(wire.response, dict):
            self._name(wire.response)

    def _unusual(self, event: SseEvent, out: list[Delta]) -> None:
        """Read what is no typed event: the end marker of some servers, errors of any shape, or nothing known."""
        if event.data.strip() == "[DONE]":
            self.done = True
            return
        try:
            payload = _decode_any(event.data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            payload = event.data
        is_object = isinstance(payload, dict)
        if event.event == "error" or (is_object and (payload.get("error") or payload.get("type") == "error")):
            if is_object and not payload.get("error"):
                payload = {key: value for key, value in payload.items() if key != "type"}
            self._fail(payload, out)
        else:
            self.skipped += 1

    # --- text ------------------------------------------------------------------------------------------------------

    def _text(self, wire: _Wire, out: list[Delta]) -> None:
        if text := text_of(wire.delta):
            self._told.add((TextDelta, wire.output_index, wire.content_index))
            self._spoken.add(wire.output_index)
            out.append(TextDelta(text))

    def _whole_text(self, wire: _Wire, out: list[Delta]) -> None:
        if (TextDelta, wire.output_index, wire.content_index) not in self._told:
            wire.delta = wire.text
            self._text(wire, out)

    def _refusal(self, wire: _Wire, out: list[Delta]) -> None:
        if text := text_of(wire.delta):
            self._refused = True
            self._told.add((RefusalDelta, wire.output_index, wire.content_index))
            self._spoken.add(wire.output_index)
            out.append(RefusalDelta(text))

    def _whole_refusal(self, wire: _Wire, out: list[Delta]) -> None:
        if (RefusalDelta, wire.output_index, wire.content_index) not in self._told:
            wire.delta = wire.refusal
            self._refusal(wire, out)

    def _reasoning(self, wire: _Wire, out: list[Delta]) -> None:
        if text := text_of(wire.delta):
            part = wire.summary_index if wire.content_index is None else wire.content_index
            self._told.add((ReasoningDelta, wire.output_index, part))
            out.append(ReasoningDelta(text))

    def _whole_reasoning(self, wire: _Wire, out: list[Delta]) -> None:
        part = wire.summary_index if wire.content_index is None else wire.content_index
        if (ReasoningDelta, wire.output_index, part) not in self._told:
            wire.delta = wire.text
            self._reasoning(wire, out)

    # --- calls: told by item (id, name) and by arguments -------------------------------------------------------------

    def _item_added(self, wire: _Wire, out: list[Delta]) -> None:
        item = wire.item if isinstance(wire.item, dict) else {}
        field = _CALL_ITEMS.get(text_of(item.get("type")))
        if field is None:
            return
        self._called = True
        arguments = text_of(item.get(field))
        if arguments:
            self._told.add((ToolCallFragment, wire.output_index, None))
        self._told.add((ToolCallFragment, wire.output_index, -1))
        call_id = text_of(item.get("call_id")) or text_of(item.get("id")) or None
        out.append(ToolCallFragment(wire.output_index, call_id, text_of(item.get("name")) or None, arguments))

    def _item_done(self, wire: _Wire, out: list[Delta]) -> None:
        item = wire.item if isinstance(wire.item, dict) else {}
        field = _CALL_ITEMS.get(text_of(item.get("type")))
        if field is not None and (ToolCallFragment, wire.output_index, -1) not in self._told:
            self._item_added(wire, out)
        elif field is not None:
            wire.arguments = item.get(field)
            self._whole_arguments(wire, out)
        elif (
            item.get("type") == "message"
            and isinstance(item.get("content"), list)
            and wire.output_index not in self._spoken
        ):
            for index, part in enumerate(item["content"]):
                if isinstance(part, dict):
                    wire.content_index, wire.text, wire.refusal = index, part.get("text"), part.get("refusal")
                    self._whole_text(wire, out)
                    self._whole_refusal(wire, out)

    def _arguments(self, wire: _Wire, out: list[Delta]) -> None:
        if text := text_of(wire.delta):
            self._called = True
            self._told.add((ToolCallFragment, wire.output_index, None))
            out.append(ToolCallFragment(wire.output_index, None, None, text))

    def _whole_arguments(self, wire: _Wire, out: list[Delta]) -> None:
        if (ToolCallFragment, wire.output_index, None) not in self._told:
            wire.delta = wire.arguments if wire.arguments is not None else wire.input
            self._arguments(wire, out)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _completed(self, wire: _Wire, out: list[Delta]) -> None:
        self._response(wire, out)
        reason: FinishReason = "tool_calls" if self._called else "refusal" if self._refused else "stop"
        self._finish(reason, "completed", out)

    def _incomplete(self, wire: _Wire, out: list[Delta]) -> None:
        response = self._response(wire, out)
        details = response.get("incomplete_details")
        raw = text_of(details.get("reason")) if isinstance(details, dict) else ""
        reasons: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
        self._finish(reasons.get(raw, "other"), raw or "incomplete", out)

    def _response_failed(self, wire: _Wire, out: list[Delta]) -> None:
        response = self._response(wire, out)
        self._fail({"error": response.get("error") or {}}, out)
        self.done = True

    def _finish(self, reason: FinishReason, raw: str, out: list[Delta]) -> None:
        out.append(FinishDelta(reason, raw))
        self.finished = True
        self.done = True

    def _fail(self, payload: object, out: list[Delta]) -> None:
        """Tell an error once: ``error`` is followed by ``response.failed`` with the same in it."""
        if not self._failed:
            self._failed = True
            out.append(ErrorDelta(error_frame(payload)))

    def _response(self, wire: _Wire, out: list[Delta]) -> dict[str, Any]:
        response: dict[str, Any] = wire.response if isinstance(wire.response, dict) else {}
        self._name(response)
        usage = response.get("usage")
        if isinstance(usage, dict) and (counts := to_usage(usage, "input", "output")):
            out.append(UsageDelta(counts))
        return response

    def _name(self, response: dict[str, Any]) -> None:
        if self.model is None:
            self.model = text_of(response.get("model")) or None
