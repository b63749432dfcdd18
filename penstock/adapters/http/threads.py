"""`HttpReader`, the default `Reader` for few calls at once: requests on a bounded pool of threads."""

from __future__ import annotations

import contextlib
import threading
from collections import deque

from penstock.adapters.http.exchange import HttpExchange
from penstock.adapters.http.pooled import PooledReader
from penstock.adapters.http.transport import LazyTransport
from penstock.config.checks import check_number
from penstock.config.options import RequestOptions
from penstock.ports import Provider, ProviderRequest, ReaderJob, ReaderSink

__all__ = ["HttpReader"]


class HttpReader(PooledReader[HttpExchange]):
    """Implements `Reader`: each request occupies one thread from its start to its end.

    Threads are started when there is work and no idle one, up to ``max_threads``, and end after ``idle_timeout``
    seconds without work. Connections are kept alive and shared; proxies and the CA bundle are read from the
    environment once for each origin. Cookies are not kept, redirects not followed, and ``netrc`` is not read.

    A silent endpoint cannot keep the threads of others; see `Pool`.

    The socket of a cancelled request is closed at once, with one exception: the lookup of a host name cannot be
    interrupted, so a cancel during it takes effect when it returns.

    Args:
        max_threads: requests that run at once.
        max_queue: how many requests may wait for a thread.
        idle_timeout: seconds after which an idle thread ends.
        transport: shared with another reader; None makes one.
    """

    def __init__(
        self,
        max_threads: int = 256,
        *,
        max_queue: int = 10_000,
        idle_timeout: float = 10.0,
        transport: LazyTransport | None = None,
    ) -> None:
        check_number("max_threads", max_threads, 1, 100_000, whole=True)
        transport = transport or LazyTransport(max_threads)
        super().__init__("penstock-reader", max_threads, max_queue, idle_timeout, transport)
        self._dismissed: deque[HttpExchange] = deque()  # cancelled while queued; their sinks do not know it yet
        self._dismisser: threading.Thread | None = None
        self._retired: list[threading.Thread] = []  # dismissers that are about to end

    def __repr__(self) -> str:
        active, queued, _, threads = self._pool.counts()
        return f"HttpReader(active={len(active)}, queued={queued}, threads={threads})"

    def start(
        self, provider: Provider, request: ProviderRequest, options: RequestOptions, sink: ReaderSink
    ) -> ReaderJob:
        """Queue one request; a thread takes it at once unless all ``max_threads`` are busy. Never blocks.

        Raises:
            ProviderError: ``max_queue`` requests are waiting, the reader is closed, or no thread can be started.
        """
        exchange = HttpExchange(provider, request, options, sink, self._cancelled)
        self._pool.submit(exchange)
        return exchange

    @property
    def load(self) -> int:
        """Requests that run or wait. Approximate."""
        return self._pool.load

    def _counts(self, running: list[HttpExchange], queued: int) -> tuple[int, int]:
        return sum(not exchange.has_ended for exchange in running), self._dismisser is not None

    def _cancel_all(self, in_pool: list[HttpExchange]) -> None:
        for exchange in in_pool:
            exchange.cancel()

    def _all_threads(self) -> list[threading.Thread]:
        with self._lock:
            dismissers = [*self._retired, *([self._dismisser] if self._dismisser else [])]
        return [*super()._all_threads(), *dismissers]

    # --- cancelling queued requests --------------------------------------------------------------------------------

    def _cancelled(self, exchange: HttpExchange) -> None:
        """Take a cancelled request out of the queue. A separate thread calls the sink, as all others may be busy."""
        if not self._pool.withdraw(exchange):
            return
        with self._lock:
            self._dismissed.append(exchange)
            if self._dismisser is not None:
                return
            self._retired = [retired for retired in self._retired if retired.is_alive()]
            dismisser = threading.Thread(target=self._dismiss_and_end, name="penstock-reader-dismisser", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads
                dismisser.start()  # it waits for the lock
                self._dismisser = dismisser
                return
        self._dismiss_all()  # in the caller's thread rather than never

    def _dismiss_and_end(self) -> None:
        while True:
            self._dismiss_all()
            with self._lock:
                if not self._dismissed:
                    self._retired.append(threading.current_thread())
                    self._dismisser = None
                    return

    def _dismiss_all(self) -> None:
        while True:
            with self._lock:
                if not self._dismissed:
                    return
                exchange = self._dismissed.popleft()
            exchange.dismiss()
