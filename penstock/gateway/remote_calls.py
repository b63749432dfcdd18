"""Calls that wait for another node of a cluster, apart from the gateway's own threads."""

from __future__ import annotations

import contextvars
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from penstock.config.logs import get_logger
from penstock.gateway.problems import Problem, RequestRefused

__all__ = ["RemoteCalls"]

T = TypeVar("T")
_ALL: Final = 16
_OF_ONE: Final = 4
_BUSY: Final = Problem(
    status=503,
    type="server_error",
    code="busy",
    message="Too many commands wait for another server, which has not answered them yet. Try again.",
    retry_after=1.0,
)


class RemoteCalls:
    """At most 16 calls at once, and 4 to one node. None waits for its turn: one too many is refused.

    So a node that hangs, and holds each call to it until its time-out, holds up neither the routes of this gateway nor
    the commands to other nodes. Any thread may use it.

    Attributes:
        refused: how many were refused.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_ALL, "penstock-gateway-remote")
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()
        self.refused = 0

    def start(self, node: str, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Begin a call, in a copy of the caller's context.

        Args:
            node: that is called; empty if it is not known, or if it is all of them.
            function: makes the call.
            arguments: of the function.

        Raises:
            RequestRefused: there are as many calls as there may be (503).
        """
        with self._lock:
            is_full = self._running.total() >= _ALL or self._running[node] >= _OF_ONE
            if is_full:
                self.refused += 1
            else:
                self._running[node] += 1
        if is_full:
            get_logger().warning("node_busy", node=node, refused=self.refused)
            raise RequestRefused(_BUSY)
        context = contextvars.copy_context()  # streams belong to the trace of the request
        try:
            future = self._threads.submit(lambda: context.run(function, *arguments))
        except BaseException:  # it has been closed
            self._end(node)
            raise
        future.add_done_callback(lambda _: self._end(node))  # also if it is cancelled before it begins
        return future

    def _end(self, node: str) -> None:
        with self._lock:
            self._running[node] -= 1
            if not self._running[node]:
                del self._running[node]

    def close(self) -> None:
        """Begin no more calls. Those under way end by their time-outs."""
        self._threads.shutdown(wait=False, cancel_futures=True)
