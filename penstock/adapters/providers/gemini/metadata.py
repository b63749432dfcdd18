"""What Gemini says of an answer as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from penstock.adapters.providers.gemini.usage import usage_details
from penstock.adapters.providers.shared.json_values import json_text, without_surrogates
from penstock.ports import Delta, MetadataDelta

__all__ = ["GeminiMetadata", "Skip"]

Skip: TypeAlias = Callable[[str, object, list[Delta]], None]
"""Counts something that is not understood: its name, the thing itself, and where to put a `ProviderEvent`."""

_LONGEST_TEXT: Final = 4_096
"""Characters."""
_LARGEST_VALUE: Final = 16_384
"""Characters of JSON."""

_TEXTS: Final = {"responseId": "response_id", "createTime": "create_time", "finishMessage": "finish_message"}
"""Names in ``provider_metadata``, by the field of a response or a candidate."""
_PLAIN: Final = frozenset({"content", "index", "finishReason", "finishMessage"})
"""Fields of a candidate in which nothing else of this kind stands."""
_EVENTS: Final = frozenset({"groundingChunks", "groundingSupports"})
"""Fields of ``groundingMetadata`` that become citations."""


class GeminiMetadata:
    """Tells each value once, and again if it changes."""

    def __init__(self, skip: Skip) -> None:
        self._skip = skip
        self._told: dict[str, Any] = {}

    def read(self, chunk: Mapping[str, Any], first: Mapping[str, Any], out: list[Delta]) -> None:
        """Read a response, and its candidate 0, which may be empty."""
        found: dict[str, Any] = {
            name: value
            for field, name in _TEXTS.items()
            if (value := chunk.get(field) or first.get(field)) and isinstance(value, str)
        }
        if (details := usage_details(chunk.get("usageMetadata"))) is not None:
            found["usage_details"] = details
        if (status := chunk.get("modelStatus")) is not None:
            found["model_status"] = status
        feedback = chunk.get("promptFeedback")
        if isinstance(feedback, dict) and any(feedback.values()):
            found["prompt_feedback"] = feedback
        if first.keys() - _PLAIN:
            _read_candidate(first, found)
        values: dict[str, Any] = {}
        for name, value in found.items():
            if name in self._told and value == self._told[name]:
                continue
            self._told[name] = value
            mended = _small(value)
            if mended is None:
                self._skip(name, value, out)
            else:
                values[name] = mended
        if values:
            out.append(MetadataDelta(values))


def _read_candidate(first: Mapping[str, Any], found: dict[str, Any]) -> None:
    if ratings := first.get("safetyRatings"):
        found["moderation"] = {"safetyRatings": ratings}
    score = first.get("avgLogprobs")
    if isinstance(score, (int, float)) and _is_finite(score):
        found["avg_logprobs"] = score
    grounding, pages = first.get("groundingMetadata"), first.get("urlContextMetadata")
    if isinstance(grounding, dict) and (rest := _without_events(grounding)):
        found["grounding"] = rest
    if isinstance(pages, dict) and (read := pages.get("urlMetadata")):
        found["url_context"] = read


def _is_finite(value: float) -> bool:
    return not isinstance(value, bool) and -1e300 < value < 1e300


def _without_events(grounding: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in grounding.items() if name not in _EVENTS and value not in (None, [], {})}


def _small(value: object) -> Any:
    """The value without lone surrogates; None if it is too long, or nested too deeply."""
    try:
        size = len(value) if isinstance(value, str) else len(json_text(value))
    except RecursionError:
        return None
    return without_surrogates(value) if size <= (_LONGEST_TEXT if isinstance(value, str) else _LARGEST_VALUE) else None
