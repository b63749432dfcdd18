"""Readers: who runs requests, and whom they tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from penstock.config.options import RequestOptions
from penstock.errors import PenstockError
from penstock.ports.deltas import Delta
from penstock.ports.provider import Decoder, Provider, ProviderRequest

__all__ = [
    "HeaderSink",
    "OfferSink",
    "Reader",
    "ReaderJob",
    "ReaderSink",
]


class ReaderSink(Protocol):
    """Whom a reader tells. All methods are called from the reader's thread, in this order, and none raises.

    ``connecting`` → ``waiting`` → ``deltas`` … → ``ended``; ``ended`` is always the last and always comes, whatever
    was skipped before it.
    """

    def connecting(self) -> None:
        """A reader thread has taken the job."""

    def waiting(self) -> None:
        """The connection stands and the request is sent."""

    def deltas(self, deltas: Sequence[Delta]) -> bool:
        """What one read brought; blocks while the stream has no credit. ``False``: nobody wants more, stop."""

    def ended(self, decoder: Decoder | None, error: PenstockError | None) -> None:
        """The reading is over and its socket is closed or back in the pool.

        ``error`` is None when the body ended or the decoder was done; whether that is a complete answer is to be
        asked of ``decoder`` (None when no body ever came).
        """


@runtime_checkable
class HeaderSink(Protocol):
    """A sink that wants to see the answer's headers too."""

    def answered(self, headers: Mapping[str, str]) -> None:
        """Called between ``waiting`` and the first ``deltas``: a stream begins. Header names are in lower case."""


class OfferSink(ReaderSink, Protocol):
    """A sink for readers that have no thread to block."""

    def offer(self, deltas: Sequence[Delta], on_room: Callable[[], None]) -> bool | None:
        """The same as ``deltas`` without blocking. None: there was no room for some, which are kept here.

        ``on_room`` is then called once, in any thread, when it is time to offer again (nothing at all, to begin
        with); it must only send a message.
        """


class ReaderJob(Protocol):
    """One request under way."""

    def cancel(self) -> None:
        """Stop it, whatever it is doing: queued, connecting, waiting or reading. Any thread; idempotent; never blocks.

        The socket is closed within 100 ms and ``ended`` follows.
        """


class Reader(Protocol):
    """Runs requests on a bounded pool of threads."""

    def start(
        self, provider: Provider, request: ProviderRequest, options: RequestOptions, sink: ReaderSink
    ) -> ReaderJob:
        """Queue one request. Never blocks.

        Raises:
            ProviderError: the queue is full, or the reader is closed.
        """

    def statistics(self) -> Mapping[str, int]:
        """Counters: ``active``, ``queued``, ``started``, ``threads``, ``leaked``."""

    def close(self, timeout: float) -> int:
        """Cancel everything, end every thread, and say how many would not end within ``timeout`` seconds."""
