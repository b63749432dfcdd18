"""The sources of an answer: grounding, recited texts and pages that were read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.adapters.providers.gemini.metadata import Skip
from penstock.adapters.providers.gemini.places import WrittenText
from penstock.adapters.providers.shared.json_values import plain_json, text_of, whole_number
from penstock.events import Citation, CitationKind, FrozenDict
from penstock.ports import CitationDelta, Delta

__all__ = ["GeminiSources"]

_MOST: Final = 4_096
"""Citations of one answer; a single response could contain millions of pairs of supports and chunks."""

_MOST_UNCITED: Final = 1_000

_KINDS: Final[dict[str, CitationKind]] = {
    "web": "url",
    "maps": "url",
    "image": "url",
    "retrievedContext": "file",
}
"""Kinds of chunks, by the field that holds their content."""
_TOLD: Final = frozenset({"uri", "sourceUri", "title", "text", "documentName"})
"""Fields of a chunk's content that a `Citation` has fields of its own for."""
_READ: Final = ("", "URL_RETRIEVAL_STATUS_SUCCESS", "URL_RETRIEVAL_STATUS_UNSPECIFIED")


class GeminiSources:
    """Reads the sources of one candidate, which may be repeated in several responses, and tells each once.

    Attributes:
        uncited: chunks (sources) that no support (a place in the text) has named so far, as they came; None: the last
            response has changed nothing of that, or there are too many chunks.
    """

    def __init__(self, text: WrittenText, skip: Skip) -> None:
        self.uncited: list[Any] | None = None
        self._text = text
        self._skip = skip
        self._chunks: list[Any] = []  # of the last list of them
        self._read_chunks: dict[int, Citation | None] = {}
        self._numbers: set[int] = set()  # of chunks that a support has named
        self._cited: set[tuple[object, ...]] = set()
        self._urls: set[str] = set()

    def read(self, candidate: Mapping[str, Any], out: list[Delta]) -> None:
        """Append the citations of a candidate whose text has been read."""
        self.uncited = None
        if (grounding := candidate.get("groundingMetadata")) is not None:
            self._read_grounding(grounding, out)
        if (recited := candidate.get("citationMetadata")) is not None:
            self._read_recited(recited, out)
        if (pages := candidate.get("urlContextMetadata")) is not None:
            self._read_pages(pages, out)

    # --- grounding -------------------------------------------------------------------------------------------------

    def _read_grounding(self, grounding: object, out: list[Delta]) -> None:
        """Append a citation for each pair of a support and a chunk."""
        fields = self._fields("groundingMetadata", grounding, out)
        if chunks := self._items("groundingChunks", fields.get("groundingChunks"), out):
            self._chunks, self._read_chunks = chunks, {}
        for support in self._items("groundingSupports", fields.get("groundingSupports"), out):
            if isinstance(support, dict) and len(self._cited) < _MOST:
                self._read_support(support, out)
            else:
                self._skip("groundingSupports", support, out)
        if len(self._chunks) <= _MOST_UNCITED:
            self.uncited = [chunk for number, chunk in enumerate(self._chunks) if number not in self._numbers]

    def _read_support(self, support: dict[str, Any], out: list[Delta]) -> None:
        segment, scores = support.get("segment"), support.get("confidenceScores")
        start, end = self._span_of(segment, out)
        indices = self._items("groundingChunkIndices", support.get("groundingChunkIndices"), out)
        named: set[int] = set()
        for place, given in enumerate(indices):
            number = whole_number(given)
            if number in named:
                continue
            if number is None or not 0 <= number < len(self._chunks):
                self._skip("groundingChunkIndices", given, out)
                continue
            named.add(number)
            self._numbers.add(number)
            if number not in self._read_chunks:
                self._read_chunks[number] = _citation_of(self._chunks[number])
            citation = self._read_chunks[number]
            if citation is None:
                self._skip("groundingChunks", self._chunks[number], out)
                continue
            location = {**citation.location, "index": number}
            score = scores[place] if isinstance(scores, list) and place < len(scores) else None
            if isinstance(score, (int, float)) and not isinstance(score, bool) and 0 <= score <= 1:
                location["confidence"] = score
            if len(self._cited) >= _MOST:
                self._skip("groundingSupports", {"groundingChunkIndices": indices[place:]}, out)
                return
            placed = msgspec.structs.replace(citation, start=start, end=end, location=FrozenDict(location))
            self._tell(placed, (number,), out)

    def _span_of(self, segment: object, out: list[Delta]) -> tuple[int | None, int | None]:
        if isinstance(segment, dict):
            return self._span(segment.get("startIndex"), segment.get("endIndex"), text_of(segment.get("text")))
        if segment is not None:
            self._skip("segment", segment, out)
        return None, None

    # --- recited texts, and pages ----------------------------------------------------------------------------------

    def _read_recited(self, recited: object, out: list[Delta]) -> None:
        """Append the sources of recited texts: ``citationSources`` of the Gemini API, ``citations`` of Vertex AI."""
        lists = self._fields("citationMetadata", recited, out)
        for name in ("citationSources", "citations"):
            for given in self._items(name, lists.get(name), out):
                mended = plain_json(given)
                source: dict[str, Any] = mended if isinstance(mended, dict) else {}
                url, title = text_of(source.get("uri")), text_of(source.get("title"))
                if not (url or title) or len(self._cited) >= _MOST:
                    self._skip(name, given, out)
                    continue
                start, end = self._span(source.get("startIndex"), source.get("endIndex"))
                location = _rest(source, frozenset({"startIndex", "endIndex", "uri", "title"}))
                self._tell(
                    Citation(
                        kind="url" if url else "document",
                        url=url or None,
                        title=title or None,
                        start=start,
                        end=end,
                        location=FrozenDict(location),
                    ),
                    (name, whole_number(source.get("startIndex")), whole_number(source.get("endIndex"))),
                    out,
                )

    def _read_pages(self, pages: object, out: list[Delta]) -> None:
        """Append the pages that were read for the answer, unless the grounding names them: they have no place in it."""
        fields = self._fields("urlContextMetadata", pages, out)
        for page in self._items("urlMetadata", fields.get("urlMetadata"), out):
            url = plain_json(text_of(page.get("retrievedUrl"))) if isinstance(page, dict) else ""
            if not url or len(self._cited) >= _MOST:
                self._skip("urlMetadata", page, out)
            elif text_of(page.get("urlRetrievalStatus")) in _READ and url not in self._urls:
                self._tell(Citation(kind="url", url=url), ("urlMetadata",), out)

    # --- what they share -------------------------------------------------------------------------------------------

    def _span(self, start: object, end: object, said: str = "") -> tuple[int | None, int | None]:
        """The place in the answer's text, in characters. Google leaves out zeros, so a missing start is 0."""
        first, last = whole_number(0 if start is None else start), whole_number(end)
        found = None if first is None or last is None else self._text.span(first, last, said)
        return found or (None, None)

    def _tell(self, citation: Citation, key: tuple[object, ...], out: list[Delta]) -> None:
        """Append a citation, with its place counted from the start of the present block of text."""
        key = (*key, citation.kind, citation.url, citation.id, citation.title, citation.start, citation.end)
        if key in self._cited:
            return
        self._cited.add(key)
        if citation.url:
            self._urls.add(citation.url)
        out.append(CitationDelta(_moved(citation, -self._text.block_from)))

    def _fields(self, name: str, given: object, out: list[Delta]) -> Mapping[str, Any]:
        if isinstance(given, dict):
            return given
        self._skip(name, given, out)
        return {}

    def _items(self, name: str, given: object, out: list[Delta]) -> list[Any]:
        if isinstance(given, list):
            return given
        if given is not None:
            self._skip(name, given, out)
        return []


