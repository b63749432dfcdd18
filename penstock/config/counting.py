"""Counts of tokens in one way for all providers, whose own ways differ."""

from __future__ import annotations

from typing import NamedTuple

from penstock.config.providers import Dialect, find_known_provider
from penstock.events import TerminalEvent, Usage

__all__ = ["TokenCounts", "dialect_of", "exclusive_counts", "inclusive_counts"]


class TokenCounts(NamedTuple):
    """Tokens of a prompt and of its answer; None: not reported."""

    asked: int | None
    answered: int | None


def dialect_of(terminal: TerminalEvent) -> Dialect | None:
    """The wire format in which an answer came; None: not known, since the provider is one of the user's own.

    Anthropic's is also known by the ids that it gives to messages. What counts include depends on it.
    """
    row = find_known_provider(terminal.provider or "")
    if row is not None:
        return row.dialect
    return "anthropic" if str(terminal.provider_metadata.get("response_id", "")).startswith("msg_") else None


def inclusive_counts(usage: Usage, dialect: Dialect | None) -> TokenCounts:
    """The counts as OpenAI has them: input with what a cache was read or written for, output with reasoning.

    Anthropic counts what it read from and wrote to its cache beside the input, Gemini counts reasoning beside the
    output and what its tools returned beside the input: they are added here. The others' counts are so already.

    >>> inclusive_counts(Usage(input_tokens=2, output_tokens=3, cached_tokens=10), "anthropic")
    TokenCounts(asked=12, answered=3)
    """
    asked, answered = usage.input_tokens, usage.output_tokens
    if asked is not None and dialect == "anthropic":
        asked += (usage.cached_tokens or 0) + (usage.cache_write_tokens or 0)
    if asked is not None and dialect == "gemini":
        asked += usage.tool_input_tokens or 0
    if answered is not None and dialect == "gemini":
        answered += usage.reasoning_tokens or 0
    return TokenCounts(asked, answered)


def exclusive_counts(usage: Usage, dialect: Dialect | None) -> TokenCounts:
    """The counts as Anthropic has them: input without what a cache was read or written for, output with reasoning.

    >>> exclusive_counts(Usage(input_tokens=12, output_tokens=3, cached_tokens=10), "openai-chat")
    TokenCounts(asked=2, answered=3)
    """
    asked, answered = inclusive_counts(usage, dialect)
    if asked is not None:
        asked = max(0, asked - (usage.cached_tokens or 0) - (usage.cache_write_tokens or 0))
    return TokenCounts(asked, answered)
