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

_EVENTS: Final = frozenset({"groundingChunks", "groundingSupports"})
"""Fields of ``groundingMetadata`` that become citations."""


class GeminiMetadata:
    """Tells each value once, and again if it changes."""

    def __init__(self, skip: Skip) -> None:
        self._skip = skip
        self._told: dict[str, Any] = {}

    def read(self, chunk: Mapping[str, Any], first: Mapping[str, Any], out: list[Delta]) -> None:
        """Read a response, and its candidate 0, which may be empty."""
        feedback = chunk.get("promptFeedback")
        ratings, grounding = first.get("safetyRatings"), first.get("groundingMetadata")
        pages, score = first.get("urlContextMetadata"), first.get("avgLogprobs")
        found = {
            "response_id": _text(chunk.get("responseId")),
            "create_time": _text(chunk.get("createTime")),
            "model_status": chunk.get("modelStatus"),
            "prompt_feedback": feedback if isinstance(feedback, dict) and any(feedback.values()) else None,
            "finish_message": _text(first.get("finishMessage")),
            "moderation": {"safetyRatings": ratings} if ratings else None,
            "avg_logprobs": score if isinstance(score, (int, float)) and _is_finite(score) else None,
            "grounding": _without_events(grounding) if isinstance(grounding, dict) else None,
            "url_context": pages.get("urlMetadata") if isinstance(pages, dict) else None,
            "usage_details": usage_details(chunk.get("usageMetadata")),
        }
        values: dict[str, Any] = {}
        for name, value in found.items():
            if value is None or value in ("", [], {}) or value == self._told.get(name):
                continue
            self._told[name] = value
            mended = _small(value)
            if mended is None:
                self._skip(name, value, out)
            else:
                values[name] = mended
        if values:
            out.append(MetadataDelta(values))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


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
