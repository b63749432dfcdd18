"""What Gemini says of an answer as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from penstock.adapters.providers.gemini.usage import usage_details
from penstock.adapters.providers.shared.json_values import json_text, plain_json
from penstock.ports import Delta, MetadataDelta

__all__ = ["GeminiMetadata", "Skip"]

Skip: TypeAlias = Callable[[str, object, list[Delta]], None]
"""Counts something that is not understood: its name, the thing itself, and where to put a `ProviderEvent`."""

_LONGEST_TEXT: Final = 4_096
"""Characters."""
_LARGEST_VALUE: Final = 16_384
"""Characters of JSON."""

_OF_CHUNK: Final[dict[str, tuple[str, type]]] = {
    "responseId": ("response_id", str),
    "createTime": ("create_time", str),
    "modelStatus": ("model_status", dict),
    "promptFeedback": ("prompt_feedback", dict),
}
"""Names in ``provider_metadata`` and types of values, by the field of a response."""
_OF_CANDIDATE: Final[dict[str, tuple[str, type]]] = {
    "finishMessage": ("finish_message", str),
    "safetyRatings": ("moderation", list),
    "avgLogprobs": ("avg_logprobs", float),
}
"""The same, by the field of a candidate."""
_PLAIN: Final = frozenset({"content", "index", "finishReason"})
"""Fields of a candidate in which nothing of this kind stands."""
_CITED: Final = frozenset({"groundingChunks", "groundingSupports"})
"""Fields of ``groundingMetadata`` that become citations."""


class GeminiMetadata:
    """Tells each value once, and again if it changes."""

    def __init__(self, skip: Skip) -> None:
        self._skip = skip
        self._told: dict[str, Any] = {}

    def read(
        self, chunk: Mapping[str, Any], first: Mapping[str, Any], uncited: Sequence[Any] | None, out: list[Delta]
    ) -> None:
        """Read a response, and its candidate 0, which may be empty.

        ``uncited``: sources of the answer so far that no place in the text stands on; None: as before.
        """
        found = self._values_of(chunk, _OF_CHUNK, out)
        if (details := usage_details(chunk.get("usageMetadata"))) is not None:
            found["usage_details"] = details
        if first.keys() - _PLAIN:
            found |= self._values_of(first, _OF_CANDIDATE, out)
            found |= _sources_of(first)
        if uncited or (uncited is not None and "uncited_sources" in self._told):
            found["uncited_sources"] = uncited
        values: dict[str, Any] = {}
        for name, value in found.items():
            if name in self._told and _is_same(value, self._told[name]):
                continue
            self._told[name] = value
            mended = _small(value)
            if mended is None:
                self._skip(name, value, out)
            else:
                values[name] = mended
        if values:
            out.append(MetadataDelta(values))

    def _values_of(
        self, given: Mapping[str, Any], names: Mapping[str, tuple[str, type]], out: list[Delta]
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for field, (name, kind) in names.items():
            value = given.get(field)
            if kind is float and isinstance(value, (int, float)) and _is_finite(value):
                found[name] = value
            elif isinstance(value, kind):
                if _says_something(value):
                    found[name] = {field: value} if kind is list else value
            elif value is not None:
                self._skip(field, value, out)
        return found


def _says_something(value: object) -> bool:
    return any(value.values()) if isinstance(value, dict) else bool(value)


def _sources_of(first: Mapping[str, Any]) -> dict[str, Any]:
    """What the candidate says of its sources, besides the citations."""
    found: dict[str, Any] = {}
    grounding, read = first.get("groundingMetadata"), first.get("urlContextMetadata")
    if isinstance(grounding, dict):
        rest = {name: value for name, value in grounding.items() if name not in _CITED and value not in (None, [], {})}
        if rest:
            found["grounding"] = rest
    pages = read.get("urlMetadata") if isinstance(read, dict) else None
    if isinstance(pages, list):
        named = [page for page in pages if isinstance(page, dict) and isinstance(page.get("retrievedUrl"), str)]
        if named:
            found["url_context"] = named
    return found


def _is_same(value: object, told: object) -> bool:
    try:
        return value == told
    except RecursionError:
        return False


def _is_finite(value: float) -> bool:
    return not isinstance(value, bool) and -1e300 < value < 1e300


def _small(value: object) -> Any:
    """The value without lone surrogates; None if it is too long, or nested too deeply."""
    try:
        size = len(value) if isinstance(value, str) else len(json_text(value))
    except RecursionError:
        return None
    return plain_json(value) if size <= (_LONGEST_TEXT if isinstance(value, str) else _LARGEST_VALUE) else None
