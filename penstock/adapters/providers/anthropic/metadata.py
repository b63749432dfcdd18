"""What the Messages API says of an answer as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.adapters.providers.anthropic.blocks import Skip
from penstock.adapters.providers.shared.json_values import json_text, plain_json, text_of
from penstock.ports import BlockDelta, Delta, MetadataDelta

__all__ = ["Metadata"]

_LONGEST_TEXT: Final = 4_096
"""Characters."""
_LARGEST_VALUE: Final = 16_384
"""Characters of JSON."""

_OF_MESSAGE: Final = {
    "id": "response_id",
    "container": "container",
    "stop_sequence": "stop_sequence",
    "context_management": "context_management",
    "diagnostics": "diagnostics",
}
"""Names in ``provider_metadata``, by the field of a message."""
_COUNTED: Final = frozenset(
    {
        *("input_tokens", "output_tokens", "output_tokens_details", "server_tool_use", "service_tier"),
        *("cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation"),
    }
)
"""Fields of ``usage`` that `penstock.events.Usage` has fields for."""


class Metadata:
    """Tells each value once, and again if it changes."""

    def __init__(self, skip: Skip) -> None:
        self._skip = skip
        self._told: dict[str, Any] = {}

    def read(self, fields: Mapping[str, Any], out: list[Delta]) -> None:
        """Read the fields of a message, or of the end of one."""
        found = {name: fields.get(field) for field, name in _OF_MESSAGE.items()}
        details = fields.get("stop_details")
        if isinstance(details, dict):
            found["refusal_details" if details.get("type") in (None, "refusal") else "stop_details"] = details
        told = self._tell(found, out)
        if isinstance(container := told.get("container"), dict) and container.get("id"):
            out.append(BlockDelta({**container, "type": "container"}))  # the next request may have to name it

    def read_usage(self, usage: Mapping[str, Any], out: list[Delta]) -> None:
        """Read all that has come of a message's ``usage``."""
        details = {name: value for name, value in usage.items() if name not in _COUNTED}
        self._tell({"service_tier": usage.get("service_tier"), "usage_details": details or None}, out)

    def _tell(self, found: Mapping[str, Any], out: list[Delta]) -> dict[str, Any]:
        """Append what is new, and return it."""
        values: dict[str, Any] = {}
        for name, value in found.items():
            if value is None or value == "" or value == self._told.get(name):
                continue
            self._told[name] = value
            mended = _small(value)
            if mended is None:
                self._skip(name, value, out)
            else:
                values[name] = mended
        if values:
            out.append(MetadataDelta(values))
        return values


def _small(value: object) -> Any:
    """The value without lone surrogates; None if it is too long, or nested too deeply."""
    if isinstance(value, str):
        return text_of(plain_json(value)) if len(value) <= _LONGEST_TEXT else None
    try:
        return plain_json(value) if len(json_text(value)) <= _LARGEST_VALUE else None
    except RecursionError:
        return None
