"""What watching a stream finds; see `Stream.insights`."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

import msgspec

from penstock.events import LoopDetected

__all__ = ["Insights", "InsightsReport"]


class InsightsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What has been counted and measured in a stream since its beginning, or since its last `StreamReset`.

    Rates, times, stalls and loops are not begun anew by a reset. Fields that end in ``_s`` are seconds.
    """

    characters: int = 0
    """Code points of the text."""
    reasoning_characters: int = 0
    words: int = 0
    """Divided by white space."""
    sentences: int = 0
    """With the last, open one."""
    lines: int = 0
    code_blocks: int = 0
    """Fenced ones that have begun."""
    tokens: int = 0
    """Of all kinds of text."""
    tokens_per_second: float = 0.0
    """Over the last ten seconds, or since the first token if that is less. So for the next one."""
    characters_per_second: float = 0.0
    inter_token_p50_s: float | None = None
    """Of the last 512 times between deliveries, divided by their number of tokens; None before the second."""
    inter_token_p95_s: float | None = None
    inter_token_p99_s: float | None = None
    stalls: int = 0
    """How often no token came for longer than is usual."""
    is_stalled: bool = False
    loops: int = 0
    """How often text repeated itself."""
    last_loop: LoopDetected | None = None
    """The last of them, as it was when it was found."""


class Insights(Protocol):
    """Watches one stream; made by `Stream.insights`. A context manager that closes it."""

    def report(self) -> InsightsReport:
        """What it has found so far; when the stream has ended, of all of it. Any thread; never blocks."""

    def close(self) -> None:
        """Watch no longer. Harmless if the stream has ended; any thread."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
