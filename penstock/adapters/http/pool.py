"""A bounded pool of threads that run requests, shared fairly between endpoints."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from penstock.adapters.http.reporting import report_failure
from penstock.errors import ProviderError

__all__ = ["Pool", "Queued"]

_SHARE = 16  # an endpoint may have another thread while it has fewer than 16 times as many as are free
_FEW_THREADS = 3  # fewer threads are not shared out


class Queued(Protocol):
    """A request that waits in a pool, or that one of its threads runs."""

    queued: bool
    """Whether no thread has taken it yet; guarded by the pool's lock."""

    endpoint: str
    """Shares the pool's threads with other endpoints."""


R = TypeVar("R", bound=Queued)


class Pool(Generic[R]):
    """Runs requests on up to ``max_threads`` daemon threads; the others wait in a queue for each endpoint.

    Threads are started when there is work and no idle one, and end after ``idle_timeout`` seconds without work.

    A silent endpoint cannot keep the threads of others: an endpoint that has threads gets another one only while it has
    fewer than 16 times as many as are free, and never the last free one.

    Args:
        run: runs one request in a thread of the pool. What it raises is reported, and the thread goes on.
        name: of the threads, without their numbers.
        max_threads: at least 1.
        max_queue: how many requests may wait.
        idle_timeout: in seconds.
    """

    def __init__(
        self, run: Callable[[R], None], name: str, max_threads: int, max_queue: int, idle_timeout: float
    ) -> None:
        self._run = run
        self._name = name
        self._max_threads = max_threads
        self._max_queue = max_queue
        self._idle_timeout = idle_timeout
        self._lock = threading.Lock()
        self._has_work = threading.Condition(self._lock)
        self._queues: dict[str, dict[R, None]] = {}  # by endpoint, in the order in which they have their turn
        self._busy: Counter[str] = Counter()  # requests at work, by endpoint
        self._idle = 0  # threads that wait for work
        self._active: set[R] = set()
        self._threads: set[threading.Thread] = set()
        self._retired: set[threading.Thread] = set()  # ended, or about to end
        self._queued = 0
        self._started = 0
        self._closed = False

    def submit(self, request: R) -> None:
        """Queue a request; a thread takes it at once unless all are busy. Never blocks.

        Raises:
            ProviderError: ``max_queue`` requests are waiting, the pool is closed, or no thread can be started.
        """
        with self._lock:
            if self._closed:
                raise ProviderError("the reader is closed")
            if self._queued + len(self._active) >= self._max_threads + self._max_queue:
                raise ProviderError(f"too many requests are waiting for a reader thread ({self._queued})")
            if self._queued + len(self._active) >= len(self._threads) < self._max_threads:
                self._add_thread()
            self._queues.setdefault(request.endpoint, {})[request] = None
            self._queued += 1
            self._started += 1
            self._has_work.notify()

    def withdraw(self, request: R) -> bool:
        """Take a request out of the queue; returns whether it was still there."""
        with self._lock:
            if not request.queued:
                return False
            self._unqueue(request)
            return True

    @property
    def load(self) -> int:
        """Requests that run or wait. Approximate: read without the lock."""
        return self._queued + len(self._active)

    def counts(self) -> tuple[list[R], int, int, int]:
        """The requests that run; the numbers of those that wait, of all ever submitted, and of threads."""
        with self._lock:
            return list(self._active), self._queued, self._started, len(self._threads)

    def close(self) -> list[R]:
        """Take no more requests, and let the threads end after theirs; returns those that run or wait. Idempotent."""
        with self._lock:
            self._closed = True
            self._has_work.notify_all()
            return [*self._active, *(request for queue in self._queues.values() for request in queue)]

    def threads(self) -> list[threading.Thread]:
        """All threads that may be alive."""
        with self._lock:
            return [*self._threads, *self._retired]

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"{self._name}-{self._started}", daemon=True)
        self._retired = {retired for retired in self._retired if retired.is_alive()}
        try:
            thread.start()  # it waits for the lock, which the caller holds
        except RuntimeError as error:  # the operating system has no more threads
            if not self._threads:
                raise ProviderError("no reader thread can be started") from error
        else:
            self._threads.add(thread)

    def _serve(self) -> None:
        while (request := self._next()) is not None:
            try:
                self._run(request)
            except BaseException:  # a bug: the thread goes on, or the pool would count on it for ever
                report_failure()
            finally:
                with self._lock:
                    self._active.discard(request)
                    self._busy[request.endpoint] -= 1
                    if not self._busy[request.endpoint]:
                        del self._busy[request.endpoint]
                del request  # an idle thread must not keep the last request alive

    def _next(self) -> R | None:
        """Wait for a request. None: the thread retires."""
        with self._lock:
            deadline = time.monotonic() + self._idle_timeout
            while True:
                if (endpoint := self._next_endpoint()) is not None:
                    return self._take(endpoint)
                remaining = deadline - time.monotonic()
                if self._closed or remaining <= 0:
                    # In the same critical section as the look at the queue: `submit` must not count on this thread.
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

    def _take(self, endpoint: str) -> R:
        queue = self._queues[endpoint]
        request = next(iter(queue))
        self._unqueue(request)
        if endpoint in self._queues:  # the other endpoints have their turn
            self._queues[endpoint] = self._queues.pop(endpoint)
        self._active.add(request)
        self._busy[endpoint] += 1
        if self._next_endpoint() is not None:
            if self._idle:
                self._has_work.notify()
            elif len(self._threads) < self._max_threads:
                self._add_thread()
        return request

    def _unqueue(self, request: R) -> None:
        request.queued = False
        self._queued -= 1
        queue = self._queues[request.endpoint]
        del queue[request]
        if not queue:
            del self._queues[request.endpoint]
