"""The default way to a provider: `HttpReader`, a bounded pool of threads over requests."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from penstock.adapters.http.exchange import Exchange, Transport
from penstock.config.options import RequestOptions, check_number
from penstock.errors import ProviderError
from penstock.ports import Provider, ProviderRequest, ReaderJob, ReaderSink

if TYPE_CHECKING:
    from penstock.adapters.http.session import SharedSession

__all__ = ["HttpReader"]


class HttpReader:
    """Implements `Reader`: each request occupies one thread from its start to its end.

    Threads are started when there is work and no idle one, up to ``max_threads``, and end after ``idle_timeout``
    seconds without work. Connections are kept alive and shared; proxies and the CA bundle are read from the
    environment once for each origin. Cookies are not kept, redirects not followed, and ``netrc`` is not read.

    A cancelled request's socket is closed at once, with one exception: a host name's lookup cannot be interrupted, so
    there the cancel takes effect when the lookup returns.
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
        self._work = threading.Condition(self._lock)
        self._queue: deque[Exchange] = deque()  # some may have been cancelled since: `queued` is False then
        self._dismissed: deque[Exchange] = deque()
        self._active: set[Exchange] = set()
        self._threads: set[threading.Thread] = set()
        self._queued = 0
        self._started = 0
        self._retired: set[threading.Thread] = set()  # done, or about to be
        self._errand: threading.Thread | None = None
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
        exchange = Exchange(provider, request, options, sink, self._cancelled)
        with self._lock:
            if self._closed:
                raise ProviderError("the reader is closed")
            if self._queued + len(self._active) >= self._max_threads + self._max_queue:
                raise ProviderError(f"too many requests are waiting for a reader thread ({self._queued})")
            if self._queued + len(self._active) >= len(self._threads) < self._max_threads:
                self._add_thread()
            self._queue.append(exchange)
            self._queued += 1
            self._started += 1
            self._work.notify()
        return exchange

    def statistics(self) -> Mapping[str, int]:
        """Count ``active``, ``queued``, ``started`` (ever), ``threads``, and ``leaked``: alive after ``close``."""
        with self._lock:
            threads = len(self._threads) + (self._errand is not None)
            return {
                "active": len(self._active),
                "queued": self._queued,
                "started": self._started,
                "threads": threads,
                "leaked": threads if self._closed else 0,
            }

    def close(self, timeout: float) -> int:
        """Cancel everything and end every thread; say how many were still stuck after ``timeout`` seconds.

        A stuck one (in a name lookup, or in a sink that does not return) ends by itself when it comes back; until
        then it is counted as ``leaked``. Idempotent; a reader's own thread may call it and is not waited for.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            doomed = [*self._active, *(exchange for exchange in self._queue if exchange.queued)]
            self._work.notify_all()
        for exchange in doomed:
            exchange.cancel()
        me = threading.current_thread()
        for thread in self._every_thread():
            if thread is not me:
                thread.join(max(deadline - time.monotonic(), 0))
        with self._session_lock:
            if self._session is not None:
                self._session.close()
        return sum(thread.is_alive() for thread in self._every_thread() if thread is not me)

    # --- threads ---------------------------------------------------------------------------------------------------

    def _every_thread(self) -> list[threading.Thread]:
        with self._lock:
            return [*self._threads, *self._retired, *([self._errand] if self._errand else [])]

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"penstock-reader-{self._started}", daemon=True)
        self._retired = {one for one in self._retired if one.is_alive()}
        try:
            thread.start()  # it waits for the lock, which we hold
        except RuntimeError as error:  # the operating system gives no more threads
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

    def _transport(self) -> Transport:
        """Return the shared session. The first request makes it, since importing requests takes 0.2 s."""
        with self._session_lock:
            if self._session is None:
                from penstock.adapters.http.session import SharedSession

                self._session = SharedSession(self._max_threads)
            return self._session

    def _next(self) -> Exchange | None:
        """Wait for a request. None: retire."""
        with self._lock:
            deadline = time.monotonic() + self._idle_timeout
            while True:
                while self._queue:
                    exchange = self._queue.popleft()
                    if exchange.queued:
                        exchange.queued = False
                        self._queued -= 1
                        self._active.add(exchange)
                        return exchange
                left = deadline - time.monotonic()
                if self._closed or left <= 0:
                    # Under the same lock as the look into the queue: `start` must not count on this thread.
                    self._threads.discard(threading.current_thread())
                    self._retired.add(threading.current_thread())
                    return None
                self._work.wait(left)

    # --- cancelling what is queued ---------------------------------------------------------------------------------

    def _cancelled(self, exchange: Exchange) -> None:
        """Take a cancelled request out of the queue; an extra thread tells its sink if all others are busy."""
        with self._lock:
            if not exchange.queued:
                return
            self._unqueue(exchange)
            self._dismissed.append(exchange)
            if self._errand is not None:
                return
            self._errand = threading.Thread(target=self._dismiss_all, name="penstock-reader-errand", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads
                self._errand.start()
                return
        self._dismiss_all()  # rather in the wrong thread than never

    def _unqueue(self, exchange: Exchange) -> None:
        exchange.queued = False
        self._queued -= 1
        if len(self._queue) > 2 * self._queued + 16:  # cancelled ones are left where they are until they are many
            self._queue = deque(one for one in self._queue if one.queued)

    def _dismiss_all(self) -> None:
        while True:
            with self._lock:
                if not self._dismissed:
                    self._retired.add(threading.current_thread())
                    self._errand = None
                    return
                exchange = self._dismissed.popleft()
            exchange.dismiss()
