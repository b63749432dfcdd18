"""Sources: what yields the pieces that a stream is fed with. Made by `penstock.sources`; anyone may write another."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import msgspec

from penstock.events import SideEvent, TerminalEvent, TokenEvent
from penstock.ports.deltas import Delta

__all__ = ["Annotate", "Item", "Pause", "Source", "Void"]


class Pause(msgspec.Struct, frozen=True):
    """Yield the next item only after ``seconds``. No thread waits for that."""

    seconds: float


class Void(msgspec.Struct, frozen=True):
    """What has been yielded so far is void: readers get a `StreamReset`."""

    reason: str


class Annotate(msgspec.Struct, frozen=True):
    """Add to the metadata of the stream's events, from the next one on."""

    changes: Mapping[str, Any]


Item: TypeAlias = str | bytes | Delta | TokenEvent | SideEvent | TerminalEvent | Pause | Void | Annotate
"""What a source yields.

A str is one token, bytes are UTF-8 (a character may be split between two), deltas are what decoders make, and events
are passed on with numbers of the stream's own. A terminal event is how the stream ends; without one it completes.
"""


@runtime_checkable
class Source(Protocol):
    """Yields the pieces of one stream. It is read once."""

    kind: str
    """For people: ``"text"``, ``"json_lines"`` …"""

    blocks: bool
    """Whether `open` and its iterator may wait. Those that do not are read without a thread."""

    def open(self) -> Iterable[Any] | AsyncIterable[Any]:
        """Return what yields the `Item` values. Called once, where it is then read: in a thread, or on a loop."""

    def cancel(self) -> None:
        """Have a read that waits end soon: the stream is over. Any thread; must not block."""

    def counters(self) -> Mapping[str, Any]:
        """Fields of the stream's `StreamStatistics`, by name. Any thread."""
