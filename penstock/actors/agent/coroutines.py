"""Coroutines of tools: they run on the event loop of the caller, or on the system's own loop.

Semaphores, database pools and HTTP clients belong to one event loop. So all calls of a turn share the loop that called
`Agent.stream_chat`. Without one, or while the caller's loop is blocked, they share the system's `LoopThread`.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

from penstock.actors.runtime.loop_thread import LoopThread
from penstock.config.logs import get_logger
from penstock.errors import ToolError
from penstock.ports import ToolContext

__all__ = ["AgentToolContext", "ToolLoops"]

_LOOK_AGAIN: Final = 0.02  # seconds between two checks of the loop
_PATIENCE: Final = 1.0  # seconds after which a loop that has run nothing counts as blocked


class ToolLoops:
    """Chooses the event loop of each coroutine. One for each system.

    Args:
        own: the system's loop.
        is_blocked: whether a loop's thread waits for the system at this moment.
    """

    def __init__(self, own: LoopThread, is_blocked: Callable[[asyncio.AbstractEventLoop], bool]) -> None:
        self._own = own
        self._is_blocked = is_blocked
        self._has_warned = False

    def run(self, awaitable: Awaitable[Any], call: ToolContext, home: asyncio.AbstractEventLoop | None) -> Any:
        """Run an awaitable, wait for its result and return it. Blocks the tool's thread.

        It runs in a copy of the present context. It is cancelled with the call.

        Args:
            awaitable: what to run.
            call: the tool's call.
            home: the caller's loop, or None.

        Raises:
            asyncio.CancelledError: it was cancelled.
            ToolError: its loop has ended before it, or is blocked after it has begun.
            Exception: what it raises.
        """
        if home is not None and home.is_running() and home is not asyncio._get_running_loop():
            run = _Run(home, awaitable, call)
            if self._has_begun(run, call):
                return run.wait(self._is_blocked)
            if call.is_cancelled:
                _close(awaitable)
                raise asyncio.CancelledError
            self._warn(call.name)
        try:
            loop = self._own.start()
        except RuntimeError:
            _close(awaitable)
            raise asyncio.CancelledError from None  # the system has been stopped
        except OSError:
            _close(awaitable)
            raise
        return _Run(loop, awaitable, call).wait()

    def _has_begun(self, run: _Run, call: ToolContext) -> bool:
        """Wait until a coroutine begins; returns False if it does not, and will not."""
        was_blocked = False
        for _ in range(round(_PATIENCE / _LOOK_AGAIN)):
            if run.begun.wait(_LOOK_AGAIN):
                return True
            is_blocked = self._is_blocked(run.loop)
            if call.is_cancelled or (is_blocked and was_blocked) or not run.loop.is_running():
                break
            was_blocked = is_blocked  # once may be a short call
        return not run.withdraw()

    def _warn(self, tool: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            get_logger(tool=tool).warning(
                "event_loop_blocked",
                effect="async tools run on the system's event loop",
                advice="read the stream with `async for`",
            )


class _Run:
    """One coroutine on a loop of another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, awaitable: Awaitable[Any], call: ToolContext) -> None:
        self.loop = loop
        self.begun = threading.Event()
        self._over = threading.Event()
        self._awaitable = awaitable
        self._tool = call.name  # not the call, which has this to cancel it
        self._lock = threading.Lock()
        self._is_withdrawn = False
        self._task: asyncio.Future[Any] | None = None
        self._error: BaseException | None = None
        try:
            loop.call_soon_threadsafe(self._begin, call, context=contextvars.copy_context())
        except RuntimeError:  # the loop has been closed
            self._over.set()

    def withdraw(self) -> bool:
        """Do not run the coroutine; returns False if it has begun."""
        with self._lock:
            self._is_withdrawn = not self.begun.is_set()
            return self._is_withdrawn

    def wait(self, is_blocked: Callable[[asyncio.AbstractEventLoop], bool] = lambda loop: False) -> Any:
        """Wait for the result and return it, or raise the exception.

        A coroutine that has begun cannot move to another loop, so it is cancelled if its loop is blocked for long.
        """
        blocked = 0
        while not self._over.wait(_PATIENCE):
            blocked = blocked + 1 if is_blocked(self.loop) else 0
            if blocked > 1 or not self.loop.is_running():
                break
        task = self._task
        if (error := self._error) is not None:
            self._error = None
            try:
                raise error
            finally:
                del error  # its traceback has this frame
        if task is None or not task.done():
            if self.withdraw():
                _close(self._awaitable)
            elif task is not None:
                self._cancel()  # takes effect when the loop goes on: what was reported as failed must not run on
            why = "is blocked by a call such as result()" if blocked else "ended before it"
            raise ToolError(f"{self._tool}: its event loop {why}")
        return task.result()

    def _begin(self, call: ToolContext) -> None:
        with self._lock:
            if self._is_withdrawn:
                return
            self.begun.set()
        self._task = task = self.loop.create_task(self._guarded())
        task.add_done_callback(lambda _: self._over.set())
        call.on_cancel(self._cancel)

    async def _guarded(self) -> Any:
        try:
            return await self._awaitable
        except (GeneratorExit, asyncio.CancelledError):
            raise
        except BaseException as error:  # a SystemExit ends the tool, not the loop
            self._error = error
            return None

    def _cancel(self) -> None:
        assert self._task is not None
        try:
            self.loop.call_soon_threadsafe(self._task.cancel)
        except RuntimeError:  # the loop has been closed
            self._over.set()


class AgentToolContext(ToolContext):
    """The context of an agent's call. It makes ``run_coroutine`` when asked, as to have it would be a circle.

    Args:
        call_id, name, report: as for `ToolContext`.
        loops: of the system.
        home: the loop of the code that called ``stream_chat``, or None.
    """

    def __init__(
        self,
        call_id: str,
        name: str,
        report: Callable[[Any], None],
        loops: ToolLoops,
        home: asyncio.AbstractEventLoop | None,
    ) -> None:
        super().__init__(call_id, name, report)
        self._loops = loops
        self._home = home

    @property
    def run_coroutine(self) -> Callable[[Awaitable[Any]], Any]:
        """See `ToolContext.run_coroutine`."""
        return self._run

    def _run(self, awaitable: Awaitable[Any]) -> Any:
        return self._loops.run(awaitable, self, self._home)


def _close(awaitable: Awaitable[Any]) -> None:
    """Close a coroutine that is not run, or Python warns that it was never awaited."""
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()
