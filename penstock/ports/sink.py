"""The writing end of a stream, for code that feeds it from something else than a provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

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

    def push_now(
        self, tokens: Sequence[tuple[str, TokenKind]], on_room: Callable[[], None], *, whole: bool = False
    ) -> int:
        """Push the tokens that there is room for; returns their number.

        If it is less than all, ``on_room`` is called once, when it is worth trying again or the stream has ended. It is
        called under a lock, in any thread, and must only send a message. With ``whole``, it is all of them or none, so
        that they can become one event; more of them than the buffer can hold are pushed in pieces all the same.

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

    def start_part(self, part: int, phase: Phase | None = None, origin: str | None = None) -> bool:
        """Begin a part of the answer with the next token; returns whether the stream takes it.

        See `penstock.events.AnswerPart`. No event has tokens from before and after it, even if the part is the same.
        """

    def annotate(self, changes: Mapping[str, Any]) -> None:
        """Add to the metadata that events carry from now on."""

    def reset(self, reason: str, on_done: Callable[[bool], None], origin: str | None = None) -> None:
        """Void what came so far: readers get a `StreamReset`, and what is buffered is discarded.

        With an ``origin``, only the text and the events of that origin are void. ``on_done`` is called in any thread,
        with False if the stream's actor crashed meanwhile; then try again.
        """

    def end(
        self,
        error: PenstockError | None = None,
        *,
        like: TerminalEvent | None = None,
        at_once: bool = False,
    ) -> None:
        """End the stream once what is buffered is out: with `StreamFailed` if there is an ``error``.

        Args:
            error: why it fails.
            like: a terminal event of another stream, with the finish reason, usage and calls that this one repeats.
            at_once: do not wait for a slow reader or a pause. What is buffered is only in ``partial``. Needs an error.
        """

    def attach(
        self,
        feeder: object | None,
        let_go: Callable[[], None],
        *,
        kind: str,
        parents: Sequence[str] = (),
        counters: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """Say what feeds the stream. Call it once, before the first token.

        Args:
            feeder: the ref of the process that feeds it from its parents.
            let_go: called once, in any thread, when the stream is about to end, before its terminal event is told:
                leaves the parents, and ends the feeder. Must not block.
            kind: for people: ``"map"``, ``"merge"``, ``"text"`` …
            parents: the ids of the streams that it is made from.
            counters: fields of the stream's `StreamStatistics` that the feeder counts, by name. Any thread.
        """

    def note_parent(self, stream_id: str) -> None:
        """Say that the stream is made from one more stream, as `attach` does for the first ones."""

    def cancel(self, reason: str | None = None) -> None:
        """End the stream with `StreamCancelled`, and discard what is buffered."""
