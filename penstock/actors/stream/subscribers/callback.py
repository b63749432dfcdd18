"""Subscribed functions. Each runs in a small process of its own, so that it can be slow or fail by itself."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from penstock.actors.runtime.process import Process
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.hub import Hub
from penstock.actors.stream.subscribers.push import PushSubscription
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
    """Calls a function with each event, while ``is_wanted()``, in a copy of the context that it was made in."""

    in_pykka_registry = False

    def __init__(self, function: Callable[[Event], object], is_wanted: Callable[[], bool]) -> None:
        super().__init__()
        self._function = function
        self._is_wanted = is_wanted
        self._context = copy_context()

    def on_receive(self, message: Any) -> None:
        if self._is_wanted():
            self._context.run(self._function, message)
