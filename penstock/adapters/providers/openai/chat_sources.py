"""Sources of a chat completion: ``annotations``, and Perplexity's ``citations`` and ``search_results``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.adapters.providers.shared.json_values import count_of, plain_json, text_of
from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.events import Citation, CitationKind, FrozenDict
from penstock.ports import CitationDelta, Delta

__all__ = ["Sources"]

_KINDS: dict[str, CitationKind] = {
    "url_citation": "url",
    "file_citation": "file",
    "container_file_citation": "file",
    "file_path": "file",
}
_PLACES = ("index", "container_id", "date", "last_updated")


class Sources:
    """Reads the sources of an answer, each once."""

    def __init__(self, skip: Callable[[str, object], None]) -> None:
        self._skip = skip
        self._seen: set[str] = set()
        self._lists: tuple[int, int] = (0, 0)

    def read_annotations(self, annotations: object, out: list[Delta]) -> None:
        """Append the citations of ``annotations``; fields stand in the annotation, or below its type's name."""
        if not isinstance(annotations, list):
            self._skip("annotations", annotations)
        for annotation in annotations if isinstance(annotations, list) else ():
            kind = text_of(annotation.get("type")) if isinstance(annotation, dict) else ""
            if kind not in _KINDS:
                self._skip(f"annotation.{replace_surrogates(kind)}", annotation)
                continue
            inner = annotation.get(kind)
            fields = {**annotation, **inner} if isinstance(inner, dict) else annotation
            out.append(CitationDelta(_citation(_KINDS[kind], fields)))

    def read_lists(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        """Append what is new in the chunk's ``citations`` and ``search_results``, which most chunks repeat.

        ``location["index"]`` is the number by which the text refers to it (``[1]``), from 1.
        """
        addresses, results = chunk.get("citations"), chunk.get("search_results")
        if addresses is None and results is None:
            return
        if not isinstance(addresses or [], list) or not isinstance(results or [], list):
            self._skip("citations", {"citations": addresses, "search_results": results})
            return
        addresses, results = addresses or [], results or []
        lengths = len(addresses), len(results)
        if lengths == self._lists:
            return
        self._lists = lengths
        numbers = {url: number for number, url in enumerate(addresses, 1) if isinstance(url, str)}
        for number, result in enumerate(results, 1):
            if isinstance(result, dict):
                url = text_of(result.get("url"))
                self._add("search_result", {**result, "index": numbers.get(url, number)}, out)
            else:
                self._skip("search_results", result)
        for number, url in enumerate(addresses, 1):
            if isinstance(url, str):
                self._add("url", {"url": url, "index": number}, out)
            else:
                self._skip("citations", url)

    def _add(self, kind: CitationKind, fields: dict[str, Any], out: list[Delta]) -> None:
        address = text_of(fields.get("url"))
        if address and address not in self._seen:
            self._seen.add(address)
            out.append(CitationDelta(_citation(kind, fields)))


def _citation(kind: CitationKind, fields: dict[str, Any]) -> Citation:
    start, end = count_of(fields.get("start_index")), count_of(fields.get("end_index"))
    if start is None or end is None or end <= start:  # OpenRouter sends 0 and 0
        start = end = None
    places = {name: fields[name] for name in _PLACES if isinstance(fields.get(name), (str, int))}
    return Citation(
        kind=kind,
        url=_text(fields, "url"),
        id=_text(fields, "file_id"),
        title=_text(fields, "title", "filename"),
        cited_text=_text(fields, "content", "snippet", "quote"),
        start=start,
        end=end,
        location=FrozenDict(plain_json(places)),
    )


def _text(fields: dict[str, Any], *names: str) -> str | None:
    return next((replace_surrogates(text) for name in names if (text := text_of(fields.get(name)))), None)
