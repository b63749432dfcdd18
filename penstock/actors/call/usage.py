"""How many tokens a request will probably use, and an answer has used, while nobody has told. Pure."""

from __future__ import annotations

from typing import Any, Final

from penstock.events import Usage

__all__ = ["count_characters", "estimate_usage"]

_CHARACTERS_A_TOKEN: Final = 4
"""As providers say of English; too few for code and other languages, which makes the estimate err to the low side."""
_FILE: Final = 1_000
"""Characters that an image or another file is taken for: what it is encoded in says nothing of its tokens."""


def count_characters(value: Any) -> int:
    """The characters of all texts in ``value``, names of fields not counted.

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
            rest += one.values()
        elif isinstance(one, (list, tuple)):
            rest += one
    return count


def estimate_usage(asked: int, answered: int) -> Usage:
    """The tokens of so many characters.

    >>> estimate_usage(9, 4).total_tokens
    4
    """
    asked, answered = (-(-characters // _CHARACTERS_A_TOKEN) for characters in (asked, answered))
    return Usage(input_tokens=asked, output_tokens=answered, total_tokens=asked + answered)
