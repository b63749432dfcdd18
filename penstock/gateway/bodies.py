"""JSON that clients send, within limits that are checked before anything large is made of it. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from penstock.config.gateway import GatewayOptions
from penstock.gateway.problems import RequestRefused

__all__ = ["decode_object", "depth_of"]

_MOST_LISTS: Final = 250_000
"""Objects and lists in a body, each of which takes much more memory than the two bytes it is written with."""
_MOST_VALUES: Final = 2_000_000
_MOST_NAMES: Final = 500_000
"""Fields of all objects in a body."""


def decode_object(data: bytes | str, options: GatewayOptions) -> dict[str, Any]:
    """Decode a JSON object. The commas, colons and brackets in its texts count as if they were outside.

    Raises:
        RequestRefused: it is none, is nested too deeply, or has too many values or messages.
    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if raw.count(b"[") + raw.count(b"{") > _MOST_LISTS or _has_many(raw):
        raise RequestRefused.bad_request("The body has too many values.", code="too_many_values")
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError) as error:
        reason = str(error) if isinstance(error, msgspec.DecodeError) else "it is not UTF-8"
        raise RequestRefused.bad_request(f"The body is not JSON: {reason}.", code="invalid_json") from None
    except RecursionError:
        value = depth = None
    else:
        depth = depth_of(value, options.max_depth)
    if depth is None:
        text = f"The body is nested more than {options.max_depth} levels deep."
        raise RequestRefused.bad_request(text, code="nested_too_deeply")
    if not isinstance(value, dict):
        raise RequestRefused.bad_request("The body is not a JSON object.", code="invalid_json")
    for name in ("messages", "input"):
        given = value.get(name)
        if isinstance(given, list) and len(given) > options.max_messages:
            text = f"{name} has more than {options.max_messages} entries."
            raise RequestRefused.bad_request(text, name, "too_many_messages")
    return value


def _has_many(raw: bytes) -> bool:
    return raw.count(b",") > _MOST_VALUES or raw.count(b":") > _MOST_NAMES


def depth_of(value: Any, limit: int) -> int | None:
    """How deep a JSON value is nested; None: more than ``limit`` levels.

    >>> depth_of([{"a": 1}], 5), depth_of([[[1]]], 2)
    (2, None)
    """
    level: list[Any] = [value] if isinstance(value, (dict, list)) else []
    depth = 0
    while level:
        depth += 1
        if depth > limit:
            return None
        below: list[Any] = []
        for one in level:
            below += one.values() if isinstance(one, dict) else one
        level = [one for one in below if isinstance(one, (dict, list))]
    return depth
