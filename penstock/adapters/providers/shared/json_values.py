"""Values in providers' JSON, read without trusting their types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

import msgspec

from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.events import FrozenDict, FrozenJson, FrozenList, Usage

__all__ = [
    "MOST_LEVELS",
    "count_of",
    "decode_json",
    "json_text",
    "parse_shallow",
    "plain_json",
    "short_text",
    "text_of",
    "to_usage",
    "tool_requests",
    "whole_number",
]


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


_TICKS_A_DOLLAR = 10**10  # xAI
_MOST_DOLLARS = 1e9
_CACHED = ("prompt_cache_hit_tokens", "cache_read_input_tokens", "cached_tokens", "num_cached_tokens")
_MOST_TOOLS = 32  # names of a provider's own tools in a usage


def to_usage(usage: Mapping[str, Any], input_name: str, output_name: str, service_tier: object = None) -> Usage | None:
    """Read a usage object with ``{input_name}_tokens`` and ``{output_name}_tokens``. None: it contains no counts.

    A count is read from the first of its places where there is one: the details, then the names that single providers
    use. ``service_tier``: that of the answer; the usage's own comes first.
    """
    asked = _details(usage, f"{input_name}_tokens_details")
    answered = _details(usage, f"{output_name}_tokens_details")
    kept = _details(usage, "cache_creation")
    cached = count_of(asked.get("cached_tokens"))
    written = _first(asked, "cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
    reasoning = count_of(answered.get("reasoning_tokens"))
    counts = Usage(
        input_tokens=count_of(usage.get(f"{input_name}_tokens")),
        output_tokens=count_of(usage.get(f"{output_name}_tokens")),
        total_tokens=count_of(usage.get("total_tokens")),
        cached_tokens=_first(usage, *_CACHED) if cached is None else cached,
        cache_write_tokens=count_of(usage.get("cache_creation_input_tokens")) if written is None else written,
        cache_write_1h_tokens=count_of(kept.get("ephemeral_1h_input_tokens")),
        reasoning_tokens=count_of(usage.get("reasoning_tokens")) if reasoning is None else reasoning,
        audio_input_tokens=count_of(asked.get("audio_tokens")),
        image_input_tokens=count_of(asked.get("image_tokens")),
        audio_output_tokens=count_of(answered.get("audio_tokens")),
        image_output_tokens=count_of(answered.get("image_tokens")),
        server_tool_requests=tool_requests(usage),
        reported_cost=_cost_of(usage),
    )
    if counts == Usage():
        return None
    tier = short_text(usage.get("service_tier")) or short_text(service_tier)
    return counts if tier is None else msgspec.structs.replace(counts, service_tier=tier)


def short_text(value: object) -> str | None:
    """Return ``value`` if it is a text of 1 to 64 characters, else None. U+FFFD replaces lone surrogates."""
    return replace_surrogates(value) if isinstance(value, str) and 0 < len(value) <= 64 else None


def tool_requests(usage: Mapping[str, Any]) -> FrozenDict | None:
    """Read how often each of the provider's own tools was used. None: the usage does not say."""
    found: dict[str, int] = {}
    for place, ending in (("server_tool_use", "_requests"), ("server_side_tool_usage_details", "_calls")):
        for name, value in _details(usage, place).items():
            count, shown = count_of(value), short_text(name)
            if count is not None and shown is not None and len(found) < _MOST_TOOLS:
                found[shown.removesuffix(ending)] = count
    for place, name in (("num_sources_used", "sources"), ("num_search_queries", "search_queries")):
        count = count_of(usage.get(place))
        if count is not None:
            found[name] = count
    return FrozenDict(found) if found else None


def _cost_of(usage: Mapping[str, Any]) -> float | None:
    """What the provider says that the answer costs, in US dollars."""
    ticks = count_of(usage.get("cost_in_usd_ticks"))
    if ticks is not None:
        return ticks / _TICKS_A_DOLLAR
    cost = usage.get("cost")
    total = _amount(cost.get("total_cost") if isinstance(cost, dict) else cost)
    if total is not None and usage.get("is_byok") is True:  # OpenRouter's fee; the upstream provider charges the rest
        total += _amount(_details(usage, "cost_details").get("upstream_inference_cost")) or 0.0
    return total


def _amount(value: object) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _MOST_DOLLARS:
        return float(value)
    return None


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = usage.get(name)
    return details if isinstance(details, dict) else {}


def _first(counts: Mapping[str, Any], *names: str) -> int | None:
    """The first of the counts that is one; 0 is one."""
    return next((count for name in names if (count := count_of(counts.get(name))) is not None), None)


MOST_LEVELS: Final = 200
"""How deeply JSON of a provider may be nested that is told or given back; the parsers take five times as much."""
_SIMPLE: Final = frozenset({int, bool, type(None)})
_TOO_DEEP: Final = "[nested too deeply]"


def plain_json(value: object) -> Any:
    r"""A value that came from `decode_json` as events and later requests can contain it: read-only at all levels.

    U+FFFD stands in the place of lone surrogates, in names too, and None for NaN and infinity, which JSON does not
    have. Tuples count as lists. What is nested more deeply than `MOST_LEVELS` is the text ``"[nested too deeply]"`` as
    a whole.

    >>> plain_json({"caf\udce9": [float("nan")]})
    {'caf\ufffd': [None]}
    """
    try:
        return _plain(value, MOST_LEVELS)
    except RecursionError:
        return _TOO_DEEP


def _plain(value: Any, levels: int) -> Any:
    kind = type(value)
    if kind in _SIMPLE:
        return value
    if kind is str:
        return value if value.isascii() else replace_surrogates(value)
    if kind is float:
        return value if isfinite(value) else None
    if kind is FrozenJson or kind is FrozenList:  # made here; it may stand a few levels deeper now
        return value
    if not levels:
        raise RecursionError
    levels -= 1
    if kind is list or kind is tuple:
        return FrozenList([_plain(item, levels) for item in value])
    made = {}
    for name, item in value.items():
        of = type(item)
        if of not in _SIMPLE and not (of is str and item.isascii()):  # most are: the quick way
            item = _plain(item, levels)
        made[name if name.isascii() else replace_surrogates(name)] = item
    return FrozenJson(made)


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


def parse_shallow(text: str) -> object:
    """Parse JSON that becomes a part of a request, which is nested more deeply than it.

    Raises:
        ValueError: it is not JSON, or is nested more deeply than `MOST_LEVELS`.
    """
    try:
        value = _decode(text)
        if text.count("[") + text.count("{") > MOST_LEVELS:
            _plain(value, MOST_LEVELS)
    except (UnicodeError, RecursionError):
        raise ValueError("it is nested too deeply, or cannot be encoded") from None
    return value


def json_text(value: object) -> str:
    """Encode a value that came from `decode_json`, on one line; lone surrogates become U+FFFD.

    Raises:
        RecursionError: it is nested too deeply.
    """
    return replace_surrogates(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
