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
    """Takes over SIGINT and SIGTERM. The first one is passed on to `watch`; the second one ends the process at once.

    Nothing is raised, so no code is interrupted halfway. A signal handler runs between any two instructions of the
    main thread, which may hold any lock; ``SimpleQueue.put`` is reentrant, so the handler may wake a thread with it.

    Args:
        parting: written to standard output by the second signal, to undo what was done to the terminal.

    Attributes:
        signal: the first signal that arrived; None if none has.
    """

    def __init__(self, parting: bytes = b"") -> None:
        self.signal: int | None = None
        self._parting = parting
        self._queue: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._before: dict[int, Any] = {}

    def watch(self, react: Callable[[], object]) -> threading.Thread:
        """Call ``react`` in a thread when a signal arrives, at once if one has arrived already; return the thread."""

        def wait() -> None:
            if self._queue.get():
                with contextlib.suppress(PenstockError):
                    react()

        thread = threading.Thread(target=wait, name="penstock-interrupts", daemon=True)
        thread.start()
        return thread

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            if self._parting:
                with contextlib.suppress(OSError):
                    os.write(1, self._parting)
            os._exit(128 + number)
        self.signal = number
        self._queue.put(True)

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # as in `penstock.cli.main`
                self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(False)
        for number, handler in self._before.items():
            signal.signal(number, handler)
