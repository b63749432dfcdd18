"""`PooledReader`: what the readers have in common, whose requests are run or sent by a bounded pool of threads."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

from penstock.adapters.http.pool import Pool, Queued
from penstock.adapters.http.transport import LazyTransport, Transport
from penstock.config.checks import check_number

__all__ = ["PooledReader", "Runnable"]


class Runnable(Queued, Protocol):
    """A request that a thread of the pool takes from the queue."""

    def run(self, make_transport: Callable[[], Transport]) -> None:
        """Called once, by one thread of the pool. Must not raise."""


R = TypeVar("R", bound=Runnable)


class PooledReader(ABC, Generic[R]):
    """The pool, the counters and the end of a `Reader`.

    Args:
        name: of the threads, without their numbers.
        max_threads: requests that threads of the pool have at once.
        max_queue: how many requests may wait for a thread, 0 to 10,000,000.
        idle_timeout: seconds after which an idle thread ends, at most a day.
        transport: shared by all requests.
    """

    def __init__(
        self, name: str, max_threads: int, max_queue: int, idle_timeout: float, transport: LazyTransport
    ) -> None:
        check_number("max_queue", max_queue, 0, 10_000_000, whole=True)
        check_number("idle_timeout", idle_timeout, 0, 86_400)
        self._transport = transport
        self._pool: Pool[R] = Pool(self._run, name, max_threads, max_queue, idle_timeout)
        self._lock = threading.Lock()  # guards the next field, and those of the subclass
        self._closed = False

    def statistics(self) -> Mapping[str, int]:
        """Count ``active``, ``queued``, ``started`` (ever), ``threads``, and ``leaked``: alive after ``close``.

        A request is not active any more when its sink gets to know of its end.
        """
        running, queued, started, threads = self._pool.counts()
        active, more_threads = self._counts(running, queued)
        threads += more_threads
        return {
            "active": active,
            "queued": queued,
            "started": started,
            "threads": threads,
            "leaked": threads if self._closed else 0,
        }

    def begin_to_close(self) -> None:
        """Take no more requests, cancel all, and let the threads end. Never blocks. Idempotent."""
        with self._lock:
            self._closed = True
        self._cancel_all(self._pool.close())

    def close(self, timeout: float) -> int:
        """Cancel all requests and end all threads. Returns how many were still running after ``timeout`` seconds.

        A thread that is stuck (in a name lookup, or in a sink that does not return) ends when that returns; until then
        it is counted as ``leaked``. Idempotent. If one of the reader's own threads calls this, it is not waited for.
        """
        deadline = time.monotonic() + timeout
        self.begin_to_close()
        me = threading.current_thread()
        for thread in self._all_threads():
            if thread is not me:
                thread.join(max(deadline - time.monotonic(), 0))
        self._transport.close()
        return sum(thread.is_alive() for thread in self._all_threads() if thread is not me)

    @abstractmethod
    def _counts(self, running: list[R], queued: int) -> tuple[int, int]:
        """How many requests are active, and how many threads there are beside the pool's."""

    @abstractmethod
    def _cancel_all(self, in_pool: list[R]) -> None:
        """Cancel all requests; ``in_pool`` are those that wait or that a thread has. No more are added."""

    def _all_threads(self) -> list[threading.Thread]:
        return self._pool.threads()

    def _run(self, request: R) -> None:
        request.run(self._transport)
