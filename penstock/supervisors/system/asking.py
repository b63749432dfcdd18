"""Requests from user threads to processes that a supervisor may be restarting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.stream.messages import Cancel
from penstock.actors.stream.record import StreamRecord
from penstock.errors import CallTimeout, ProcessDead, StartError, SupervisorError
from penstock.supervisors.system.handler import HANDLER, OpenStream

__all__ = ["ask_for_stream", "ask_until_back"]

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


def ask_for_stream(
    runtime: Runtime, make: Callable[[], StreamRecord], timeout: float, check_running: Callable[[], None]
) -> StreamRecord:
    """Have the handler open a stream, and return its record when its actor runs.

    Args:
        runtime: of the handler.
        make: makes a record; called again if the first stream was ended with its supervisor before it was returned.
        timeout: seconds for all attempts together.
        check_running: raises if the handler will never be restarted.

    Raises:
        CallTimeout: it took too long. If the stream starts later, it is cancelled at once.
        PenstockError: the handler or the supervisor refused.
    """

    def find() -> ProcessRef | None:
        check_running()
        return runtime.whereis(HANDLER)

    deadline = runtime.clock.monotonic() + timeout
    while True:
        record = make()
        try:
            left = max(0.0, deadline - runtime.clock.monotonic())
            ask_until_back(runtime, find, OpenStream(record), left, "the handler")
        except SupervisorError as error:
            if error.code != "already_started":  # by a request without an answer
                raise
        except StartError:
            if not record.is_over:
                raise
            continue  # it was ended with its supervisor while it started
        except BaseException:
            record.propose(Cancel("the caller stopped waiting"))
            raise
        return record
