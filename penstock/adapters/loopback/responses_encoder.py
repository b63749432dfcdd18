"""Answers in the format of the OpenAI Responses API, streamed and whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from typing import Any

import msgspec

from penstock.adapters.loopback.answer import Answer, ScriptedCall
from penstock.adapters.loopback.encoder import AnswerContext, EventStream, to_usage
from penstock.events import Usage

__all__ = ["ResponsesEncoder", "responses_usage"]

_encode = msgspec.json.Encoder().encode

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesEncoder(EventStream):
    """Encodes one response. Implements `AnswerEncoder`.

    Its output items, if the answer has them: reasoning (with a summary), a message (refusal or text), function calls.
    """

    def __init__(self, answer: Answer, context: AnswerContext) -> None:
        super().__init__(answer)
        self._answer = answer
        self._context = context
        self._sequence = 0
        self._items: list[dict[str, Any]] = []

    @property
    def response_id(self) -> str:
        """The id by which the response can be requested again."""
        return self._id("resp")

    @property
    def last_number(self) -> int:
        """The sequence number of the last event that was encoded."""
        return self._sequence - 1

    def opening(self) -> Iterator[bytes]:
        """Yield ``response.created`` and ``response.in_progress``."""
        for kind in ("response.created", "response.in_progress"):
            yield self._named_event(kind, response=self._response("in_progress"))

    def body(self) -> Iterator[tuple[bool, bytes]]:
        """Yield the output items, each from added to done."""
        answer = self._answer
        if answer.reasoning:
            yield from self._reasoning()
        if answer.refusal or answer.token_count:
            yield from self._message()
        for index, call in enumerate(answer.tool_calls):
            yield from self._call(index, call)

    def closing(self) -> Iterator[bytes]:
        """Yield ``response.completed`` or ``response.incomplete``, with the whole response."""
        status = self._final_status()
        yield self._named_event(f"response.{status}", response=self._final())

    def text(self, text: str) -> bytes:
        """Encode a text delta that is not part of the answer; it repeats the number of the event before it."""
        self._sequence -= 1
        return self._text_delta(self._address(len(self._items), self._id("msg")) | {"content_index": 0}, text)

    def error(self, code: str | int | None, message: str, then_done: bool) -> Iterator[bytes]:
        """Yield an ``error`` event, then ``response.failed`` if ``then_done``.

        The event has the form that the real server sends, with its fields inside ``error``. The documented form has
        them at the top level.
        """
        code = code if code is None else str(code)
        yield self._named_event(
            "error", error={"type": "server_error", "code": code, "message": message, "param": None}
        )
        if then_done:
            failed = self._response("failed") | {"output": self._items, "error": {"code": code, "message": message}}
            yield self._named_event("response.failed", response=failed)

    def whole(self) -> bytes:
        """Return the response object."""
        for _ in self.body():  # fills `_items`
            pass
        return _encode(self._final())

    # --- output items -----------------------------------------------------------------------------------------

    def _reasoning(self) -> Iterator[tuple[bool, bytes]]:
        item: dict[str, Any] = {"id": self._id("rs"), "type": "reasoning", "summary": []}
        yield False, self._added(item)
        at = self._address(len(self._items), item["id"]) | {"summary_index": 0}
        empty, part = ({"type": "summary_text", "text": text} for text in ("", self._answer.reasoning))
        yield False, self._named_event("response.reasoning_summary_part.added", **at, part=empty)
        for piece in self._answer.reasoning_pieces:
            yield True, self._named_event("response.reasoning_summary_text.delta", **at, delta=piece)
        yield False, self._named_event("response.reasoning_summary_text.done", **at, text=part["text"])
        yield False, self._named_event("response.reasoning_summary_part.done", **at, part=part)
        signed = {} if self._answer.signature is None else {"encrypted_content": self._answer.signature}
        yield False, self._done(item | {"summary": [part], **signed})

    def _message(self) -> Iterator[tuple[bool, bytes]]:
        item: dict[str, Any] = {
            "id": self._id("msg"),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        yield False, self._added(item)
        at = self._address(len(self._items), item["id"])
        content: list[dict[str, Any]] = []
        if self._answer.refusal:
            yield from self._refusal(at | {"content_index": 0})
            content.append({"type": "refusal", "refusal": self._answer.refusal})
        if self._answer.token_count:
            text = self._answer.full_text
            yield from self._text(at | {"content_index": len(content)}, text)
            content.append(_text_part(text))
        status = "incomplete" if self._final_status() == "incomplete" else "completed"
        yield False, self._done(item | {"status": status, "content": content})

    def _refusal(self, at: dict[str, Any]) -> Iterator[tuple[bool, bytes]]:
        refusal = self._answer.refusal
        yield False, self._named_event("response.content_part.added", **at, part={"type": "refusal", "refusal": ""})
        for piece in self._answer.refusal_pieces:
            yield True, self._named_event("response.refusal.delta", **at, delta=piece)
        yield False, self._named_event("response.refusal.done", **at, refusal=refusal)
        yield False, self._named_event("response.content_part.done", **at, part={"type": "refusal", "refusal": refusal})

    def _text(self, at: dict[str, Any], text: str) -> Iterator[tuple[bool, bytes]]:
        yield False, self._named_event("response.content_part.added", **at, part=_text_part(""))
        for event in self._text_deltas(at, islice(cycle(self._answer.pieces), self._answer.token_count)):
            yield True, event
        yield False, self._named_event("response.output_text.done", **at, text=text, logprobs=[])
        yield False, self._named_event("response.content_part.done", **at, part=_text_part(text))

    def _call(self, index: int, call: ScriptedCall) -> Iterator[tuple[bool, bytes]]:
        item = {
            "id": self._id(f"fc_{index}"),
            "type": "function_call",
            "status": "in_progress",
            "arguments": "",
            "call_id": call.id or f"call_loopback_{self._context.number}_{index}",
            "name": call.name,
        }
        yield False, self._added(item)
        at = self._address(len(self._items), item["id"])
        for piece in call.fragments:
            yield True, self._named_event("response.function_call_arguments.delta", **at, delta=piece)
        yield (
            False,
            self._named_event("response.function_call_arguments.done", **at, name=call.name, arguments=call.arguments),
        )
        yield False, self._done(item | {"status": "completed", "arguments": call.arguments})

    def _added(self, item: dict[str, Any]) -> bytes:
        return self._named_event("response.output_item.added", output_index=len(self._items), item=item)

    def _done(self, item: dict[str, Any]) -> bytes:
        self._items.append(item)
        return self._named_event("response.output_item.done", output_index=len(self._items) - 1, item=item)

    def _address(self, output_index: int, item_id: str) -> dict[str, Any]:
        return {"item_id": item_id, "output_index": output_index}

    # --- events -----------------------------------------------------------------------------------------------

    def _named_event(self, kind: str, **fields: Any) -> bytes:
        payload = _encode({"type": kind, "sequence_number": self._next_sequence(), **fields})
        return self._event(payload, kind.encode())

    def _text_delta(self, at: dict[str, Any], text: str) -> bytes:
        return self._named_event("response.output_text.delta", **at, delta=text, logprobs=[])

    def _text_deltas(self, at: dict[str, Any], pieces: Iterable[str]) -> Iterator[bytes]:
        """Yield what `_text_delta` returns for each piece; the constant parts of the event are encoded once."""
        template = self._text_delta(at, "@")
        self._sequence -= 1  # that was a template, not an event
        start, rest = template.split(b'"sequence_number":%d,' % self._sequence)
        middle, end = rest.split(b'"@"')
        for piece in pieces:
            yield b'%b"sequence_number":%d,%b%b%b' % (start, self._next_sequence(), middle, _encode(piece), end)

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence - 1

    # --- the response -----------------------------------------------------------------------------------------

    def _id(self, kind: str) -> str:
        return f"{kind}_loopback_{self._context.number}"

    def _final_status(self) -> str:
        return "incomplete" if self._answer.finish in _INCOMPLETE else "completed"

    def _final(self) -> dict[str, Any]:
        final = self._response(self._final_status()) | {"output": self._items}
        if self._answer.finish in _INCOMPLETE:
            final["incomplete_details"] = {"reason": _INCOMPLETE[self._answer.finish]}
        if self._answer.send_usage != "never":
            final["usage"] = responses_usage(to_usage(self._answer, self._context))
        return final

    def _response(self, status: str) -> dict[str, Any]:
        return {
            "id": self._id("resp"),
            "object": "response",
            "created_at": self._context.created,
            "status": status,
            "background": self._context.background,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "model": self._context.model,
            "output": [],
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": None,
        }


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def responses_usage(usage: Usage) -> dict[str, Any]:
    """Return the counts as the Responses API sends them."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
