"""The session that a reader's threads share, made by the first request: importing requests takes 0.2 s."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import requests

    from penstock.adapters.http.session import SharedSession

__all__ = ["LazyTransport", "Transport"]

Transport: TypeAlias = "Callable[[requests.PreparedRequest, tuple[float, float], bool | str], requests.Response]"
"""Sends a request and returns once the response's headers are there: request, (connect, read) time-outs, verify.

For a request whose `RequestHandle` hands its connection over, it returns once the request is sent.
"""


class LazyTransport:
    """Makes the `SharedSession` of a reader when it is first called.

    Args:
        connections: how many connections to one endpoint are kept for further requests.
    """

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._session: SharedSession | None = None
        self._lock = threading.Lock()

    def __call__(self) -> Transport:
        with self._lock:
            if self._session is None:
                from penstock.adapters.http.session import SharedSession

                self._session = SharedSession(self._connections)
            return self._session

    def close(self) -> None:
        """Close all kept connections."""
        with self._lock:
            if self._session is not None:
                self._session.close()
