"""Recent requests and counters of the loopback provider: written in its thread, read and awaited from any thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition

import msgspec

from penstock.adapters.loopback.request import ReceivedRequest
from penstock.errors import CallTimeout

__all__ = ["Ledger", "ReceivedRequest", "Statistics"]


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the provider was made."""

    requests: int = 0
    """Complete requests received, without ``/healthz``."""

    connections: int = 0
    active_connections: int = 0
    refused_connections: int = 0
    """Connections refused because ``max_connections`` was reached."""

    active_responses: int = 0
    """Requests whose answer has not been sent to its end."""

    responses_completed: int = 0
    """Answers of every kind sent to their end."""

    streams_completed: int = 0
    """Completed responses that were streams and were not cut short by a fault."""

    client_disconnects: int = 0
    """Clients that disconnected in the middle of a request or before the end of their answer."""

    faults_injected: int = 0
    """Faults that have begun."""

    script_errors: int = 0
    """How often a function of the script raised; the client got a 500."""

    events_sent: int = 0
    """Events (opening and closing ones and comments included) and whole bodies handed to the kernel."""

    bytes_sent: int = 0
    """Bytes of response bodies with their framing, without heads."""


class Ledger:
    """Counters and recent requests, guarded by one lock."""

    def __init__(self, history: int) -> None:
        self._changed = Condition()
        self._counts: dict[str, int] = dict.fromkeys(Statistics.__struct_fields__, 0)
        self._requests: deque[ReceivedRequest] = deque(maxlen=history)

    def count(self, **changes: int) -> None:
        """Add to counters by name, and wake the threads in `wait_for`."""
        with self._changed:
            for name, change in changes.items():
                self._counts[name] += change
            self._changed.notify_all()

    def record(self, request: ReceivedRequest) -> None:
        """Count a request and keep it; the oldest kept request may be dropped for it."""
        with self._changed:
            self._requests.append(request)
            self._counts["requests"] += 1
            self._changed.notify_all()

    @property
    def requests(self) -> tuple[ReceivedRequest, ...]:
        """The kept requests, oldest first."""
        with self._changed:
            return tuple(self._requests)

    def statistics(self) -> Statistics:
        """Return all counters as of one moment."""
        with self._changed:
            return Statistics(**self._counts)

    def wait_for(self, condition: Callable[[Statistics], bool], timeout: float) -> Statistics:
        """Wait until ``condition`` holds, and return the counters that fulfilled it.

        ``condition`` is called under the lock: immediately, then after each change.

        Raises:
            CallTimeout: it did not hold within ``timeout`` seconds.
        """
        seen = Statistics()

        def holds() -> bool:
            nonlocal seen
            seen = Statistics(**self._counts)
            return condition(seen)

        with self._changed:
            if not self._changed.wait_for(holds, timeout):
                raise CallTimeout(f"waiting for the loopback provider, which has counted {seen}", timeout)
        return seen
