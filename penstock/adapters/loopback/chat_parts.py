"""Answers with parts in the format of chat completions.

OpenAI's own form where there is one; otherwise that of a server which has what OpenAI has not: signed reasoning
(``reasoning_details``) and pictures as at OpenRouter, the provider's own tools (``executed_tools``) as at Groq, results
of a search as at Perplexity, signatures of calls as at Gemini.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from penstock.adapters.loopback.answer import Answer
from penstock.adapters.loopback.chat_encoder import ChatEncoder, chat_usage, finish_reason
from penstock.adapters.loopback.encoder import (
    AnswerContext,
    PartEvents,
    Segment,
    encode_event,
    needs_parts,
    openai_logprobs,
    part_segments,
    to_usage,
    with_logprobs,
)
from penstock.adapters.loopback.parts import (
    Block,
    Declined,
    Part,
    Picture,
    Ran,
    RawEvent,
    Said,
    Search,
    ServerTool,
    Sound,
    Source,
    Thought,
)
from penstock.adapters.loopback.pieces import ScriptedCall
from penstock.events import TokenLogprob

__all__ = ["ChatPartsEncoder", "make_chat_encoder"]

_encode = msgspec.json.Encoder().encode

_FIELDS = {
    "response_id": "id",
    "service_tier": "service_tier",
    "system_fingerprint": "system_fingerprint",
    "upstream_provider": "provider",
}
"""Fields of each chunk, by the names of metadata."""
_FORMAT = "anthropic-claude-v1"
"""OpenRouter's name for the form of a signature."""

_Events = Iterator[tuple[bool, bytes]]


