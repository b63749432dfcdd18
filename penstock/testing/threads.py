"""Simulated threads: real threads of which exactly one runs at a time, in the order the dispatcher resumes them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

__all__ = ["SimulatedThread"]

_local: Final = threading.local()  # .thread: the simulated thread that is running


class _Stopped(BaseException):
    """Raised in a simulated thread out of the call it waits in, to end the thread."""


class SimulatedThread:
    """A thread that runs only between `resume` and its next `suspend`, while the caller of `resume` waits.

    It is for code that blocks. `SimulatedDispatcher.wait` suspends a simulated thread instead of running others in
    nested calls, so threads can be resumed in any order. All methods but `suspend` are called from other threads.
    """

    def __init__(self, function: Callable[[], object], name: str) -> None:
        self.name = name
        self.has_ended = False
        self._function = function
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._has_begun = False
        self._is_stopping = False
        self._error: BaseException | None = None
        self._may_run = threading.Lock()
        self._may_run.acquire()
        self._has_paused = threading.Lock()
        self._has_paused.acquire()

    @staticmethod
    def current() -> SimulatedThread | None:
        """Return the simulated thread this code runs in, or None."""
        thread: SimulatedThread | None = getattr(_local, "thread", None)
        return thread

    def resume(self) -> None:
        """Run the thread until it waits or ends.

        Raises:
            BaseException: what the thread's function raised.
        """
        if self._has_begun:
            self._may_run.release()
        else:
            self._has_begun = True
            self._thread.start()
        self._has_paused.acquire()
        if self.has_ended:
            self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def suspend(self) -> None:
        """Give control back to the caller of `resume`. Called in the thread itself."""
        if not self._is_stopping:
            self._has_paused.release()
            self._may_run.acquire()
        if self._is_stopping:
            raise _Stopped

    def stop(self) -> None:
        """End a thread that waits: its call raises, and its ``finally`` blocks run. Harmless if it has ended."""
        self._is_stopping = True
        if self._has_begun and not self.has_ended:
            self.resume()

    def _work(self) -> None:
        _local.thread = self
        try:
            self._function()
        except _Stopped:
            pass
        except BaseException as error:
            self._error = error
        self.has_ended = True
        self._has_paused.release()
