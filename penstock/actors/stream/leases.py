"""Leases: how the processes that share a log store see which of them still run the streams that they have claimed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from penstock.config.logs import get_logger
from penstock.errors import StoreError
from penstock.ports import LogStore

__all__ = ["LEASE", "Leases"]

LEASE: Final = 15.0
"""Seconds for which a claim that its node does not renew stays its own."""
_RENEWALS: Final = 3  # in the time of a lease


class Leases:
    """Renews the claims of one node on a shared store, and looks for those of nodes that have ended.

    A thread does so, three times in each lease. It takes over nothing until it has found the store at work for a whole
    lease: when a store comes back after a failure, no claim has been renewed for a while, although its owner lives.

    Args:
        store: the shared store.
        node: the name of this process's node.
        seconds: of a lease.
    """

    def __init__(self, store: LogStore, node: str, seconds: float = LEASE) -> None:
        self.seconds = seconds
        self._store = store
        self._node = node
        self._lock = threading.Lock()
        self._claims: dict[str, object] = {}  # ids of requests, with what has claimed each
        self._renewed = 0  # how often, since the store failed last or something was taken over
        self._take_over: Callable[[], object] = _nothing
        self._thread: threading.Thread | None = None
        self._is_closed = threading.Event()

    def add(self, request: str, holder: object) -> None:
        """Renew the claim on a request from now on, for ``holder``."""
        with self._lock:
            self._claims[request] = holder

    def remove(self, request: str, holder: object) -> None:
        """Leave a claim alone from now on, unless another holder in this process has it."""
        with self._lock:
            if self._claims.get(request) is holder:
                del self._claims[request]

    def has(self, request: str) -> bool:
        """Whether this process runs what the request asks for."""
        return request in self._claims

    def claims(self) -> dict[str, object]:
        """The ids of the requests whose claims are renewed, with what has claimed each."""
        with self._lock:
            return dict(self._claims)

    def start(self, take_over: Callable[[], object]) -> None:
        """Begin to renew claims, and to call ``take_over`` in the same thread, once in the time of a lease."""
        self._take_over = take_over
        self._thread = threading.Thread(target=self._run, name="penstock-leases", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_closed.wait(self.seconds / _RENEWALS):
            self.renew()

    def renew(self) -> None:
        """Renew the claims once, and look for those of others if it is time."""
        with self._lock:
            claims = list(self._claims)
        try:
            self._store.keep(self._node, claims)
            self._renewed += 1
            if self._renewed > _RENEWALS:
                self._renewed = 1
                self._take_over()
        except StoreError as error:
            self._renewed = 0
            if not self._is_closed.is_set():
                get_logger().warning("claims_not_renewed", store=self._store.name, error=type(error).__name__)
        except Exception as error:  # a fault of ours must not end the renewing
            get_logger().error("leases_failed", error=type(error).__name__, exc_info=error)

    def close(self, timeout: float) -> bool:
        """End the thread; returns whether that was done in time."""
        self._is_closed.set()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()


def _nothing() -> None:
    pass
