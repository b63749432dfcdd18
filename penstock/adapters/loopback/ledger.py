"""What the loopback provider has seen and done: counted in its thread, read and waited for from any."""

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
    """Requests received whole, ``/healthz`` not counted."""

    connections: int = 0
    active_connections: int = 0
    refused_connections: int = 0
    """Connections over the limit."""

    active_responses: int = 0
    """Requests that have not got all of their answer."""

    responses_completed: int = 0
    """Answers of every kind that were sent to their end."""

    streams_completed: int = 0
    """Those of them that were streams, and not cut short by a fault."""

    client_disconnects: int = 0
    """Clients that left in the middle of a request or before the end of their answer."""

    faults_injected: int = 0
    """Faults that have begun."""

    script_errors: int = 0
    """Times that a function of the script raised; the client got a 500."""

    events_sent: int = 0
    """Events (opening and closing ones, comments too) and bodies handed to the kernel."""

    bytes_sent: int = 0
    """Bytes of bodies with their framing, without heads."""


class Ledger:
    """Counters under one lock, and the requests of late."""

    def __init__(self, history: int) -> None:
        self._changed = Condition()
        self._counts: dict[str, int] = dict.fromkeys(Statistics.__struct_fields__, 0)
        self._requests: deque[ReceivedRequest] = deque(maxlen=history)

    def count(self, **changes: int) -> None:
        """Add to counters, by name, and wake who waits for them."""
        with self._changed:
            for name, change in changes.items():
                self._counts[name] += change
            self._changed.notify_all()

    def record(self, request: ReceivedRequest) -> None:
        """Keep a request and count it; the oldest one kept makes room."""
        with self._changed:
            self._requests.append(request)
            self._counts["requests"] += 1
            self._changed.notify_all()

    @property
    def requests(self) -> tuple[ReceivedRequest, ...]:
        """The requests kept, oldest first."""
        with self._changed:
            return tuple(self._requests)

    def statistics(self) -> Statistics:
        """The counters of one moment."""
        with self._changed:
            return Statistics(**self._counts)

    def wait_for(self, condition: Callable[[Statistics], bool], timeout: float) -> Statistics:
        """Wait until ``condition`` holds and give the counters that fulfilled it.

        ``condition`` is called under the lock, at first at once and then at each change.

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
                raise CallTimeout(f"waiting for the loopback provider, which has {seen}", timeout)
        return seen
