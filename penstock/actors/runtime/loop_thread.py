"""An asyncio event loop on a thread of its own, for coroutines that no running loop of the user's can take."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import threading
from collections.abc import Coroutine
from typing import Any, Final

__all__ = ["LoopThread"]

_NAME: Final = "penstock-loop"
_PATIENCE: Final = 10.0  # seconds for the loop to start


class LoopThread:
    """One event loop, started when it is first needed. All coroutines share it, until `close`.

    All methods may be called from any thread.
    """

    def __init__(self, name: str = _NAME) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._is_closed = False

    def start(self) -> asyncio.AbstractEventLoop:
        """Start the thread if it does not run, or has ended; returns its loop.

        Raises:
            RuntimeError: it has been closed.
            OSError: the loop cannot be made: no file descriptors are left.
        """
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the system's event loop is closed")
            if self._loop is None or self._thread is None or not self._thread.is_alive():
                self._loop = None
                loop = asyncio.new_event_loop()  # here, so that the caller gets the error
                ready = threading.Event()
                self._thread = threading.Thread(target=self._run, args=(loop, ready), name=self._name, daemon=True)
                self._thread.start()
                if not ready.wait(_PATIENCE):
                    raise OSError(f"the system's event loop has not started within {_PATIENCE:g} s")
                self._loop = loop
            return self._loop

    def run_coroutine(
        self, coroutine: Coroutine[Any, Any, Any], *, context: contextvars.Context | None = None
    ) -> concurrent.futures.Future[Any]:
        """Run a coroutine as a task of the loop. Cancelling the future cancels the task.

        Args:
            coroutine: what to run. It is closed if it cannot be run.
            context: the task gets a copy of it; None is a copy of the caller's.

        Raises:
            RuntimeError: it has been closed.
        """
        try:
            loop = self.start()
            within = context.copy() if context is not None else contextvars.copy_context()
            return within.run(asyncio.run_coroutine_threadsafe, coroutine, loop)
        except RuntimeError:
            coroutine.close()
            raise

    def close(self, timeout: float) -> bool:
        """Cancel all tasks and end the thread; returns whether it ended within ``timeout`` seconds.

        It does not wait if it is called by one of its own tasks. Harmless if it has been closed.
        """
        with self._lock:
            self._is_closed = True
            thread, loop, closing = self._thread, self._loop, self._closing
        if thread is None or loop is None or closing is None:
            return True
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(closing.set)
        if thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def _run(self, loop: asyncio.AbstractEventLoop, ready: threading.Event) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:  # at its end it cancels the tasks that are left
            runner.run(self._main(ready))

    async def _main(self, ready: threading.Event) -> None:
        self._closing = asyncio.Event()
        ready.set()
        await self._closing.wait()
