"""`LoopReader`: a `Reader` for thousands of calls at once. A few threads send the requests, one reads all answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Final, cast

from penstock.adapters.http.faults import unexpected_failure
from penstock.adapters.http.loop import Loop
from penstock.adapters.http.loop_exchange import LoopExchange
from penstock.adapters.http.pool import Pool
from penstock.adapters.http.transport import LazyTransport
from penstock.config.checks import check_number
from penstock.config.options import RequestOptions
from penstock.errors import ProviderError
from penstock.ports import OfferSink, Provider, ProviderRequest, ReaderJob, ReaderSink

__all__ = ["LoopReader"]

_KEPT: Final = 256
"""Connections to one endpoint that are kept for further requests."""


class LoopReader:
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
    """

    def __init__(
        self,
        max_openers: int = 32,
        *,
        max_queue: int = 10_000,
        idle_timeout: float = 5.0,
        transport: LazyTransport | None = None,
    ) -> None:
        check_number("max_openers", max_openers, 1, 1_000, whole=True)
        check_number("max_queue", max_queue, 0, 10_000_000, whole=True)
        check_number("idle_timeout", idle_timeout, 0, 86_400)
        self._transport = transport or LazyTransport(_KEPT)
        self._pool: Pool[LoopExchange] = Pool(self._run, "penstock-opener", max_openers, max_queue, idle_timeout)
        self._lock = threading.Lock()  # guards the three fields below
        self._loop: Loop | None = None
        self._running: set[LoopExchange] = set()  # whose sinks do not know of their end
        self._closed = False

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

    def statistics(self) -> Mapping[str, int]:
        """Count ``active``, ``queued``, ``started`` (ever), ``threads``, and ``leaked``: alive after ``close``.

        A request is not active any more when its sink gets to know of its end.
        """
        _, queued, started, threads = self._pool.counts()
        with self._lock:
            active = max(0, len(self._running) - queued)
            threads += self._loop is not None and self._loop.thread.is_alive()
        return {
            "active": active,
            "queued": queued,
            "started": started,
            "threads": threads,
            "leaked": threads if self._closed else 0,
        }

    def close(self, timeout: float) -> int:
        """Cancel all requests and end all threads. Returns how many were still running after ``timeout`` seconds.

        A thread that is stuck (in a name lookup, or in a sink that does not return) ends when that returns; until then
        it is counted as ``leaked``. Idempotent. If one of the reader's own threads calls this, it is not waited for.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            running, loop = list(self._running), self._loop
        self._pool.close()
        for exchange in running:
            exchange.cancel()
        if loop is not None:
            loop.close()
        me = threading.current_thread()
        for thread in self._threads():
            if thread is not me:
                thread.join(max(deadline - time.monotonic(), 0))
        self._transport.close()
        return sum(thread.is_alive() for thread in self._threads() if thread is not me)

    def _threads(self) -> list[threading.Thread]:
        with self._lock:
            loop = self._loop
        return [*self._pool.threads(), *([loop.thread] if loop is not None else [])]

    def _started_loop(self) -> Loop:
        with self._lock:
            if self._closed:
                raise ProviderError("the reader is closed")
            if self._loop is None:
                try:
                    loop = Loop("penstock-reader-loop")
                    loop.start()
                except RuntimeError as error:
                    raise ProviderError("no reader thread can be started") from error
                except OSError as error:
                    raise unexpected_failure(error) from None
                self._loop = loop
            return self._loop

    def _run(self, exchange: LoopExchange) -> None:
        exchange.run(self._transport)

    def _forget(self, exchange: LoopExchange) -> None:
        with self._lock:
            self._running.discard(exchange)