class ChatPartsEncoder(ChatEncoder):
    """Encodes one chat completion that has parts, metadata or probabilities. Implements `AnswerEncoder`.

    What is sent is collected as the message of the whole answer.
    """

    def __init__(self, answer: Answer, context: AnswerContext) -> None:
        self._extras: dict[str, Any] = {}  # fields of chunks: results of a search
        super().__init__(answer, context)
        self._message: dict[str, Any] = {}
        self._said = ""
        self._logprobs: list[dict[str, Any]] = []
        self._calls: list[dict[str, Any]] = []
        self._entries: list[dict[str, Any]] = []
        self._tools = 0
        self._metadata = dict(answer.metadata)

    def body(self) -> _Events:
        """Yield the events of all parts, without pauses."""
        for segment in self.segments():
            yield from segment.events

    def segments(self) -> Iterator[Segment]:
        """Yield the events between the pauses."""
        return part_segments(self._answer, self._part, lambda: iter(()))

    def closing(self) -> Iterator[bytes]:
        """Yield the finish reason, usage if it was requested, ``[DONE]``."""
        chunk = self._envelope("chat.completion.chunk") | {"choices": [self._finished({"delta": {}})]}
        if self._sends_usage:
            chunk["usage"] = None
        if "timings" in self._metadata:
            chunk["timings"] = self._metadata["timings"]
        yield self._event(_encode(chunk))
        if self._sends_usage:
            chunk = self._envelope("chat.completion.chunk") | {"choices": [], "usage": self._usage()}
            yield self._event(_encode(chunk))
        if self._answer.done_marker:
            yield self._event(b"[DONE]")

    def whole(self) -> bytes:
        """Return the completion object."""
        for _ in self.body():  # fills the message
            pass
        message: dict[str, Any] = {"role": "assistant", "content": self._said or None, "refusal": None}
        message |= {"annotations": []} | self._message
        for name, items in (("reasoning_details", self._entries), ("tool_calls", self._calls)):
            if items:
                message[name] = items
        choice = self._finished({"message": message, "logprobs": self._all_logprobs()})
        usage = None if self._answer.send_usage == "never" else self._usage()
        whole = self._envelope("chat.completion") | {"choices": [choice], "usage": usage}
        if "timings" in self._metadata:
            whole["timings"] = self._metadata["timings"]
        return _encode(whole)

    # --- parts -------------------------------------------------------------------------------------------------------

    def _part(self, part: Part) -> PartEvents:
        match part:
            case Said():
                yield from self._say(part)
            case Thought():
                yield from self._think(part)
            case Declined():
                self._join("refusal", part.text)
                for piece in part.pieces:
                    yield True, self._delta({"refusal": piece})
            case Search() | Ran() | ServerTool():
                yield from self._tool(part)
            case Picture():
                image = {"type": "image_url", "image_url": {"url": part.place}}
                images = self._message.setdefault("images", [])
                images.append(image | {"index": len(images)})
                yield True, self._delta({"content": "", "images": images[-1:]})
            case Sound():
                yield from self._sound(part)
            case ScriptedCall():
                yield from self._call(part)
            case RawEvent():
                yield True, encode_event(part.encoded, self._line_ending, (part.event or "").encode())
            case Block(dialect="chat"):
                self._entries.append(part.data)
                yield True, self._delta({"reasoning_details": [part.data]})

    def _say(self, said: Said) -> _Events:
        start = len(self._said)
        self._said += said.text
        for piece, token in with_logprobs(said, self._answer, self._context):
            if token is None:
                yield True, self._choices[0].delta("content", piece)
            else:
                yield True, self._delta({"content": piece}, self._likely(token))
        found = [source for source in said.citations if source.kind == "search_result"]
        annotations = [made for source in said.citations if (made := _annotation(source, start, said))]
        if found:
            self._add_results(found)
            yield False, self._delta({"content": ""})
        if annotations:
            self._message.setdefault("annotations", []).extend(annotations)
            yield False, self._delta({"annotations": annotations})

    def _likely(self, token: TokenLogprob) -> dict[str, Any]:
        made = openai_logprobs([token])
        self._logprobs += made
        return {"content": made, "refusal": None}

    def _all_logprobs(self) -> dict[str, Any] | None:
        return {"content": self._logprobs, "refusal": None} if self._logprobs else None

    def _add_results(self, found: list[Source]) -> None:
        """Add results of a search to all chunks from here on, as Perplexity does."""
        results = self._extras.setdefault("search_results", [])
        results += [
            {"title": source.title, "url": source.url, "snippet": source.cited_text or "", "source": "web"}
            for source in found
        ]
        self._extras["citations"] = [result["url"] for result in results]

    def _think(self, thought: Thought) -> _Events:
        index = len(self._entries)
        if thought.redacted is not None:
            entry = {"type": "reasoning.encrypted", "data": thought.redacted, "format": _FORMAT, "index": index}
            self._entries.append(entry)
            yield True, self._delta({"content": "", "reasoning_details": [entry]})
            return
        is_signed = bool(thought.signature and self._answer.parts)
        name = "reasoning" if is_signed else self._answer.reasoning_field
        entry = {"type": "reasoning.text", "format": _FORMAT, "index": index}
        if thought.text:
            self._join(name, thought.text)
        for piece in thought.pieces:
            details = {"reasoning_details": [entry | {"text": piece}]} if is_signed else {}
            yield True, self._delta({"content": "", name: piece, **details} if is_signed else {name: piece})
        if is_signed:
            self._entries.append(entry | {"text": thought.text, "signature": thought.signature})
            signed = {"reasoning_details": [entry | {"signature": thought.signature}]}
            yield False, self._delta({"content": "", **signed})

    def _tool(self, tool: Search | Ran | ServerTool) -> PartEvents:
        """A tool that Groq has run: first the call, then the call with its result."""
        call = {"index": self._tools, "type": _tool_type(tool), "arguments": tool.input_text}
        if tool.id is not None:
            call["id"] = tool.id
        self._tools += 1
        told = self._message.setdefault("executed_tools", [])
        told.append(call)
        yield True, self._delta({"executed_tools": [call | {"output": ""}]})
        yield None
        if tool.has_result:
            told[-1] = call | _tool_output(tool)
            yield True, self._delta({"executed_tools": told[-1:]})

    def _sound(self, sound: Sound) -> _Events:
        number = self._context.number
        audio = {"id": f"audio_loopback_{number}", "data": sound.encoded, "transcript": sound.transcript}
        self._message["audio"] = audio | {"expires_at": self._context.created + 3600}
        for piece in sound.words:
            yield True, self._delta({"audio": {"id": audio["id"], "transcript": piece}})
        yield True, self._delta({"audio": {"id": audio["id"], "data": sound.encoded}})
        yield False, self._delta({"audio": {"id": audio["id"], "expires_at": self._context.created + 3600}})

    def _call(self, call: ScriptedCall) -> _Events:
        if call.type not in ("function", "custom"):
            return
        index = len(self._calls)
        kind, field = ("function", "arguments") if call.type == "function" else ("custom", "input")
        begun: dict[str, Any] = {"id": call.id or self.call_id(0, index), "type": kind}
        if call.signature and self._answer.parts:
            begun["extra_content"] = {"google": {"thought_signature": call.signature}}
        self._calls.append(begun | {kind: {"name": call.name, field: call.arguments}})
        yield False, self._delta({"tool_calls": [{"index": index, **begun, kind: {"name": call.name, field: ""}}]})
        for piece in call.fragments:
            fragment = {"index": index, kind: {field: piece}}
            yield True, self._delta({"tool_calls": [fragment]})

    # --- chunks ------------------------------------------------------------------------------------------------------

    def _join(self, name: str, text: str) -> None:
        self._message[name] = (self._message.get(name) or "") + text

    def _delta(self, delta: dict[str, Any], logprobs: dict[str, Any] | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": None}
        chunk = self._envelope("chat.completion.chunk") | {"choices": [choice]}
        if self._sends_usage:
            chunk["usage"] = None
        return self._event(_encode(chunk))

    def _finished(self, content: dict[str, Any]) -> dict[str, Any]:
        reason = self._answer.finish_reason or ("tool_calls" if self._calls else "stop")
        choice = {"index": 0, "logprobs": None} | content | {"finish_reason": finish_reason(reason)}
        if "stop_sequence" in self._metadata:
            choice["stop_reason"] = self._metadata["stop_sequence"]
        if "native_finish_reason" in self._metadata:
            choice["native_finish_reason"] = self._metadata["native_finish_reason"]
        return choice

    def _usage(self) -> dict[str, Any]:
        cost = self._metadata.get("cost")
        return chat_usage(to_usage(self._answer, self._context)) | ({} if cost is None else {"cost": cost})

    def _envelope(self, kind: str) -> dict[str, Any]:
        envelope = super()._envelope(kind)
        metadata = self._answer.metadata
        envelope |= {field: metadata[name] for name, field in _FIELDS.items() if name in metadata}
        moderation = metadata.get("moderation")
        if isinstance(moderation, dict):
            envelope |= {name: value for name, value in moderation.items() if name not in envelope}
        return envelope | self._extras


def _annotation(source: Source, start: int, said: Said) -> dict[str, Any] | None:
    """An annotation of a message's text; None: there is no form for the source."""
    low = start + (source.start or 0)
    high = start + (len(said.text) if source.end is None else source.end)
    place: dict[str, Any] = {"start_index": low, "end_index": high, "title": source.title or ""}
    if source.kind == "url":
        quoted = {} if source.cited_text is None else {"content": source.cited_text}
        return {"type": "url_citation", "url_citation": {"url": source.url or "", **place, **quoted}}
    if source.kind == "file":
        named = {"file_id": source.id or "", "filename": source.title or ""}
        return {"type": "file_citation", "file_citation": {**place, **named}}
    return None


def _tool_type(tool: Search | Ran | ServerTool) -> str:
    match tool:
        case Search():
            return "search"
        case Ran():
            return "python"
        case _:
            return tool.name


def _tool_output(tool: Search | Ran | ServerTool) -> dict[str, Any]:
    match tool:
        case Search(results=results, error=None):
            found = [{"title": one.title, "url": one.url, "content": one.text, "score": 0.5} for one in results or ()]
            text = "\n\n".join(f"Title: {one.title}\nURL: {one.url}\nContent: {one.text}" for one in results or ())
            return {"output": text or "No results", "search_results": {"results": found}}
        case Search(error=error):
            return {"output": f"Error: {error}"}
        case Ran(output=output):
            return {"output": output or "(no output)"}
        case _:
            return {"output": tool.output_text}


def make_chat_encoder(answer: Answer, context: AnswerContext) -> ChatEncoder:
    """Make the encoder for an answer."""
    return (ChatPartsEncoder if needs_parts(answer, context) else ChatEncoder)(answer, context)
