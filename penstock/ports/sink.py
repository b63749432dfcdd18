"""The writing end of a stream, for code that feeds it from something else than a provider."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from penstock.errors import PenstockError
from penstock.events import Phase, SideEvent, TerminalEvent, TokenKind

__all__ = ["Sink"]


class Sink(Protocol):
    """Feeds one stream without ever blocking. Made by `Stream.sink`; combinators and sources stand on it.

    All methods may be called from any thread.
    """

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended: nothing more is taken."""

    def push_now(self, tokens: Sequence[tuple[str, TokenKind]], on_room: Callable[[], None]) -> int:
        """Push the tokens that there is room for; returns their number.

        If it is less than all, ``on_room`` is called once, when it is worth trying again or the stream has ended. It is
        called under a lock, in any thread, and must only send a message.

        Raises:
            StreamClosed: the stream has ended.
        """

    def push_event(self, event: SideEvent) -> bool:
        """Push an event that is not text, after the tokens before it; returns whether the stream takes it.

        It needs no room.
        """

    def offer_event(self, event: SideEvent, on_room: Callable[[], None]) -> bool:
        """Push an event if there is room for it, after the tokens before it; returns whether there was.

        If not, ``on_room`` is called as by `push_now`.

        Raises:
            StreamClosed: the stream has ended.
        """

    def start_part(self, part: int, phase: Phase | None = None) -> bool:
        """Begin a part of the answer with the next token; returns whether the stream takes it.

        See `penstock.events.AnswerPart`.
        """

    def reset(self, reason: str, on_done: Callable[[bool], None]) -> None:
        """Void what came so far: readers get a `StreamReset`, and what is buffered is discarded.

        ``on_done`` is called in any thread, with False if the stream's actor crashed meanwhile; then try again.
        """

    def end(self, error: PenstockError | None = None, *, like: TerminalEvent | None = None) -> None:
        """End the stream once what is buffered is out: with `StreamFailed` if there is an ``error``.

        Args:
            error: why it fails.
            like: a terminal event of another stream, with the finish reason, usage and calls that this one repeats.
        """

    def cancel(self, reason: str | None = None) -> None:
        """End the stream with `StreamCancelled`, and discard what is buffered."""
