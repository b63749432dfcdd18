"""Token counts under the names that browsers' protocols use, counted in one way for all providers."""

from __future__ import annotations

from typing import Final

from penstock.config.counting import dialect_of, inclusive_counts
from penstock.events import TerminalEvent

__all__ = ["token_counts"]

_MOST: Final = 2**53 - 1  # JavaScript has no larger exact integer


def token_counts(terminal: TerminalEvent) -> dict[str, int]:
    """The counts that are known, inclusive, see `inclusive_counts`: input, output, their sum, and parts of them."""
    usage = terminal.usage
    if usage is None:
        return {}
    given, made = inclusive_counts(usage, dialect_of(terminal))
    counts = {
        "inputTokens": given,
        "outputTokens": made,
        "totalTokens": usage.total_tokens if given is None or made is None else given + made,
        "reasoningTokens": usage.reasoning_tokens,
        "cachedInputTokens": usage.cached_tokens,
        "cacheWriteInputTokens": usage.cache_write_tokens,
    }
    return {name: min(count, _MOST) for name, count in counts.items() if count is not None}
