"""Answers with parts in the format of Ollama's own API.

The provider's own tools, sound, citations, signatures and calls that are no functions have no form here and are left
out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.adapters.loopback.answer import Answer
from penstock.adapters.loopback.encoder import (
    AnswerContext,
    PartEvents,
    Segment,
    needs_parts,
    openai_logprobs,
    part_segments,
    with_logprobs,
)
from penstock.adapters.loopback.ollama_encoder import OllamaEncoder, encode_json_line
from penstock.adapters.loopback.parts import Block, Declined, Part, Picture, RawEvent, Said, Thought
from penstock.adapters.loopback.pieces import ScriptedCall

__all__ = ["OllamaPartsEncoder", "make_ollama_encoder"]

_Events = Iterator[tuple[bool, bytes]]
_UPSTREAM = {"upstream_provider": "remote_host", "upstream_model": "remote_model"}


class OllamaPartsEncoder(OllamaEncoder):
    """Encodes one chat answer that has parts, metadata or probabilities. Implements `AnswerEncoder`.

    What is sent is collected as the message of the whole answer.
    """

    def __init__(self, answer: Answer, context: AnswerContext) -> None:
        super().__init__(answer, context)
        self._message: dict[str, Any] = {"role": "assistant", "content": ""}
        self._logprobs: list[dict[str, Any]] = []

    def body(self) -> _Events:
        """Yield the lines of all parts, without pauses."""
        for segment in self.segments():
            yield from segment.events

    def segments(self) -> Iterator[Segment]:
        """Yield the lines between the pauses."""
        return part_segments(self._answer, self._part, lambda: iter(()))

    def whole(self) -> bytes:
        """Return the whole answer as one document."""
        for _ in self.body():  # fills the message
            pass
        likely = {"logprobs": self._logprobs} if self._logprobs else {}
        return encode_json_line(self._head | {"message": self._message} | self._done() | likely)

    def _part(self, part: Part) -> PartEvents:
        match part:
            case Said():
                self._message["content"] += part.text
                for piece, token in with_logprobs(part, self._answer, self._context):
                    if token is None:
                        yield True, self.text(piece)
                    else:
                        likely = openai_logprobs([token])
                        self._logprobs += likely
                        yield True, self._fields({"content": piece}, logprobs=likely)
            case Thought(redacted=None):
                if part.text:
                    self._message["thinking"] = self._message.get("thinking", "") + part.text
                for piece in part.pieces:
                    yield True, self._fields({"thinking": piece})
            case Declined():
                self._message["content"] += part.text
                for piece in part.pieces:
                    yield True, self.text(piece)
            case Picture() if part.encoded:
                self._message.setdefault("images", []).append(part.encoded)
                yield True, self._fields({"images": [part.encoded]})
            case ScriptedCall(type="function"):
                calls = self._message.setdefault("tool_calls", [])
                calls.append(self._call(len(calls), part))
                yield True, self._fields({"tool_calls": calls[-1:]})
            case RawEvent():
                yield True, part.encoded + b"\n"
            case Block(dialect="ollama"):
                self._message |= part.data
                yield True, self._fields(part.data)

    def _fields(self, fields: dict[str, Any], **line: Any) -> bytes:
        message = {"role": "assistant", "content": ""} | fields
        return encode_json_line(self._head | {"message": message, "done": False} | line) + b"\n"

    def _done(self) -> dict[str, Any]:
        metadata = self._answer.metadata
        done = super()._done()
        if isinstance(timings := metadata.get("timings"), dict):
            done |= timings
        return done | {field: metadata[name] for name, field in _UPSTREAM.items() if name in metadata}


def make_ollama_encoder(answer: Answer, context: AnswerContext) -> OllamaEncoder:
    """Make the encoder for an answer."""
    return (OllamaPartsEncoder if needs_parts(answer, context) else OllamaEncoder)(answer, context)
