"""What a response's ``usageMetadata`` counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.adapters.providers.gemini.wire import WireUsage
from penstock.adapters.providers.shared.json_values import count_of, short_text, text_of
from penstock.events import Usage

__all__ = ["NO_COUNTS", "counts_of", "to_usage", "usage_details"]

NO_COUNTS: Final = Usage()

_COUNTED: Final = frozenset(
    {
        *("promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount"),
        *("cachedContentTokenCount", "toolUsePromptTokenCount", "serviceTier"),
    }
)
"""Fields that `penstock.events.Usage` has fields for."""
_TRAFFIC: Final = {"ON_DEMAND_FLEX": "flex", "ON_DEMAND_PRIORITY": "priority"}
"""Vertex AI's words for what the Gemini API calls a service tier."""


def to_usage(usage: Mapping[str, Any]) -> Usage:
    """Read a ``usageMetadata``; `NO_COUNTS` if there are none in it.

    A modality without a count has 0: Google leaves out zeros.
    """
    asked, answered = (_by_modality(usage.get(f"{side}TokensDetails")) for side in ("prompt", "candidates"))
    counts = Usage(
        input_tokens=count_of(usage.get("promptTokenCount")),
        output_tokens=count_of(usage.get("candidatesTokenCount")),
        total_tokens=count_of(usage.get("totalTokenCount")),
        reasoning_tokens=count_of(usage.get("thoughtsTokenCount")),
        cached_tokens=count_of(usage.get("cachedContentTokenCount")),
        tool_input_tokens=count_of(usage.get("toolUsePromptTokenCount")),
        audio_input_tokens=asked.get("AUDIO"),
        image_input_tokens=asked.get("IMAGE"),
        audio_output_tokens=answered.get("AUDIO"),
        image_output_tokens=answered.get("IMAGE"),
    )
    if counts == NO_COUNTS:
        return counts
    traffic = short_text(usage.get("trafficType"))
    tier = short_text(usage.get("serviceTier")) or _TRAFFIC.get(traffic or "", traffic)
    return msgspec.structs.replace(counts, service_tier=tier)


def counts_of(wire: WireUsage, before: Usage) -> Usage:
    """The usage of an ordinary response: its counts, with the details and the tier of the usage before it."""
    if (
        before.service_tier is None
        and before.audio_input_tokens is None
        and before.image_input_tokens is None
        and before.audio_output_tokens is None
        and before.image_output_tokens is None
    ):
        return Usage(
            input_tokens=wire.prompt_token_count,
            output_tokens=wire.candidates_token_count,
            total_tokens=wire.total_token_count,
            reasoning_tokens=wire.thoughts_token_count,
            cached_tokens=wire.cached_content_token_count,
            tool_input_tokens=wire.tool_use_prompt_token_count,
        )
    if wire == _NO_WIRE_COUNTS:
        return NO_COUNTS
    return msgspec.structs.replace(
        before,
        input_tokens=wire.prompt_token_count,
        output_tokens=wire.candidates_token_count,
        total_tokens=wire.total_token_count,
        reasoning_tokens=wire.thoughts_token_count,
        cached_tokens=wire.cached_content_token_count,
        tool_input_tokens=wire.tool_use_prompt_token_count,
    )


_NO_WIRE_COUNTS: Final = WireUsage()


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
