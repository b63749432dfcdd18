"""Look into a running process and hold it still: OTP's ``sys``, for every process and without its cooperation.

All functions ask the process itself and raise `ProcessDead` or `CallTimeout` like any call. A suspended process still
answers them. None of them shows the content of messages.
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
    __slots__ = ("action",)

    def __init__(self, action: Callable[[Process], Any]) -> None:
        self.action = action

    def apply(self, process: Process) -> Any:
        return self.action(process)


def suspend(ref: ProcessRef, timeout: float = _TIMEOUT) -> None:
    """Let it handle nothing but system messages and exit signals until `resume`. What comes meanwhile is kept."""
    ref.ask(_Do(lambda process: process.suspend()), timeout=timeout)


def resume(ref: ProcessRef, timeout: float = _TIMEOUT) -> None:
    """Let it go on, with what came meanwhile first."""
    ref.ask(_Do(lambda process: process.resume()), timeout=timeout)


def get_state(ref: ProcessRef, timeout: float = _TIMEOUT) -> Any:
    """A state machine's state and data as a pair; of any other process the process object itself."""
    return ref.ask(_Do(_state_of), timeout=timeout)


def replace_state(
    ref: ProcessRef, change: Callable[[Any, Any], tuple[Any, Any]], timeout: float = _TIMEOUT
) -> tuple[Any, Any]:
    """Give a state machine another state and data: ``change(state, data)`` returns the new pair, and so does this.

    No enter call, no retry of postponed events. If ``change`` raises, nothing changes and its exception comes here.
    """

    def apply(process: Process) -> tuple[Any, Any]:
        if not isinstance(process, StateMachine):
            raise TypeError(f"{process.label} is no state machine")
        state, data = change(process.state, process.data)
        process._state = process._enter_handler(state)
        process.data = data
        return state, data

    pair: tuple[Any, Any] = ref.ask(_Do(apply), timeout=timeout)
    return pair


def get_status(ref: ProcessRef, timeout: float = _TIMEOUT) -> dict[str, Any]:
    """What it is doing: state, mailbox depth, links, monitors, time-outs, last events, and whatever it adds.

    ``mailbox_counters`` is there if its mailbox has options.
    """
    return dict(ref.ask(_Do(_status_of), timeout=timeout))


def set_trace(ref: ProcessRef, listener: Callable[[str, str], None] | None, timeout: float = _TIMEOUT) -> None:
    """Call ``listener(what, of_which_type)`` for every step of a state machine; None ends it.

    ``what`` is in, out, enter, start_timer, insert_timeout, postpone, consume or terminate.
    """

    def apply(process: Process) -> None:
        if not isinstance(process, StateMachine):
            raise TypeError(f"{process.label} is no state machine")
        process._tracer = listener
        process._retrace()

    ref.ask(_Do(apply), timeout=timeout)


def set_log(ref: ProcessRef, size: int = 10, timeout: float = _TIMEOUT) -> None:
    """Let a state machine remember its last ``size`` steps (0: none)."""

    def apply(process: Process) -> None:
        if not isinstance(process, StateMachine):
            raise TypeError(f"{process.label} is no state machine")
        process._steps = deque(maxlen=size) if size else None
        process._retrace()

    ref.ask(_Do(apply), timeout=timeout)


def get_log(ref: ProcessRef, timeout: float = _TIMEOUT) -> list[tuple[str, str]]:
    """The steps that `set_log` remembers, oldest first."""
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
