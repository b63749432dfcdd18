"""Citations of a block of text."""

from __future__ import annotations

from typing import Any, Final

from penstock.adapters.providers.shared.json_values import plain_json, text_of
from penstock.events import Citation, CitationKind, FrozenDict

__all__ = ["parse_citation"]

_KINDS: Final[dict[str, CitationKind]] = {
    "char_location": "document",
    "page_location": "document",
    "content_block_location": "document",
    "search_result_location": "search_result",
    "web_search_result_location": "url",
}
_TOLD: Final = frozenset({"type", "cited_text", "document_title", "title", "url", "file_id"})
"""Fields that a `Citation` has fields of its own for."""
_SEALED: Final = frozenset({"encrypted_index"})
"""Fields for the provider alone."""


def parse_citation(given: object) -> Citation | None:
    """Read one citation of the Messages API; None: it is none.

    A type that is not known counts as ``url`` if it has one.

    >>> parse_citation({"type": "page_location", "document_index": 0, "start_page_number": 5}).location
    {'document_index': 0, 'start_page_number': 5}
    """
    mended = plain_json(given)
    if not isinstance(mended, dict):
        return None
    fields: dict[str, Any] = mended
    url = text_of(fields.get("url"))
    kind = _KINDS.get(text_of(fields.get("type"))) or ("url" if url else None)
    if kind is None:
        return None
    hidden = _TOLD | _SEALED
    source = text_of(fields.get("source"))
    if kind == "search_result" and "://" in source:
        url, hidden = source, hidden | {"source"}
    return Citation(
        kind=kind,
        url=url or None,
        id=text_of(fields.get("file_id")) or None,
        title=text_of(fields.get("document_title")) or text_of(fields.get("title")) or None,
        cited_text=text_of(fields.get("cited_text")) or None,
        location=FrozenDict(
            {name: value for name, value in fields.items() if name not in hidden and value is not None}
        ),
    )
