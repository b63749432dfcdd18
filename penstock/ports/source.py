"""Sources: what yields the pieces that a stream is fed with. Made by `penstock.sources`; anyone may write another."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import msgspec

from penstock.config.options import RequestOptions
from penstock.events import SideEvent, TerminalEvent, TokenEvent
from penstock.ports.deltas import Delta
from penstock.ports.reading import Reader

__all__ = ["Annotate", "Item", "Pause", "PushedSource", "Source", "Void"]


class Pause(msgspec.Struct, frozen=True):
    """Yield the next item only after ``seconds``. No thread waits for that."""

    seconds: float


class Void(msgspec.Struct, frozen=True):
    """What has been yielded so far, or all of one ``origin``, is void: readers get a `StreamReset`."""

    reason: str
    origin: str | None = None


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

    on_own_loop: bool
    """Whether an async iterator is always read on the system's own event loop."""

    def open(self) -> Iterable[Any] | AsyncIterable[Any]:
        """Return what yields the `Item` values. Called once, where it is then read: in a thread, or on a loop."""

    def cancel(self) -> None:
        """Have a read that waits end soon: the stream is over. Any thread; must not block."""

    def counters(self) -> Mapping[str, Any]:
        """Fields of the stream's `StreamStatistics`, by name. Any thread."""


@runtime_checkable
class PushedSource(Protocol):
    """Has its items pushed by a thread that is not the stream's, such as a reader's. It is started once."""

    kind: str
    """As for `Source`."""

    limits: RequestOptions | None
    """The times within which the first item, each next one and all of them have to come; None: no limits."""

    def start(
        self,
        reader: Reader,
        push: Callable[[Any], bool],
        end: Callable[[BaseException | None], None],
    ) -> None:
        """Begin to push. Must not block.

        Args:
            reader: runs HTTP requests.
            push: takes an `Item`, and waits while the stream has no room; returns False once nothing more is wanted.
            end: called once, after the last item, with the error if there was one.
        """

    def cancel(self) -> None:
        """Push no more: the stream is over. Any thread; must not block."""

    def counters(self) -> Mapping[str, Any]:
        """As for `Source`."""
