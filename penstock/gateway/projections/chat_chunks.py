"""The bytes of chat completion chunks. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.gateway.answers.chat import completion_id
from penstock.gateway.projections.frames import Opening, encode

__all__ = ["Chunks"]

_MARK: Final = b'{"@":0}'


class Chunks:
    """Makes the chunks of one stream: all have its id, its time and one model.

    A piece of text costs one encoding of the text: what surrounds it is made once.
    """

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        request = opening.request.get("stream_options")
        self.tells_usage = isinstance(request, Mapping) and request.get("include_usage") is True
        self._ids = f"{opening.epoch}-".encode() if opening.variant.get("events") == "numbered" else None
        self._model = opening.model
        self._prepare()

    def _prepare(self) -> None:
        head, self._tail = self.choice({"@": 0}).split(_MARK)
        self._fields: dict[str, bytes] = {}
        self._head = b"data: " + head
        self._tail += b"\n\n"

    def name_model(self, model: str | None) -> None:
        """Note the model, if the request did not name one. Only before the first chunk."""
        if model and not self._model:
            self._model = model
            self._prepare()

    def numbered(self, seq: int, event: bytes) -> bytes:
        """An event with its line ``id:``, if the reader wants it; it goes to the last event of each number."""
        return event if self._ids is None else b"id: %b%d\n%b" % (self._ids, seq, event)

    def event(self, data: bytes) -> bytes:
        """A server-sent event without an id."""
        return b"data: %b\n\n" % data

    def text(self, field: str, text: str) -> bytes:
        """A chunk with one field in its delta, which is text."""
        head = self._fields.get(field)
        if head is None:
            head = self._fields[field] = b"%b{%b:" % (self._head, encode(field))
        return b"%b%b}%b" % (head, encode(text), self._tail)

    def arguments(self, number: int, text: str, *, is_custom: bool) -> bytes:
        """A chunk with a piece of a call's arguments."""
        kind = b'"custom":{"input":' if is_custom else b'"function":{"arguments":'
        return b'%b{"tool_calls":[{"index":%d,%b%b}}]}%b' % (self._head, number, kind, encode(text), self._tail)

    def choice(
        self,
        delta: Mapping[str, Any],
        *,
        index: int = 0,
        logprobs: Mapping[str, Any] | None = None,
        finish_reason: str | None = None,
        choice: Mapping[str, Any] | None = None,
        chunk: Mapping[str, Any] | None = None,
    ) -> bytes:
        """The JSON of a chunk with one choice. ``choice`` and ``chunk``: further fields of these."""
        body = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason, **(choice or {})}
        return encode(self._envelope([body], chunk) | ({"usage": None} if self.tells_usage else {}))

    def usage(self, usage: Mapping[str, Any], chunk: Mapping[str, Any]) -> bytes:
        """The JSON of the last chunk, which has no choice."""
        return encode(self._envelope([], chunk) | {"usage": usage})

    def _envelope(self, choices: list[Any], chunk: Mapping[str, Any] | None) -> dict[str, Any]:
        return {
            "id": completion_id(self._opening),
            "object": "chat.completion.chunk",
            "created": self._opening.created,
            "model": self._model,
            **(chunk or {}),
            "choices": choices,
        }