def _citation_of(chunk: object) -> Citation | None:
    """Read a chunk; None: it is none. One of a kind that is not known counts as a web page if it has an address."""
    given = chunk if isinstance(chunk, dict) else {}
    name = next((name for name, value in given.items() if isinstance(value, dict)), "")
    mended = plain_json(given.get(name))
    content: dict[str, Any] = mended if isinstance(mended, dict) else {}
    url = text_of(content.get("uri")) or text_of(content.get("sourceUri"))
    kind = _KINDS.get(name) or ("url" if url else None)
    rag = content.get("ragChunk")
    quoted = text_of(content.get("text")) or (text_of(rag.get("text")) if isinstance(rag, dict) else "")
    id, title = text_of(content.get("documentName")), text_of(content.get("title"))
    if kind is None or not (url or id or title or quoted):
        return None
    return Citation(
        kind=kind,
        url=url or None,
        id=id or None,
        title=title or None,
        cited_text=quoted or None,
        location=FrozenDict(_rest(content, _TOLD)),
    )


def _rest(fields: Mapping[str, Any], told: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in told and value is not None}


def _moved(citation: Citation, by: int) -> Citation:
    if citation.start is None or citation.end is None:
        return citation
    return msgspec.structs.replace(citation, start=citation.start + by, end=citation.end + by)
