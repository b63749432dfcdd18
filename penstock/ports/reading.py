"""Readers: they run provider requests and report to a sink."""

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
    """What a reader reports to. All methods are called in the reader's thread and must not raise.

    The order is ``connecting`` → ``waiting`` → ``deltas`` … → ``ended``. Any of the first three may be missing;
    ``ended`` is always called, once and last.
    """

    def connecting(self) -> None:
        """A thread has taken the job, and connects."""

    def waiting(self) -> None:
        """The connection is established and the request has been sent."""

    def deltas(self, deltas: Sequence[Delta]) -> bool:
        """Take the deltas of one read. Blocks while the stream has no credit. Returns False to stop reading."""

    def ended(self, decoder: Decoder | None, error: PenstockError | None) -> None:
        """Reading has ended; the socket is closed or back in the pool.

        ``error`` is None if the body ended or the decoder was done; ask ``decoder`` whether the answer is complete.
        ``decoder`` is None if no body came.
        """


@runtime_checkable
class HeaderSink(Protocol):
    """A sink that also gets the response headers."""

    def answered(self, headers: Mapping[str, str]) -> None:
        """Take the response headers (names in lower case). Called between ``waiting`` and the first ``deltas``."""


class OfferSink(ReaderSink, Protocol):
    """A sink for readers that have no thread of their own to block."""

    @property
    def may_block(self) -> bool:
        """Whether its methods, the provider or the decoder run code of the application, which may take any time.

        A reader that serves other calls in the same thread must not take such a request.
        """

    def offer(self, deltas: Sequence[Delta], on_room: Callable[[], None]) -> bool | None:
        """Do the same as ``deltas`` without blocking.

        Returns None if there was no room for all deltas. The sink keeps the rest and calls ``on_room`` once, in any
        thread, when it is time to offer again, first an empty sequence. ``on_room`` may do no more than send a message.
        """


class ReaderJob(Protocol):
    """One request in progress."""

    def cancel(self) -> None:
        """Cancel the request, whether queued, connecting, waiting or reading.

        Any thread; idempotent; never blocks. The socket is closed within 100 ms, then ``ended`` is called.
        A name lookup under way cannot be interrupted.
        """


class Reader(Protocol):
    """Runs requests on a bounded number of threads."""

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
        """Cancel all requests, end all threads, and return how many did not end within ``timeout`` seconds."""
