"""What a response says of itself as a whole, besides its output and usage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from penstock.adapters.providers.shared.json_values import plain_json
from penstock.ports import Delta, MetadataDelta

__all__ = ["ResponseMetadata"]

_NAMES = {
    "response_id": "id",
    "service_tier": "service_tier",
    "system_fingerprint": "system_fingerprint",
    "upstream_provider": "provider",
    "incomplete_details": "incomplete_details",
    "moderation": "moderation",
    "background": "background",
    "conversation": "conversation",
    "input_transformations": "input_transformations",
    "prompt_cache_diagnostics": "prompt_cache_diagnostics",
    "timings": "timings",
}
"""The names in ``provider_metadata``, each with the response's field. False, null and empty values are left out."""

_LONGEST_TEXT = 4_096  # characters
_LARGEST_VALUE = 16_384  # bytes of JSON


class ResponseMetadata:
    """Reads it from each event that has the response, and tells each value once."""

    def __init__(self, skip: Callable[[str, object], None]) -> None:
        self._skip = skip
        self._told: dict[str, object] = {}

    def copy(self, skip: Callable[[str, object], None]) -> ResponseMetadata:
        """The same, to be continued apart from this."""
        other = ResponseMetadata(skip)
        other._told = dict(self._told)
        return other

    def read(self, response: Mapping[str, Any], out: list[Delta]) -> None:
        """Append what is new."""
        values = {name: response[field] for name, field in _NAMES.items() if response.get(field)}
        if filters := response.get("content_filters"):  # Azure
            moderation = values.get("moderation")
            values["moderation"] = (moderation if isinstance(moderation, dict) else {}) | {"content_filters": filters}
        usage = response.get("usage")
        if isinstance(usage, dict):
            if (cost := usage.get("cost")) is not None:  # OpenRouter
                values["cost"] = cost
            elif (ticks := usage.get("cost_in_usd_ticks")) is not None:  # xAI
                values["cost"] = {"cost_in_usd_ticks": ticks}
        if _has_count(used := plain_json(response.get("tool_usage"))):
            values["usage_details"] = {"tool_usage": used}
        news: dict[str, Any] = {}
        for name, value in values.items():
            mended = plain_json(value)
            if name in self._told and self._told[name] == mended:
                continue
            self._told[name] = mended
            if _is_small(mended):
                news[name] = mended
            else:
                self._skip(name, value)
        if news:
            out.append(MetadataDelta(news))


def _is_small(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT
    return len(msgspec.json.encode(value)) <= _LARGEST_VALUE


def _has_count(value: object) -> bool:
    """Whether a number that is not 0 stands anywhere in the value; tools that were not used have zeros."""
    if isinstance(value, dict):
        return any(map(_has_count, value.values()))
    return isinstance(value, (int, float)) and value != 0
