"""Estimates of the tokens of a request and its answer, used until the provider reports them. Pure."""

from __future__ import annotations

from typing import Any, Final

from penstock.events import Usage

__all__ = ["count_characters", "estimate_usage"]

_CHARACTERS_A_TOKEN: Final = 4
"""The providers' rule of thumb for English. Code and other languages have fewer, so the estimate may be too low."""
_FILE: Final = 1_000
"""Characters that an image or another file counts as: the length of its encoding says nothing about its tokens."""
_SEALED: Final = frozenset(
    {
        *("provider_blocks", "reasoning_blocks", "reasoning_details", "signature", "encrypted_content"),
        *("thoughtSignature", "thought_signature"),
    }
)
"""Fields for the provider that made them: they are not sent to others, and sealed text is longer than what it means."""


def count_characters(value: Any) -> int:
    """The number of characters in all strings in ``value``, without the names of fields and what is sealed.

    >>> count_characters([{"role": "user", "content": "Hello"}])
    9
    """
    count = 0
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            count += _FILE if one.startswith("data:") else len(one)
        elif isinstance(one, dict):
            rest += [item for name, item in one.items() if name not in _SEALED]
        elif isinstance(one, (list, tuple)):
            rest += one
    return count


def estimate_usage(asked: int, answered: int) -> Usage:
    """Estimate the tokens of a request of ``asked`` characters and an answer of ``answered``.

    >>> estimate_usage(9, 4).total_tokens
    4
    """
    asked, answered = (-(-characters // _CHARACTERS_A_TOKEN) for characters in (asked, answered))
    return Usage(input_tokens=asked, output_tokens=answered, total_tokens=asked + answered)
