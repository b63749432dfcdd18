"""What is left of Anthropic's rate limits, read from the headers of its responses."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime

from penstock.adapters.providers.shared.rate_limits import parse_date
from penstock.ports import Quota

__all__ = ["parse_quota", "wait_for_exhausted"]

_LIMITS = ("requests", "tokens", "input-tokens", "output-tokens")


def parse_quota(headers: Mapping[str, str]) -> Quota | None:
    """Read ``anthropic-ratelimit-…``; if input and output tokens have limits of their own, the scarcer one is used.

    Header names are in lower case. None: the headers contain no limits.
    """
    requests = _limit(headers, "requests")
    tokens = _limit(headers, "tokens")
    if tokens == (None, None):
        limits = [
            limit for kind in ("input-tokens", "output-tokens") if (limit := _limit(headers, kind))[0] is not None
        ]
        tokens = min(limits, key=lambda limit: limit[0] or 0, default=tokens)
    quota = Quota(
        requests_left=requests[0],
        requests_reset_s=requests[1],
        tokens_left=tokens[0],
        tokens_reset_s=tokens[1],
    )
    return None if quota == Quota() else quota


def wait_for_exhausted(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until all exhausted limits have reset; None: the headers contain no such limit."""
    limits = [_limit(headers, kind) for kind in _LIMITS]
    return max((reset for left, reset in limits if left == 0 and reset is not None), default=None)


def _limit(headers: Mapping[str, str], kind: str) -> tuple[int | None, float | None]:
    """Return what is left of one limit, and the seconds until it resets."""
    left = headers.get(f"anthropic-ratelimit-{kind}-remaining", "").strip()
    reset = headers.get(f"anthropic-ratelimit-{kind}-reset", "")
    return int(left) if left.isdecimal() and len(left) < 16 else None, _seconds_until(reset, headers)


def _seconds_until(when: str, headers: Mapping[str, str]) -> float | None:
    """Return the seconds until an RFC 3339 time, by the server's own clock if it sends it."""
    try:
        at = datetime.fromisoformat(when.strip()).timestamp()
    except (ValueError, OverflowError):
        return None
    now = parse_date(headers.get("date"))
    return max(at - (time.time() if now is None else now), 0.0)
