"""Requests from user threads to processes that a supervisor may be restarting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.errors import CallTimeout, ProcessDead

__all__ = ["ask_until_back"]

_LOOK_AGAIN: Final = 0.005  # seconds between two checks whether a crashed process has been restarted


def ask_until_back(
    runtime: Runtime, find: Callable[[], ProcessRef | None], message: Any, timeout: float, what: str
) -> Any:
    """Ask a process. If it dies before it answers, ask the one that is started in its place.

    The process must accept the same message twice.

    Args:
        runtime: of the process.
        find: returns the present process, or None while there is none. An exception ends the attempts.
        message: the request.
        timeout: seconds for all attempts together.
        what: the process's name, for the error.

    Raises:
        CallTimeout: there was no answer in time.
        Exception: raised by the process or by ``find``.
    """
    clock = runtime.clock
    deadline = clock.monotonic() + timeout
    while True:
        ref = find()
        try:
            if ref is None:
                raise ProcessDead(what)
            return ref.ask(message, timeout=max(0.0, deadline - clock.monotonic()))
        except ProcessDead:
            left = deadline - clock.monotonic()
            if left <= 0:
                find()
                raise CallTimeout(what, timeout) from None
        if find() is ref:
            runtime.dispatcher.pause(min(left, _LOOK_AGAIN))
