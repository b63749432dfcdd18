"""What the loopback provider has seen and done: counted in its thread, read and waited for from any."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from threading import Condition
from typing import Any

import msgspec

from penstock.errors import CallTimeout

__all__ = ["Ledger", "ReceivedRequest", "Statistics"]


class ReceivedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request as it came.

    ``body`` is the parsed JSON, None where there was none or it did not parse. Header names are in lower case; what
    may hold a key (``authorization``, ``api-key``, ``cookie`` …) has its value replaced by stars.
    """

    number: int
    """1 for the first request of this provider, whatever its path."""

    method: str
    path: str
    model: str | None
    body: Any
    headers: Mapping[str, str]

    @property
    def stream(self) -> bool:
        """Whether a streamed answer was asked for."""
        return isinstance(self.body, dict) and self.body.get("stream") is True

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation: chat's ``messages`` or Responses' ``input``, whose bare text is one user message."""
        body = self.body if isinstance(self.body, dict) else {}
        messages = body.get("messages", body.get("input"))
        if isinstance(messages, str):
            return [{"role": "user", "content": messages}]
        return [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []

    @property
    def last_user_text(self) -> str:
        """The text of the last user message, empty where there is none."""
        for message in reversed(self.messages):
            if message.get("role") == "user":
                return "".join(_texts(message.get("content")))
        return ""

    def count_words(self) -> int:
        """Words in all texts of the conversation: our measure of input tokens."""
        instructions = self.body.get("instructions") if isinstance(self.body, dict) else None
        contents = [instructions, *(message.get("content") for message in self.messages)]
        return sum(len(text.split()) for content in contents for text in _texts(content))

    def __repr__(self) -> str:
        return f"ReceivedRequest(number={self.number}, {self.method} {self.path}, model={self.model!r})"


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


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
