"""Token counts under the names that browsers' protocols use, counted in one way for all providers."""

from __future__ import annotations

from typing import Final

from penstock.config.providers import find_known_provider
from penstock.events import Usage

__all__ = ["token_counts"]

_MOST: Final = 2**53 - 1  # JavaScript has no larger exact integer


def token_counts(usage: Usage | None, provider: str | None) -> dict[str, int]:
    """The counts that are known: input with what came from a cache, output with reasoning, and parts of them.

    Anthropic counts cached input beside the input, Gemini reasoning beside the output; here they are inside.

    >>> token_counts(Usage(input_tokens=2, output_tokens=3, cached_tokens=10), "anthropic")
    {'inputTokens': 12, 'outputTokens': 3, 'totalTokens': 15, 'cachedInputTokens': 10}
    """
    if usage is None:
        return {}
    row = find_known_provider(provider or "")
    dialect = row.dialect if row is not None else ""
    given, made = usage.input_tokens, usage.output_tokens
    if given is not None and dialect == "anthropic":
        given += (usage.cached_tokens or 0) + (usage.cache_write_tokens or 0)
    if made is not None and dialect == "gemini":
        made += usage.reasoning_tokens or 0
    if given is not None and dialect == "gemini":
        given += usage.tool_input_tokens or 0
    counts = {
        "inputTokens": given,
        "outputTokens": made,
        "totalTokens": usage.total_tokens if given is None or made is None else given + made,
        "reasoningTokens": usage.reasoning_tokens,
        "cachedInputTokens": usage.cached_tokens,
        "cacheWriteInputTokens": usage.cache_write_tokens,
    }
    return {name: min(count, _MOST) for name, count in counts.items() if count is not None}
