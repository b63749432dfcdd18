"""How many threads code that blocks may hold at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["ThreadQuota"]


class ThreadQuota:
    """Limits the threads that all tasks of a system hold together, so that enough are left for other work."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._lock = threading.Lock()
        self._waiting: dict[object, Callable[[], None]] = {}

    @property
    def waiting(self) -> int:
        """The number of owners that wait for a thread."""
        return len(self._waiting)

    def acquire(self, owner: object, on_free: Callable[[], None]) -> bool:
        """Take a thread; returns whether one was free.

        If not, ``on_free`` is called when it is worth trying again. It may be called in any thread and must only send
        a message.
        """
        with self._lock:
            if self.taken < self.limit:
                self.taken += 1
                return True
            self._waiting[owner] = on_free
            return False

    def forget(self, owner: object) -> None:
        """Cancel the notification of ``owner``."""
        with self._lock:
            self._waiting.pop(owner, None)

    def release(self) -> None:
        """Give a thread back."""
        with self._lock:
            self.taken -= 1
            waiting, self._waiting = self._waiting, {}
        for on_free in waiting.values():  # all of them, since the first may no longer need a thread
            on_free()
