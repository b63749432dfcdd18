"""Subscribed functions. Each runs in a small process of its own, so that it can be slow or fail by itself."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable
from typing import Any

from penstock.actors.runtime.process import Process
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.hub import Hub
from penstock.actors.stream.subscribers.push import PushSubscription
from penstock.config.logs import get_logger
from penstock.events import Event

__all__ = ["CallbackProcess", "CallbackSubscription"]


class CallbackSubscription(PushSubscription):
    """A subscribed function. Its process ends with the subscription."""

    __slots__ = ("is_wanted",)

    def __init__(self, hub: Hub, cursor: Cursor, function: Callable[[Event], object], runtime: Runtime) -> None:
        self.is_wanted = True
        super().__init__(hub, cursor, function, runtime.spawn(CallbackProcess, function, self._wants))

    def _wants(self) -> bool:
        return self.is_wanted

    def unsubscribe(self) -> None:
        """Receive no more events. The function is not called again, unless all its events have been sent to it."""
        was_active = self.is_active
        super().unsubscribe()
        if was_active:
            self.is_wanted = self._is_complete
            self.ref.stop(block=False)  # after the events that were sent to it


class CallbackProcess(Process):
    """Calls a function with each event, while ``is_wanted()``, in a copy of the subscriber's context."""

    in_pykka_registry = False

    def __init__(self, function: Callable[[Event], object], is_wanted: Callable[[], bool]) -> None:
        super().__init__()
        self._function = function
        self._context = contextvars.copy_context()
        self._is_wanted = is_wanted

    def on_receive(self, message: Any) -> None:
        if not self._is_wanted():
            return
        result = self._context.run(self._function, message)
        if inspect.iscoroutine(result):  # not known before, as the function is none of those that say they are async
            result.close()
            get_logger(actor=self.label).error("subscriber_is_async", advice="subscribe an async function itself")
            raise TypeError("a subscribed function returned a coroutine")
