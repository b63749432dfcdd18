"""The threads in which a store carries out the commands of other nodes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from penstock.config.logs import get_logger

__all__ = ["OF_ALL_LOGS", "OF_ONE_LOG", "CommandThreads"]

OF_ALL_LOGS: Final = 128
OF_ONE_LOG: Final = 32


class CommandThreads:
    """At most 128 commands at once, and 32 to one log: a stream that holds up its commands does not hold up the others.

    A command ends by its own time-out, and its thread with it. Any thread may use it.

    Attributes:
        refused: how often a command found no thread in time.
    """

    def __init__(self) -> None:
        self._has_room = threading.Condition()
        self._running: Counter[str] = Counter()
        self._is_full = False
        self.refused = 0

    def start(self, log: str, work: Callable[[], object], timeout: float = 0.0) -> bool:
        """Begin to carry out a command in a thread; returns whether there was room for it.

        Args:
            log: that the command is for.
            work: carries it out, and raises nothing.
            timeout: seconds to wait for room.
        """
        if not self._enter(log, time.monotonic() + timeout):
            self._refuse(log)
            return False

        def run() -> None:
            try:
                work()
            finally:
                self._end(log)

        try:
            threading.Thread(target=run, name="penstock-command", daemon=True).start()
        except RuntimeError:  # the system has no more threads
            self._end(log)
            self._refuse(log)
            return False
        except BaseException:
            self._end(log)
            raise
        return True

    def _enter(self, log: str, until: float) -> bool:
        with self._has_room:
            while self._running.get(log, 0) >= OF_ONE_LOG or self._running.total() >= OF_ALL_LOGS:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._has_room.wait(left)
            self._running[log] += 1
            return True

    def _refuse(self, log: str) -> None:
        with self._has_room:
            self.refused += 1
            refused, is_said, self._is_full = self.refused, self._is_full, True
        if not is_said:  # once, until there is room again
            get_logger(stream_id=log).warning("commands_refused", refused=refused)

    def _end(self, log: str) -> None:
        with self._has_room:
            self._running[log] -= 1
            if not self._running[log]:
                del self._running[log]
            self._is_full = False
            self._has_room.notify_all()
