"""What a response's ``usageMetadata`` counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.adapters.providers.gemini.wire import WireUsage
from penstock.adapters.providers.shared.json_values import count_of, short_text, text_of
from penstock.events import Usage

__all__ = ["NO_COUNTS", "has_details", "to_usage", "usage_details", "wire_counts", "with_details"]

NO_COUNTS: Final = Usage()

_COUNTS: Final = (
    *("promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount"),
    *("cachedContentTokenCount", "toolUsePromptTokenCount"),
)
_NO_COUNTS: Final = [None] * len(_COUNTS)
_NO_DETAILS: Final = [None] * 4
_COUNTED: Final = frozenset({*_COUNTS, "serviceTier"})
"""Fields that `penstock.events.Usage` has fields for."""
_TRAFFIC: Final = {"ON_DEMAND_FLEX": "flex", "ON_DEMAND_PRIORITY": "priority"}
"""Vertex AI's words for what the Gemini API calls a service tier."""


def to_usage(usage: Mapping[str, Any]) -> Usage:
    """Read a ``usageMetadata``; `NO_COUNTS` if there are none in it.

    A modality without a count has 0: Google leaves out zeros.
    """
    asked, answered = (_by_modality(usage.get(f"{side}TokensDetails")) for side in ("prompt", "candidates"))
    counts = [count_of(usage.get(name)) for name in _COUNTS]
    details = [side.get(modality) for side in (asked, answered) for modality in ("AUDIO", "IMAGE")]
    if counts == _NO_COUNTS and details == _NO_DETAILS:
        return NO_COUNTS
    return Usage(
        input_tokens=counts[0],
        output_tokens=counts[1],
        total_tokens=counts[2],
        reasoning_tokens=counts[3],
        cached_tokens=counts[4],
        tool_input_tokens=counts[5],
        audio_input_tokens=details[0],
        image_input_tokens=details[1],
        audio_output_tokens=details[2],
        image_output_tokens=details[3],
        service_tier=_tier_of(usage),
    )


def _tier_of(usage: Mapping[str, Any]) -> str | None:
    if (tier := usage.get("serviceTier")) and (word := short_text(tier)):
        return word
    if (traffic := usage.get("trafficType")) and (word := short_text(traffic)):
        return _TRAFFIC.get(word, word)
    return None


def wire_counts(usage: Usage) -> WireUsage:
    """The counts that an ordinary response repeats."""
    return WireUsage(
        prompt_token_count=usage.input_tokens,
        candidates_token_count=usage.output_tokens,
        total_token_count=usage.total_tokens,
        thoughts_token_count=usage.reasoning_tokens,
        cached_content_token_count=usage.cached_tokens,
        tool_use_prompt_token_count=usage.tool_input_tokens,
    )


def has_details(usage: Usage) -> bool:
    """Whether the usage has counts by modality, which an ordinary response does not repeat."""
    details = [
        usage.audio_input_tokens,
        usage.image_input_tokens,
        usage.audio_output_tokens,
        usage.image_output_tokens,
    ]
    return details != _NO_DETAILS


def with_details(wire: WireUsage, before: Usage) -> Usage:
    """The usage of an ordinary response, with the details of the usage before it."""
    return Usage(
        input_tokens=wire.prompt_token_count,
        output_tokens=wire.candidates_token_count,
        total_tokens=wire.total_token_count,
        reasoning_tokens=wire.thoughts_token_count,
        cached_tokens=wire.cached_content_token_count,
        tool_input_tokens=wire.tool_use_prompt_token_count,
        audio_input_tokens=before.audio_input_tokens,
        image_input_tokens=before.image_input_tokens,
        audio_output_tokens=before.audio_output_tokens,
        image_output_tokens=before.image_output_tokens,
        service_tier=before.service_tier,
    )


def usage_details(usage: object) -> dict[str, Any] | None:
    """The fields of a ``usageMetadata`` that `Usage` has none for, as they came; None: there are none."""
    if not isinstance(usage, dict):
        return None
    return {name: value for name, value in usage.items() if name not in _COUNTED and value not in (None, [])} or None


def _by_modality(details: object) -> dict[str, int]:
    return {
        text_of(one.get("modality")): count
        for one in (details if isinstance(details, list) else ())
        if isinstance(one, dict) and (count := count_of(one.get("tokenCount", 0))) is not None
    }
