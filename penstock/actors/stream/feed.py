"""The source of a stream's tokens, as the stream's record sees it."""

from __future__ import annotations

from typing import Protocol

from penstock.actors.runtime.process import ProcessRef
from penstock.actors.stream.outcome import Outcome
from penstock.events import SideEvent, Usage

__all__ = ["Feed"]


class Feed(Protocol):
    """Pushes tokens into a stream and proposes how it ends; a provider call is one.

    It outlives the processes that work on it. Every method may be called from any thread and never blocks.
    """

    ref: ProcessRef | None
    """The process at work, if there is one."""

    state: str
    """For people: ``"queued"``, ``"connecting"``, ``"streaming"`` …"""

    attempts: int
    """Requests made so far."""

    round: int
    """Counts the feeds of one stream, from 1. The outcomes of earlier rounds are in the stream's record."""

    @property
    def asked(self) -> tuple[str, str]:
        """The provider's name and the model's, as it was asked for: of the attempt under way, or the last one."""
        raise NotImplementedError

    started: bool
    """Whether it has delivered anything."""

    def outcome(self) -> Outcome:
        """Everything received so far except the text."""

    def bill(self, reported: Usage | None, *, is_over: bool) -> tuple[Usage | None, bool]:
        """The usage so far, and whether it is an estimate.

        Args:
            reported: the usage that the provider has reported.
            is_over: whether the stream has ended without completing.
        """

    def void_answer(self, said: int) -> None:
        """Note that the stream is reset: the first ``said`` characters of its text, as if never reset, are void."""

    def leftovers(self) -> list[SideEvent]:
        """Events that were held back until the answer begins, which it does not: the last ones of the stream.

        Call it after `cancel`. Each is returned once.
        """

    def cancel(self) -> None:
        """Stop: close the connection, release every place, and end the process at work. Harmless if it has ended."""

    def abandon(self) -> None:
        """Close the connection and release every place, without a message to the process at work."""
