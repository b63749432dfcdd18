"""Dead letters: messages that no process handled."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable

import msgspec

from penstock.config.logs import get_logger

__all__ = ["DeadLetter", "DeadLetters"]


class DeadLetter(msgspec.Struct, frozen=True):
    """A message to a dead or unknown process: its recipient and its type. The content is not kept."""

    recipient: str
    message_type: str


class DeadLetters:
    """Count dead letters, keep the last 100, and pass each one to the listeners. Thread-safe."""

    def __init__(self) -> None:
        self.count = 0
        self.unexpected_count = 0
        self.by_type: Counter[str] = Counter()
        self.recent: deque[DeadLetter] = deque(maxlen=100)
        self._lock = threading.Lock()
        self._listeners: tuple[Callable[[DeadLetter], None], ...] = ()

    def listen(self, listener: Callable[[DeadLetter], None]) -> Callable[[], None]:
        """Call ``listener`` for every dead letter, in the thread that records it; returns a function that removes it.

        An exception of the listener is logged and affects neither the sender nor other listeners.
        """
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def stop() -> None:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other is not listener)

        return stop

    def record(self, recipient: str, message: object) -> None:
        """Count a message that reached no process, and call the listeners."""
        letter = DeadLetter(recipient, type(message).__name__)
        with self._lock:
            self.count += 1
            self.by_type[letter.message_type] += 1
            self.recent.append(letter)
        for listener in self._listeners:
            try:
                listener(letter)
            except Exception as error:
                get_logger().error("dead_letter_listener_failed", error=type(error).__name__)

    def unexpected(self, message: object) -> None:
        """Count a message that a living process does not know. It is not a dead letter."""
        with self._lock:
            self.unexpected_count += 1
            self.by_type[type(message).__name__] += 1
