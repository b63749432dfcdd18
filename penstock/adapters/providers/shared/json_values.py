"""Values in providers' JSON, read without trusting their types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.config.surrogates import is_plain_json, mend_surrogates
from penstock.events import Usage

__all__ = ["count_of", "decode_json", "json_text", "text_of", "to_usage", "whole_number", "without_surrogates"]


def text_of(value: object) -> str:
    """Return ``value`` if it is text, else ``""``. The text may contain lone surrogates."""
    return value if isinstance(value, str) else ""


_INT64_RANGE = 2**63


def whole_number(value: object) -> int | None:
    """Return ``value`` if it is a whole number of 64 bits (12.0 is one, True is not), else None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and -_INT64_RANGE <= value < _INT64_RANGE:
        return value
    return None


def count_of(value: object) -> int | None:
    """Return ``value`` if it is a whole number from 0 upwards, else None."""
    count = whole_number(value)
    return None if count is None or count < 0 else count


def to_usage(usage: Mapping[str, Any], input_name: str, output_name: str) -> Usage | None:
    """Read a usage object with ``{input_name}_tokens`` and ``{output_name}_tokens``. None: it contains no counts."""
    input_details = usage.get(f"{input_name}_tokens_details")
    output_details = usage.get(f"{output_name}_tokens_details")
    input_details = input_details if isinstance(input_details, dict) else {}
    output_details = output_details if isinstance(output_details, dict) else {}
    counts = Usage(
        input_tokens=count_of(usage.get(f"{input_name}_tokens")),
        output_tokens=count_of(usage.get(f"{output_name}_tokens")),
        total_tokens=count_of(usage.get("total_tokens")),
        cached_tokens=count_of(input_details.get("cached_tokens")),
        cache_write_tokens=count_of(input_details.get("cache_write_tokens")),
        reasoning_tokens=count_of(output_details.get("reasoning_tokens")),
    )
    return None if counts == Usage() else counts


def without_surrogates(value: object) -> Any:
    """A value that came from `decode_json`, with U+FFFD in the place of lone surrogates, in names too.

    Text for a value that is nested too deeply to be encoded again.
    """
    if is_plain_json(value):
        return value
    mended = mend_surrogates(value)
    try:
        msgspec.json.encode(mended)
    except (RecursionError, ValueError):
        return "[nested too deeply]"
    return mended


_decode = msgspec.json.Decoder().decode


def decode_json(data: str) -> object:
    """Parse ``data``, including lone surrogates and ``-Infinity``, which servers send and msgspec refuses.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    try:
        return _decode(data)
    except msgspec.DecodeError:
        return json.loads(data, strict=False)


def json_text(value: object) -> str:
    """Encode a value that came from `decode_json`, on one line; lone surrogates become U+FFFD.

    Raises:
        RecursionError: it is nested too deeply.
    """
    return replace_surrogates(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
