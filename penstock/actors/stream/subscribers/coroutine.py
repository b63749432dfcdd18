"""Subscribed async functions. Each is awaited by a task of its own on an event loop of the user's, or on the system's.

The task reads the log as an iterator does, so an async function needs no thread and no mailbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
from collections.abc import Callable
from typing import Any

from penstock.actors.runtime.dispatcher import Dispatcher
from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.hub import Hub
from penstock.actors.stream.subscribers.pull import PullSubscription
from penstock.config.logs import get_logger
from penstock.errors import SubscriberTooSlow, describe_reason
from penstock.events import Disconnected

__all__ = ["CoroutineSubscription", "is_async"]


def is_async(function: Any) -> bool:
    """Whether a call of it returns a coroutine: an async function or method, a partial of one, an async callable."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    return (
        callable(function) and not isinstance(function, type) and inspect.iscoroutinefunction(type(function).__call__)
    )


class CoroutineSubscription(PullSubscription):
    """A subscribed async function. It is called with one event after the other; each call ends before the next.

    Args:
        hub: of the stream.
        cursor: into its log.
        function: what to call.
        dispatcher: of the system.
        loop: the calls run on it, in a copy of the present context.
    """

    __slots__ = ("_context", "_is_unwanted", "_loop", "_task")

    def __init__(
        self,
        hub: Hub,
        cursor: Cursor,
        function: Callable[[Any], Any],
        dispatcher: Dispatcher,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(hub, cursor, dispatcher)
        self.target = function
        self._loop = loop
        self._context: contextvars.Context | None = contextvars.copy_context()
        self._task: asyncio.Task[None] | None = None
        self._is_unwanted = False

    def begin(self) -> None:
        """Begin to call the function. Called once, when the hub has the subscription."""
        try:
            self._loop.call_soon_threadsafe(self._start, context=self._context)
        except RuntimeError:
            self.sweep()

    def _start(self) -> None:
        self._context = None
        if self.is_active:
            self._task = self._loop.create_task(self._run())  # it gets a copy of the context that this runs in

    async def _run(self) -> None:
        try:
            await self._call_with_each()
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except asyncio.CancelledError:
            if not self._is_unwanted:
                self._warn()
            raise
        except BaseException as error:  # as in a process: a SystemExit ends the subscription, not the loop
            self._report(error)
        finally:
            self._task = None
            self.unsubscribe()

    async def _call_with_each(self) -> None:
        function, task = self.target, asyncio.current_task()
        assert task is not None
        while not task.cancelling():  # a call that suppresses its cancellation must not keep the loop from ending
            try:
                event = await self.next_async()
            except StopAsyncIteration:
                return
            except SubscriberTooSlow as error:
                await function(Disconnected(self._cursor.log.stream_id, self._cursor.seq, error))
                return
            await function(event)

    def wake(self) -> None:
        super().wake()
        self.sweep()

    def sweep(self) -> None:
        """End the subscription if its event loop is closed."""
        if self.is_active and self._loop.is_closed():
            self.is_active, self._is_unwanted = False, True
            self._warn()
            self.unsubscribe()

    def unsubscribe(self) -> None:
        """Receive no more events. A call that runs is cancelled, unless it calls this itself."""
        task = self._task
        super().unsubscribe()
        if task is None or (asyncio._get_running_loop() is self._loop and asyncio.current_task() is task):
            return
        self._is_unwanted = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(task.cancel)

    @property
    def is_holding(self) -> bool:
        """Whether the stream must wait for it. Not while its loop cannot run it, as that may wait for the stream."""
        return super().is_holding and self._loop.is_running() and not self._dispatcher.blocks(self._loop)

    def _report(self, error: BaseException) -> None:
        """Log the exception of the function, as that of a process."""
        with contextlib.suppress(Exception):
            name = getattr(self.target, "__qualname__", type(self.target).__name__)
            get_logger(actor=f"{type(self).__name__} {name}").error(
                "process_crashed", reason=describe_reason(error), mailbox=self.pending, exc_info=error
            )

    def _warn(self) -> None:
        get_logger(stream_id=self._cursor.log.stream_id).warning(
            "async_subscriber_cancelled",
            effect="it gets no more events",
            advice="keep the event loop that it was subscribed in until the stream has ended",
        )
