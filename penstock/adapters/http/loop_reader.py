"""`LoopReader`: a `Reader` for thousands of calls at once. A few threads send the requests, one reads all answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, cast

from penstock.adapters.http.faults import unexpected_failure
from penstock.adapters.http.loop import Loop
from penstock.adapters.http.loop_exchange import LoopExchange
from penstock.adapters.http.pooled import PooledReader
from penstock.adapters.http.transport import LazyTransport
from penstock.config.checks import check_number
from penstock.config.options import RequestOptions
from penstock.errors import ProviderError
from penstock.ports import OfferSink, Provider, ProviderRequest, ReaderJob, ReaderSink

__all__ = ["LoopReader"]

_KEPT: Final = 256
"""Connections to one endpoint that are kept for further requests."""


class LoopReader(PooledReader[LoopExchange]):
    """Implements `Reader`: up to ``max_openers`` threads connect and send requests, one thread reads all answers.

    The sinks must be `OfferSink`, and neither they nor the decoders may block or compute for long: they run in the
    loop's thread, like `ReaderJob.cancel`'s effects. Each call under way takes one file descriptor.

    Connections, proxies, TLS, cookies, redirects and ``netrc`` are as with `HttpReader`. A cancelled request ends at
    once even during the lookup of a host name, although the opener's thread comes back only when the lookup returns.

    Args:
        max_openers: threads that connect and send; the only ones that may block.
        max_queue: how many requests may wait for an opener.
        idle_timeout: seconds after which an idle opener ends.
        transport: shared with another reader; None makes one.
        around_reads: called in the loop's thread before and after the reads of each turn; must not raise.
    """

    def __init__(
        self,
        max_openers: int = 32,
        *,
        max_queue: int = 10_000,
        idle_timeout: float = 5.0,
        transport: LazyTransport | None = None,
        around_reads: tuple[Callable[[], None], Callable[[], None]] | None = None,
    ) -> None:
        check_number("max_openers", max_openers, 1, 1_000, whole=True)
        transport = transport or LazyTransport(_KEPT)
        super().__init__("penstock-opener", max_openers, max_queue, idle_timeout, transport)
        self._around_reads = around_reads or ()
        self._loop: Loop | None = None
        self._running: set[LoopExchange] = set()  # whose sinks do not know of their end

    def __repr__(self) -> str:
        seen = self.statistics()
        return f"LoopReader(active={seen['active']}, queued={seen['queued']}, threads={seen['threads']})"

    def start(
        self, provider: Provider, request: ProviderRequest, options: RequestOptions, sink: ReaderSink
    ) -> ReaderJob:
        """Queue one request; an opener takes it at once unless all ``max_openers`` are busy. Never blocks.

        Raises:
            ProviderError: ``max_queue`` requests are waiting, the reader is closed, no thread can be started, or no
                file descriptors are left for the loop.
        """
        loop = self._started_loop()
        exchange = LoopExchange(
            provider,
            request,
            options,
            cast("OfferSink", sink),
            loop,
            withdraw=self._pool.withdraw,
            forget=self._forget,
        )
        with self._lock:
            self._running.add(exchange)
        try:
            self._pool.submit(exchange)
        except BaseException:
            self._forget(exchange)
            raise
        return exchange

    def _counts(self, running: list[LoopExchange], queued: int) -> tuple[int, int]:
        with self._lock:
            return max(0, len(self._running) - queued), self._loop is not None and self._loop.thread.is_alive()

    def _cancel_all(self, in_pool: list[LoopExchange]) -> None:
        with self._lock:
            running, loop = list(self._running), self._loop
        for exchange in running:
            exchange.cancel()
        if loop is not None:
            loop.close()

    def _all_threads(self) -> list[threading.Thread]:
        with self._lock:
            loop = self._loop
        return [*super()._all_threads(), *([loop.thread] if loop is not None else [])]

    def _started_loop(self) -> Loop:
        with self._lock:
            if self._closed:
                raise ProviderError("the reader is closed")
            if self._loop is None or self._loop.is_over:  # its poll has failed
                try:
                    loop = Loop("penstock-reader-loop", None, *self._around_reads)
                    loop.start()
                except RuntimeError as error:
                    raise ProviderError("no reader thread can be started") from error
                except OSError as error:
                    raise unexpected_failure(error) from None
                self._loop = loop
            return self._loop

    def _forget(self, exchange: LoopExchange) -> None:
        with self._lock:
            self._running.discard(exchange)
