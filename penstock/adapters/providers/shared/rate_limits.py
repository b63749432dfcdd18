"""What is left of a provider's rate limits, read from the headers of its responses."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from penstock.adapters.providers.shared.json_values import whole_number
from penstock.ports import Quota

__all__ = ["parse_date", "parse_quota", "parse_seconds", "wait_for_exhausted"]


def parse_quota(headers: Mapping[str, str]) -> Quota | None:
    """Read ``x-ratelimit-remaining-…`` and ``…-reset-…`` (OpenAI and most others), else ``ratelimit-…`` (IETF).

    Header names are in lower case. None: the headers contain no limits.
    """
    quota = Quota(
        requests_left=_count(headers, _REQUESTS),
        requests_reset_s=_reset(headers, _REQUESTS),
        tokens_left=_count(headers, _TOKENS),
        tokens_reset_s=_reset(headers, _TOKENS),
    )
    return None if quota == Quota() else quota


# ``*`` is "remaining" or "reset". Cerebras and Mistral have a limit for each period; the shortest period is used.
_REQUESTS = (
    "x-ratelimit-*-requests",
    "x-ratelimit-*-requests-minute",
    "x-ratelimit-*-requests-day",
    "ratelimit-*",
    "x-ratelimit-*",
)
_TOKENS = ("x-ratelimit-*-tokens", "x-ratelimit-*-tokens-minute", "x-ratelimitbysize-*-minute")


def wait_for_exhausted(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until the limit that refused a request (status 429) resets; None: unknown.

    A limit that is not exhausted was not the reason, or does not require the full wait: resets are given for the
    whole limit, and a request slightly larger than what is left fits long before that.
    """
    quota = parse_quota(headers)
    if quota is None:
        return None
    limits = [(quota.requests_left, quota.requests_reset_s), (quota.tokens_left, quota.tokens_reset_s)]
    exhausted = [reset for left, reset in limits if left is not None and left <= 0 and reset is not None]
    unknown = [reset for left, reset in limits if left is None and reset is not None]
    return max(exhausted or unknown, default=None)


def parse_seconds(text: str | None) -> float | None:
    """Read a duration: plain seconds, or Go's notation.

    >>> [parse_seconds(text) for text in ("2.5", "12ms", "6m0s", "1h2m", "soon")]
    [2.5, 0.012, 360.0, 3720.0, None]
    """
    text = (text or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        terms = _DURATION.findall(text)
        if not terms or "".join(number + unit for number, unit in terms) != text:
            return None
        seconds = sum(float(number) * _UNITS[unit] for number, unit in terms)
    return max(seconds, 0.0) if math.isfinite(seconds) else None


_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_UNITS |= {"\u00b5s": 1e-6, "\u00c2\u00b5s": 1e-6}  # microseconds; http.client reads UTF-8 as Latin-1
_DURATION = re.compile(rf"(\d{{1,15}}(?:\.\d{{0,15}})?)({'|'.join(sorted(_UNITS, key=len, reverse=True))})")


def parse_date(text: str | None) -> float | None:
    """Read an HTTP date as seconds since the epoch."""
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _count(headers: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    for name in names:
        try:
            count = whole_number(float(headers.get(name.replace("*", "remaining"), "")))
        except ValueError:
            continue
        if count is not None:
            return count
    return None


_EARLIEST_EPOCH = 1e9  # a reset of more seconds than this is a point in time (OpenRouter: in milliseconds)


def _reset(headers: Mapping[str, str], names: tuple[str, ...]) -> float | None:
    for name in names:
        seconds = parse_seconds(headers.get(name.replace("*", "reset")))
        if seconds is None:
            continue
        if seconds >= _EARLIEST_EPOCH:
            at = seconds / 1000 if seconds >= _EARLIEST_EPOCH * 1000 else seconds
            now = parse_date(headers.get("date"))  # the server's own clock, if it sends it
            return max(at - (time.time() if now is None else now), 0.0)
        return seconds
    return None
