"""What a recording of Gemini has besides text and calls."""

from __future__ import annotations

from collections.abc import Iterable

from tests.corpus.bodies import Json
from tests.corpus.found import Found, Kind

__all__ = ["derive"]

_OWN_TOOLS = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")


def derive(events: Iterable[Json]) -> Found:
    """Read the chunks in order; only the first candidate."""
    reader = _Reader()
    for event in events:
        reader.read(event)
    return reader.found


class _Reader:
    def __init__(self) -> None:
        self.found = Found()
        self._numbered = 0  # calls of own tools without an id
        self._open = ""  # the id of the last of them
        self._is_separated = False  # something has come since the last text

    def read(self, chunk: Json) -> None:
        found = self.found
        found.response_id(chunk.get("responseId"))
        found.says(prompt_feedback=chunk.get("promptFeedback"))
        for candidate in chunk.get("candidates") or ():
            if candidate.get("index", 0) != 0:
                continue
            for part in (candidate.get("content") or {}).get("parts") or ():
                self._read_part(part)
            found.says(finish_message=candidate.get("finishMessage"))
            self._read_sources(candidate)
        if usage := chunk.get("usageMetadata"):
            found.usage = {}
            found.counts(
                tool_input_tokens=usage.get("toolUsePromptTokenCount"),
                service_tier=usage.get("serviceTier"),
                **_by_modality(usage.get("promptTokensDetails"), "input"),
                **_by_modality(usage.get("candidatesTokensDetails"), "output"),
            )

    def _read_part(self, part: Json) -> None:
        found, signature = self.found, part.get("thoughtSignature")
        if "text" in part:
            kind: Kind = "reasoning" if part.get("thought") else "text"
            if part["text"]:
                if self._is_separated:
                    found.joint(kind)
                self._is_separated = False
                found.say(kind, part["text"])
            if signature:
                found.reasoning("thought", signature)
                found.block("text")
            return
        if part:
            self._is_separated = True
        if data := part.get("inlineData"):
            found.medium(data["mimeType"].partition("/")[0], data["data"], mime=data["mimeType"])
        if call := part.get("functionCall"):
            found.calls += bool(call.get("name"))
        self._read_own_tool(part)

    def _read_own_tool(self, part: Json) -> None:
        found = self.found
        name = next((name for name in _OWN_TOOLS if name in part), None)
        if name is None:
            return
        fields = part[name]
        if name in ("executableCode", "toolCall"):
            self._open = fields.get("id") or f"server_{self._numbered}"
            self._numbered += "id" not in fields
        identifier = fields.get("id") or self._open
        tool = fields.get("toolType", "code_execution").lower()
        if name in ("executableCode", "toolCall"):
            found.server_tool("call", identifier, tool)
        else:
            is_error = fields.get("outcome", "OUTCOME_OK") != "OUTCOME_OK"
            found.server_tool("result", identifier, tool, is_error=is_error or None)
        found.block(name, fields.get("id"))

    def _read_sources(self, candidate: Json) -> None:
        """Places are in bytes of the text so far; here in characters. Places outside of it are none."""
        grounding = candidate.get("groundingMetadata") or {}
        chunks = grounding.get("groundingChunks") or ()
        for support in grounding.get("groundingSupports") or ():
            segment = support["segment"]
            span = self._span(segment.get("startIndex", 0), segment["endIndex"])
            for index in support["groundingChunkIndices"]:
                self._cite(chunks[index], span)
        for source in (candidate.get("citationMetadata") or {}).get("citationSources") or ():
            span = self._span(source.get("startIndex", 0), source["endIndex"])
            self.found.cite(span, kind="url", url=source.get("uri"), title=source.get("title"))

    def _cite(self, source: Json, span: tuple[int, int] | None) -> None:
        if web := source.get("web"):
            self.found.cite(span, kind="url", url=web.get("uri"), title=web.get("title"))
        elif stored := source.get("retrievedContext"):
            self.found.cite(
                span,
                kind="file",
                url=stored.get("uri"),
                title=stored.get("title"),
                cited_text=stored.get("text"),
            )

    def _span(self, start: int, end: int) -> tuple[int, int] | None:
        text = self.found.texts["text"].encode()
        if end > len(text):
            return None
        return len(text[:start].decode()), len(text[:end].decode())


def _by_modality(details: list[Json] | None, side: str) -> dict[str, int]:
    return {
        f"{detail['modality'].lower()}_{side}_tokens": detail.get("tokenCount", 0)
        for detail in details or ()
        if detail.get("modality") in ("AUDIO", "IMAGE")
    }
