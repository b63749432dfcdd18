"""Ctrl-C and termination of a command that has something to clean up."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from penstock.errors import PenstockError

__all__ = ["Interrupts"]


class Interrupts:
    """Takes over SIGINT and SIGTERM. The first one is passed on to `watch`; the last one ends the process at once.

    Nothing is raised, so no code is interrupted halfway. A signal handler runs between any two instructions of the
    main thread, which may hold any lock; ``SimpleQueue.put`` is reentrant, so the handler may wake a thread with it.

    Args:
        parting: written to standard output by the last signal, to undo what was done to the terminal.
        stages: how many signals are passed on. A SIGTERM counts as all of them: a service manager does not wait long.

    Attributes:
        signal: the first signal that arrived, or SIGTERM if that came after it; None if none has.
        count: how many have arrived, of those that are passed on.
    """

    def __init__(self, parting: bytes = b"", *, stages: int = 1) -> None:
        self.signal: int | None = None
        self.count = 0
        self._parting = parting
        self._stages = stages
        self._queue: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._before: dict[int, Any] = {}

    def watch(self, *reactions: Callable[[], object]) -> threading.Thread:
        """Call the n-th of ``reactions`` in a thread when the n-th signal arrives, at once if it has arrived already.

        Returns the thread, which ends after the last one.
        """

        def wait() -> None:
            stage = self._queue.get()
            while stage:
                with contextlib.suppress(PenstockError):
                    reactions[min(stage, len(reactions)) - 1]()
                stage = self._queue.get() if stage < self._stages else 0

        thread = threading.Thread(target=wait, name="penstock-interrupts", daemon=True)
        thread.start()
        return thread

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        if self.count >= self._stages:
            if self._parting:
                with contextlib.suppress(OSError):
                    os.write(1, self._parting)
            os._exit(128 + number)
        if self.signal is None or number == signal.SIGTERM:
            self.signal = number
        self.count = self._stages if number == signal.SIGTERM else self.count + 1
        self._queue.put(self.count)

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # as in `penstock.cli.main`
                self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
