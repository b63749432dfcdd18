"""Answers with parts in the format of Gemini's API. Refusals are text.

Citations stand in the last event (``groundingMetadata``), with places in bytes of the text. Redacted thoughts, phases,
transcripts, previews, citations of documents and calls that are no functions have no form here and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from penstock.adapters.loopback.answer import Answer
from penstock.adapters.loopback.encoder import (
    AnswerContext,
    PartEvents,
    Segment,
    encode_event,
    needs_parts,
    part_segments,
    to_object,
    with_logprobs,
)
from penstock.adapters.loopback.gemini_encoder import GeminiArrayEncoder, GeminiEncoder, gemini_finish
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

__all__ = ["GeminiArrayPartsEncoder", "GeminiPartsEncoder", "make_gemini_array_encoder", "make_gemini_encoder"]

_encode = msgspec.json.Encoder().encode

_Events = Iterator[tuple[bool, bytes]]


class _Grounding:
    """The sources of an answer, collected while its text is sent."""

    def __init__(self) -> None:
        self.chunks: list[dict[str, Any]] = []
        self.supports: list[dict[str, Any]] = []
        self.queries: list[str] = []

    def add(self, source: Source, text: str, before: str) -> None:
        """Add a source of ``text``, which follows ``before``."""
        chunk = _chunk(source)
        if chunk is None:
            return
        if chunk not in self.chunks:
            self.chunks.append(chunk)
        start, end = source.start or 0, len(text) if source.end is None else source.end
        cited = text[start:end]
        low = len((before + text[:start]).encode())
        segment: dict[str, Any] = {"startIndex": low} if low else {}  # protobuf leaves out a 0
        segment |= {"endIndex": low + len(cited.encode()), "text": cited}
        self.supports.append({"segment": segment, "groundingChunkIndices": [self.chunks.index(chunk)]})

    def told(self) -> dict[str, Any]:
        """The field of the last candidate; empty if there are no sources."""
        fields = {
            "webSearchQueries": self.queries,
            "groundingChunks": self.chunks,
            "groundingSupports": self.supports,
        }
        found = {name: value for name, value in fields.items() if value}
        return {"groundingMetadata": found} if found else {}


def _chunk(source: Source) -> dict[str, Any] | None:
    if source.kind in ("url", "search_result"):
        return {"web": {"uri": source.url or "", "title": source.title or ""}}
    if source.kind == "file":
        fields = {"uri": source.url, "title": source.title, "text": source.cited_text, "fileSearchStore": source.id}
        return {"retrievedContext": {name: value for name, value in fields.items() if value is not None}}
    return None


class GeminiPartsEncoder(GeminiEncoder):
    """Encodes one answer that has parts, metadata or probabilities, for ``alt=sse``. Implements `AnswerEncoder`.

    What is sent is collected as the parts of the whole answer.
    """

    def __init__(self, answer: Answer, context: AnswerContext, line_ending: str = "\r\n") -> None:
        super().__init__(answer, context, line_ending)
        self._sent: list[dict[str, Any]] = []
        self._said = ""
        self._grounding = _Grounding()
        self._logprobs: list[TokenLogprob] = []
        self._signature = ""  # of thoughts, until a part comes that can have it
        self._tools = 0
        self._feedback = answer.metadata.get("prompt_feedback")
        self._prompt = super()._prompt_usage()

    def body(self) -> _Events:
        """Yield the events of all parts, without pauses."""
        for segment in self.segments():
            yield from segment.events

    def segments(self) -> Iterator[Segment]:
        """Yield the events between the pauses."""
        return part_segments(self._answer, self._one, lambda: iter(()))

    def closing(self) -> Iterator[bytes]:
        """Yield the last event: the finish reason, the signature that is left, the sources, the usage."""
        candidate = self._parts_of([self._signed({"text": ""})]) | self._ending()
        yield self._event(_encode(self._document([candidate], self._usage())))

    def whole(self) -> bytes:
        """Return the document of ``:generateContent``."""
        for _ in self.body():  # fills the parts
            pass
        parts = self._sent
        if self._signature or not parts:
            parts = [*parts, self._signed({"text": ""})]
        candidate = self._parts_of(parts) | self._ending()
        if self._logprobs:
            candidate["logprobsResult"] = _logprobs(self._logprobs)
            candidate["avgLogprobs"] = sum(one.logprob for one in self._logprobs) / len(self._logprobs)
        return _encode(self._document([candidate], self._usage()))

    # --- parts -------------------------------------------------------------------------------------------------------

    def _one(self, part: Part) -> PartEvents:
        match part:
            case Said():
                yield from self._say(part)
            case Declined():
                self._append(part.text, {})
                self._said += part.text
                for piece in part.pieces:
                    yield True, self._text(piece)
            case Thought(redacted=None):
                yield from self._think(part)
            case Search() | Ran() | ServerTool():
                yield from self._tool(part)
            case Picture(url=str(address)):
                yield True, self._send({"fileData": {"mimeType": part.mime, "fileUri": address}})
            case Picture() | Sound():
                yield True, self._send({"inlineData": {"mimeType": part.mime, "data": part.encoded}})
            case ScriptedCall(type="function"):
                function = {"name": part.name, "args": to_object(part)}
                made: dict[str, Any] = {"functionCall": function if part.id is None else {"id": part.id, **function}}
                signed = made | {"thoughtSignature": part.signature} if part.signature else self._signed(made)
                yield True, self._send(signed)
            case RawEvent():
                yield True, self._raw(part)
            case Block(dialect="gemini"):
                yield True, self._send(part.data)

    def _say(self, said: Said) -> _Events:
        before = self._said
        self._append(said.text, {})
        self._said += said.text
        for piece, token in with_logprobs(said, self._answer, self._context):
            if token is None:
                yield True, self._text(piece)
            else:
                self._logprobs.append(token)
                yield True, self._text(piece, {"logprobsResult": _logprobs([token])})
        for source in said.citations:
            self._grounding.add(source, said.text, before)

    def _think(self, thought: Thought) -> _Events:
        if self._signature:
            yield False, self._send(self._signed({"text": ""}))
        if thought.text:
            self._append(thought.text, {"thought": True})
        for piece in thought.pieces:
            yield True, self._part(0, {"text": piece, "thought": True})
        self._signature = thought.signature or ""

    def _tool(self, tool: Search | Ran | ServerTool) -> PartEvents:
        identifier = tool.id or f"tool_loopback_{self._context.number}_{self._tools}"
        self._tools += 1
        if isinstance(tool, Search):
            self._grounding.queries.append(tool.query)
        call, *results = _tool_parts(tool, identifier)
        early = {"finishReason": "STOP"} if isinstance(tool, Ran) and tool.early_finish else {}
        yield True, self._send(self._signed(call), early)
        yield None
        for result in results:
            yield True, self._send(result)

    # --- events ------------------------------------------------------------------------------------------------------

    def _text(self, piece: str, fields: dict[str, Any] | None = None) -> bytes:
        candidate = self._parts_of([{"text": piece}]) | (fields or {})
        return self._event(_encode(self._document([candidate], self._prompt_usage())))

    def _append(self, text: str, kind: dict[str, Any]) -> None:
        """Collect text; it continues the part before it if that is of the same kind."""
        last = self._sent[-1] if self._sent else {}
        if "text" in last and last == {"text": last["text"], **kind}:
            self._sent[-1] = {"text": last["text"] + text, **kind}
        else:
            self._sent.append({"text": text, **kind})

    def _send(self, part: dict[str, Any], fields: dict[str, Any] | None = None) -> bytes:
        self._sent.append(part)
        candidate = self._parts_of([part]) | (fields or {})
        return self._event(_encode(self._document([candidate], self._prompt_usage())))

    def _signed(self, part: dict[str, Any]) -> dict[str, Any]:
        signature, self._signature = self._signature, ""
        return part | {"thoughtSignature": signature} if signature else part

    def _prompt_usage(self) -> dict[str, int] | None:
        return self._prompt  # counted once: each event has it

    def _raw(self, event: RawEvent) -> bytes:
        return encode_event(event.encoded, self._line_ending, (event.event or "").encode())

    def _parts_of(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        return {"content": {"parts": parts, "role": "model"}, "index": 0}

    def _ending(self) -> dict[str, Any]:
        message = self._answer.metadata.get("finish_message")
        told = {"finishReason": gemini_finish(self._answer)} | ({} if message is None else {"finishMessage": message})
        return told | self._grounding.told()

    def _document(self, candidates: list[dict[str, Any]], usage: dict[str, int] | None) -> dict[str, Any]:
        document = super()._document(candidates, usage)
        metadata = self._answer.metadata
        if self._feedback is not None:  # only the first document has it
            document["promptFeedback"], self._feedback = self._feedback, None
        if "response_id" in metadata:
            document["responseId"] = metadata["response_id"]
        if "service_tier" in metadata and usage is not None:
            document["usageMetadata"] = {**usage, "serviceTier": metadata["service_tier"]}
        return document


def _tool_parts(tool: Search | Ran | ServerTool, identifier: str) -> Iterator[dict[str, Any]]:
    """Yield the part with the call, and that with the result if there is one."""
    match tool:
        case Ran():
            yield {"executableCode": {"language": "PYTHON", "code": tool.code, "id": identifier}}
            if tool.has_result:
                outcome = "OUTCOME_FAILED" if tool.failed else "OUTCOME_OK"
                yield {"codeExecutionResult": {"outcome": outcome, "output": tool.output, "id": identifier}}
        case Search():
            kind = {"toolType": "GOOGLE_SEARCH_WEB"}
            yield {"toolCall": kind | {"args": {"queries": [tool.query]}, "id": identifier}}
            if tool.has_result:
                found = [{"url": one.url, "title": one.title, "text": one.text} for one in tool.results or ()]
                response = {"results": found} if tool.error is None else {"error": tool.error}
                yield {"toolResponse": kind | {"response": response, "id": identifier}}
        case _:
            kind = {"toolType": tool.name.upper()}
            yield {"toolCall": kind | {"args": tool.input, "id": identifier}}
            if tool.has_result:
                response = tool.output if isinstance(tool.output, dict) else {"output": tool.output}
                response = {"error": tool.output} if tool.failed else response
                yield {"toolResponse": kind | {"response": response, "id": identifier}}


def _logprobs(tokens: list[TokenLogprob]) -> dict[str, Any]:
    chosen = [_candidate(one.token, one.logprob) for one in tokens]
    result: dict[str, Any] = {"chosenCandidates": chosen}
    if any(one.top for one in tokens):
        result["topCandidates"] = [{"candidates": [_candidate(*other) for other in one.top]} for one in tokens]
    return result


def _candidate(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "tokenId": sum(token.encode()), "logProbability": logprob}


class GeminiArrayPartsEncoder(GeminiArrayEncoder, GeminiPartsEncoder):
    """The same without ``alt=sse``: the documents as the elements of one array."""

    def _raw(self, event: RawEvent) -> bytes:
        return self._event(event.encoded)


def make_gemini_encoder(answer: Answer, context: AnswerContext) -> GeminiEncoder:
    """Make the encoder for an answer as an event stream."""
    return (GeminiPartsEncoder if needs_parts(answer, context) else GeminiEncoder)(answer, context)


def make_gemini_array_encoder(answer: Answer, context: AnswerContext) -> GeminiArrayEncoder:
    """Make the encoder for an answer as an array."""
    return (GeminiArrayPartsEncoder if needs_parts(answer, context) else GeminiArrayEncoder)(answer, context)
