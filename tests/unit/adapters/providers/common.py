"""What the decoders' tests share."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


def nested(depth: int) -> str:
    """Return a JSON object with ``depth`` levels."""
    return '{"a":' * depth + "1" + "}" * depth


def telling_depths() -> Iterator[int]:
    """Yield numbers of levels that are harmless, at the limit of this Python version's recursion, and far beyond it."""
    readable, unreadable = 100, 1_000_000
    while unreadable - readable > 1:
        middle = (readable + unreadable) // 2
        try:
            msgspec.json.decode(nested(middle))
            readable = middle
        except RecursionError:
            unreadable = middle
    yield 100
    yield from range(readable - 100, readable + 50)
    yield 5 * readable
