"""Parsers for durations, rates and numbers written as text in files and environment variables. Pure."""

from __future__ import annotations

import math
import re

from penstock.errors import OptionError

__all__ = ["is_without", "parse_duration", "parse_number", "parse_optional_duration", "parse_rate"]

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_DURATION = re.compile(rf"\s*({_NUMBER})\s*(ms|s|m|h|d|)\s*")
_NUMBER_ALONE = re.compile(rf"\s*((?:{_NUMBER})(?:[eE][+-]?[0-9]+)?)\s*")
_WITHOUT = ("none", "unlimited")
_LONGEST = 100  # characters; float() is slow for very long text


def parse_duration(text: str, *, field: str = "duration") -> float:
    """Read ``"100ms"``, ``"2s"``, ``"1.5m"``, ``"1h"``, ``"7d"`` or a bare number of seconds.

    Raises:
        OptionError: ``text`` is anything else, a negative or infinite number included. ``field`` is the name in the
            error.

    >>> parse_duration("100ms"), parse_duration("1.5m"), parse_duration("2")
    (0.1, 90.0, 2.0)
    >>> parse_duration("fast", field="flush_interval")
    Traceback (most recent call last):
    penstock.errors.OptionError: flush_interval: got 'fast', allowed: a duration such as 100ms, 2s, 1.5m, 1h, 7d, or a number of seconds
    """  # noqa: E501
    found = _DURATION.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise OptionError(field, text, "a duration such as 100ms, 2s, 1.5m, 1h, 7d, or a number of seconds")
    number, unit = found.groups()
    # Dividing gives exactly 0.1 for 100ms; multiplying by 0.001 does so only if the rounding is lucky.
    return float(number) / 1000 if unit == "ms" else float(number) * _SECONDS[unit]


def parse_optional_duration(text: str, *, field: str = "duration") -> float | None:
    """Read a duration like `parse_duration`; ``"none"`` and ``"unlimited"`` give None.

    >>> parse_optional_duration("none"), parse_optional_duration("1h")
    (None, 3600.0)
    """
    if is_without(text):
        return None
    try:
        return parse_duration(text, field=field)
    except OptionError as error:
        raise OptionError(field, text, f"{error.allowed}, or none") from None


def parse_rate(text: str, *, field: str = "rate_limit") -> float | None:
    """Read a number of tokens per second; ``"none"`` and ``"unlimited"`` give None.

    >>> parse_rate("20"), parse_rate("unlimited")
    (20.0, None)
    """
    return parse_number(text, field=field, allowed="a number of tokens per second such as 20 or 0.5, or unlimited")


def parse_number(text: str, *, field: str, allowed: str = "a number such as 20 or 0.5, or none") -> float | None:
    """Read a number without a unit; ``"none"`` and ``"unlimited"`` give None.

    >>> parse_number("0.5", field="ratio")
    0.5
    """
    if is_without(text):
        return None
    found = _NUMBER_ALONE.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None or not math.isfinite(float(found[1])):
        raise OptionError(field, text, allowed)
    return float(found[1])


def is_without(text: str) -> bool:
    """Whether ``text`` means "no limit"."""
    return text.strip().lower() in _WITHOUT
