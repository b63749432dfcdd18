"""Look into a running process, or suspend it: OTP's ``sys``, for every process.

All functions ask the process itself and raise `ProcessDead` or `CallTimeout` like any call; ``timeout`` is in seconds.
A suspended process still answers. No function shows the content of messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.actors.runtime.bounded import BoundedMailbox
from penstock.actors.runtime.process import Process, ProcessRef, SystemMessage
from penstock.actors.runtime.statem import StateMachine
from penstock.errors import describe_reason

__all__ = ["get_log", "get_state", "get_status", "replace_state", "resume", "set_log", "set_trace", "suspend"]

_TIMEOUT = 5.0


class _Do(SystemMessage):
    """Call a function with the process."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[Process], Any]) -> None:
        self.action = action

    def apply(self, process: Any) -> Any:
        return self.action(process)


def suspend(ref: ProcessRef, timeout: float = _TIMEOUT) -> None:
    """Suspend a process: until `resume` it handles only system messages and exit signals. Other messages wait."""
    ref.ask(_Do(lambda process: process.suspend()), timeout=timeout)


def resume(ref: ProcessRef, timeout: float = _TIMEOUT) -> None:
    """Resume a suspended process. It handles the messages that arrived meanwhile first."""
    ref.ask(_Do(lambda process: process.resume()), timeout=timeout)


def get_state(ref: ProcessRef, timeout: float = _TIMEOUT) -> Any:
    """Return a state machine's state and data as a pair; for any other process, the process object itself."""
    return ref.ask(_Do(_state_of), timeout=timeout)


def replace_state(
    ref: ProcessRef, change: Callable[[Any, Any], tuple[Any, Any]], timeout: float = _TIMEOUT
) -> tuple[Any, Any]:
    """Replace a state machine's state and data with ``change(state, data)``; returns the new pair.

    There is no enter call and no retry of postponed events. If ``change`` raises, nothing changes.

    Raises:
        TypeError: the process is not a state machine.
        Exception: what ``change`` raised.
    """

    def apply(process: Process) -> tuple[Any, Any]:
        if not isinstance(process, StateMachine):
            raise TypeError(f"{process.label} is not a state machine")
        state, data = change(process.state, process.data)
        process._state = process._enter_handler(state)
        process.data = data
        return state, data

    pair: tuple[Any, Any] = ref.ask(_Do(apply), timeout=timeout)
    return pair


def get_status(ref: ProcessRef, timeout: float = _TIMEOUT) -> dict[str, Any]:
    """Return what a process is doing: mailbox depth, links, monitors, exit reason.

    If its mailbox has options, ``mailbox_counters`` is included; for a state machine, its state, time-outs, log, and
    what its ``format_status`` adds.
    """
    return dict(ref.ask(_Do(_status_of), timeout=timeout))


def set_trace(ref: ProcessRef, listener: Callable[[str, str], None] | None, timeout: float = _TIMEOUT) -> None:
    """Call ``listener(step, type_name)`` for every step of a state machine, in its thread; None removes the listener.

    ``step`` is in, out, enter, start_timer, insert_timeout, postpone, consume or terminate. A listener that raises is
    removed.

    Raises:
        TypeError: the process is not a state machine.
    """

    def apply(process: Process) -> None:
        if not isinstance(process, StateMachine):
            raise TypeError(f"{process.label} is not a state machine")
        process._tracer = listener
        process._retrace()

    ref.ask(_Do(apply), timeout=timeout)


def set_log(ref: ProcessRef, size: int = 10, timeout: float = _TIMEOUT) -> None:
    """Have a state machine keep its last ``size`` steps for `get_log` (0: none).

    Raises:
        TypeError: the process is not a state machine.
    """

    def apply(process: Process) -> None:
        if not isinstance(process, StateMachine):
            raise TypeError(f"{process.label} is not a state machine")
        process._steps = deque(maxlen=size) if size else None
        process._retrace()

    ref.ask(_Do(apply), timeout=timeout)


def get_log(ref: ProcessRef, timeout: float = _TIMEOUT) -> list[tuple[str, str]]:
    """Return the steps kept since `set_log`, oldest first."""
    return list(ref.ask(_Do(lambda process: tuple(getattr(process, "_steps", None) or ())), timeout=timeout))


def _state_of(process: Process) -> Any:
    return (process.state, process.data) if isinstance(process, StateMachine) else process


def _status_of(process: Process) -> dict[str, Any]:
    runtime, ref = process.runtime, process.ref
    status: dict[str, Any] = {
        "name": process.label,
        "class": type(process).__name__,
        "mailbox": process.actor_inbox.qsize(),
        "links": [peer.label for peer in runtime.links_of(ref)],
        "monitors": [peer.label for peer in runtime.monitors_of(ref)],
        "trap_exit": process.trap_exit,
        "exit_reason": None if process.is_alive else describe_reason(process.exit_reason),
    }
    if isinstance(process.actor_inbox, BoundedMailbox):
        status["mailbox_counters"] = msgspec.structs.asdict(process.actor_inbox.counters())
    if isinstance(process, StateMachine):
        status |= process.status()
    return status
