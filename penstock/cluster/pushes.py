"""The pushes of other nodes that wait for room in a stream's buffer."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Final

__all__ = ["WaitingPushes"]

_OF_ONE_STREAM: Final = 24  # a store carries out 32 commands to one log at once,
_OF_ALL: Final = 96  # and 128 of all


class WaitingPushes:
    """At most 24 pushes to one stream may wait at once, and 96 of the node's: other orders always find a thread.

    Without this, pushes that wait for room could keep away the very order that makes room, such as `Resume`. Any thread
    may use it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()

    @contextlib.contextmanager
    def turn(self, stream_id: str) -> Iterator[bool]:
        """Whether a push may wait now; it counts until the end of the block."""
        with self._lock:
            may_wait = self._waiting.get(stream_id, 0) < _OF_ONE_STREAM and self._waiting.total() < _OF_ALL
            if may_wait:
                self._waiting[stream_id] += 1
        try:
            yield may_wait
        finally:
            if may_wait:
                with self._lock:
                    self._waiting[stream_id] -= 1
                    if not self._waiting[stream_id]:
                        del self._waiting[stream_id]
