"""`HttpReader`, the default `Reader`: requests on a bounded pool of threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from penstock.adapters.http.exchange import HttpExchange, Transport
from penstock.config.checks import check_number
from penstock.config.options import RequestOptions
from penstock.errors import ProviderError
from penstock.ports import Provider, ProviderRequest, ReaderJob, ReaderSink

if TYPE_CHECKING:
    from penstock.adapters.http.session import SharedSession

__all__ = ["HttpReader"]

_SHARE = 16  # an endpoint may have another thread while it has fewer than 16 times as many as are free
_FEW_THREADS = 3  # fewer threads are not shared out


class HttpReader:
    """Implements `Reader`: each request occupies one thread from its start to its end.

    Threads are started when there is work and no idle one, up to ``max_threads``, and end after ``idle_timeout``
    seconds without work. Connections are kept alive and shared; proxies and the CA bundle are read from the
    environment once for each origin. Cookies are not kept, redirects not followed, and ``netrc`` is not read.

    A silent endpoint cannot keep the threads of others: an endpoint that has threads gets another one only while it has
    fewer than 16 times as many as are free, and never the last free one.

    The socket of a cancelled request is closed at once, with one exception: the lookup of a host name cannot be
    interrupted, so a cancel during it takes effect when it returns.
    """

    def __init__(self, max_threads: int = 256, *, max_queue: int = 10_000, idle_timeout: float = 10.0) -> None:
        check_number("max_threads", max_threads, 1, 100_000, whole=True)
        check_number("max_queue", max_queue, 0, 10_000_000, whole=True)
        check_number("idle_timeout", idle_timeout, 0, 86_400)
        self._max_threads = max_threads
        self._max_queue = max_queue
        self._idle_timeout = idle_timeout
        self._session: SharedSession | None = None
        self._session_lock = threading.Lock()
        self._lock = threading.Lock()
        self._has_work = threading.Condition(self._lock)
        self._queues: dict[
            str, dict[HttpExchange, None]
        ] = {}  # by endpoint, in the order in which they have their turn
        self._busy: Counter[str] = Counter()  # requests at work, by endpoint
        self._idle = 0  # threads that wait for work
        self._dismissed: deque[HttpExchange] = deque()  # cancelled while queued; their sinks do not know it yet
        self._active: set[HttpExchange] = set()
        self._threads: set[threading.Thread] = set()
        self._queued = 0
        self._started = 0
        self._retired: set[threading.Thread] = set()  # ended, or about to end
        self._dismisser: threading.Thread | None = None
        self._closed = False

    def __repr__(self) -> str:
        with self._lock:
            return f"HttpReader(active={len(self._active)}, queued={self._queued}, threads={len(self._threads)})"

    def start(
        self, provider: Provider, request: ProviderRequest, options: RequestOptions, sink: ReaderSink
    ) -> ReaderJob:
        """Queue one request; a thread takes it at once unless all ``max_threads`` are busy. Never blocks.

        Raises:
            ProviderError: ``max_queue`` requests are waiting, the reader is closed, or no thread can be started.
        """
        exchange = HttpExchange(provider, request, options, sink, self._cancelled)
        with self._lock:
            if self._closed:
                raise ProviderError("the reader is closed")
            if self._queued + len(self._active) >= self._max_threads + self._max_queue:
                raise ProviderError(f"too many requests are waiting for a reader thread ({self._queued})")
            if self._queued + len(self._active) >= len(self._threads) < self._max_threads:
                self._add_thread()
            self._queues.setdefault(exchange.endpoint, {})[exchange] = None
            self._queued += 1
            self._started += 1
            self._has_work.notify()
        return exchange

    def statistics(self) -> Mapping[str, int]:
        """Count ``active``, ``queued``, ``started`` (ever), ``threads``, and ``leaked``: alive after ``close``.

        A request is not active any more when its sink gets to know of its end.
        """
        with self._lock:
            threads = len(self._threads) + (self._dismisser is not None)
            return {
                "active": sum(not exchange.has_ended for exchange in self._active),
                "queued": self._queued,
                "started": self._started,
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
            unfinished = [*self._active, *(exchange for queue in self._queues.values() for exchange in queue)]
            self._has_work.notify_all()
        for exchange in unfinished:
            exchange.cancel()
        me = threading.current_thread()
        for thread in self._all_threads():
            if thread is not me:
                thread.join(max(deadline - time.monotonic(), 0))
        with self._session_lock:
            if self._session is not None:
                self._session.close()
        return sum(thread.is_alive() for thread in self._all_threads() if thread is not me)

    # --- threads ---------------------------------------------------------------------------------------------------

    def _all_threads(self) -> list[threading.Thread]:
        with self._lock:
            return [*self._threads, *self._retired, *([self._dismisser] if self._dismisser else [])]

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"penstock-reader-{self._started}", daemon=True)
        self._retired = {retired for retired in self._retired if retired.is_alive()}
        try:
            thread.start()  # it waits for the lock, which the caller holds
        except RuntimeError as error:  # the operating system has no more threads
            if not self._threads:
                raise ProviderError("no reader thread can be started") from error
        else:
            self._threads.add(thread)

    def _serve(self) -> None:
        while (exchange := self._next()) is not None:
            try:
                exchange.run(self._transport)
            finally:
                with self._lock:
                    self._active.discard(exchange)
                    self._busy[exchange.endpoint] -= 1
                    if not self._busy[exchange.endpoint]:
                        del self._busy[exchange.endpoint]

    def _transport(self) -> Transport:
        """Return the shared session. The first request makes it, since importing requests takes 0.2 s."""
        with self._session_lock:
            if self._session is None:
                from penstock.adapters.http.session import SharedSession

                self._session = SharedSession(self._max_threads)
            return self._session

    def _next(self) -> HttpExchange | None:
        """Wait for a request. None: the thread retires."""
        with self._lock:
            deadline = time.monotonic() + self._idle_timeout
            while True:
                if (endpoint := self._next_endpoint()) is not None:
                    return self._take(endpoint)
                remaining = deadline - time.monotonic()
                if self._closed or remaining <= 0:
                    # In the same critical section as the look at the queue: `start` must not count on this thread.
                    self._threads.discard(threading.current_thread())
                    self._retired.add(threading.current_thread())
                    return None
                self._idle += 1
                self._has_work.wait(remaining)
                self._idle -= 1

    def _next_endpoint(self) -> str | None:
        """The first endpoint with a queue that may have one more thread."""
        free = self._max_threads - len(self._active)
        for endpoint in self._queues:
            busy = self._busy.get(endpoint, 0)
            if not busy or (busy < _SHARE * free and (free > 1 or self._max_threads < _FEW_THREADS)):
                return endpoint
        return None

    def _take(self, endpoint: str) -> HttpExchange:
        queue = self._queues[endpoint]
        exchange = next(iter(queue))
        self._unqueue(exchange)
        if endpoint in self._queues:  # the other endpoints have their turn
            self._queues[endpoint] = self._queues.pop(endpoint)
        self._active.add(exchange)
        self._busy[endpoint] += 1
        if self._next_endpoint() is not None:
            if self._idle:
                self._has_work.notify()
            elif len(self._threads) < self._max_threads:
                self._add_thread()
        return exchange

    # --- cancelling queued requests --------------------------------------------------------------------------------

    def _cancelled(self, exchange: HttpExchange) -> None:
        """Take a cancelled request out of the queue. A separate thread calls the sink, as all others may be busy."""
        with self._lock:
            if not exchange.queued:
                return
            self._unqueue(exchange)
            self._dismissed.append(exchange)
            if self._dismisser is not None:
                return
            self._dismisser = threading.Thread(target=self._dismiss_all, name="penstock-reader-dismisser", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads
                self._dismisser.start()
                return
        self._dismiss_all()  # in the caller's thread rather than never

    def _unqueue(self, exchange: HttpExchange) -> None:
        exchange.queued = False
        self._queued -= 1
        queue = self._queues[exchange.endpoint]
        del queue[exchange]
        if not queue:
            del self._queues[exchange.endpoint]

    def _dismiss_all(self) -> None:
        while True:
            with self._lock:
                if not self._dismissed:
                    self._retired.add(threading.current_thread())
                    self._dismisser = None
                    return
                exchange = self._dismissed.popleft()
            exchange.dismiss()
