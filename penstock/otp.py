"""Processes, state machines and supervisors for programs without streams. Names only.

>>> from penstock import otp
>>> class Counter(otp.Process):
...     count = 0
...
...     def on_receive(self, message):
...         self.count += message
...         return self.count
>>> dispatcher, timers = otp.ThreadedDispatcher(workers=2), otp.TimerThread()
>>> runtime = otp.Runtime(dispatcher, timers, otp.SystemClock())
>>> runtime.spawn(Counter).ask(2, timeout=1)
2
>>> runtime.close(), dispatcher.close(timeout=1), timers.close(timeout=1)
(None, 0, True)
"""

from penstock.actors.runtime import inspect
from penstock.actors.runtime.bounded import MailboxOptions
from penstock.actors.runtime.clock import SystemClock, TimerThread
from penstock.actors.runtime.dispatcher import ThreadedDispatcher, blocking
from penstock.actors.runtime.process import Process, ProcessRef, Refusal
from penstock.actors.runtime.reasons import KILL, KILLED, NOPROC, NORMAL, SHUTDOWN, Shutdown, is_clean
from penstock.actors.runtime.reply import Reply, as_completed
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.signals import Down, ExitNotice
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import (
    IGNORE,
    POSTPONE,
    Call,
    Cast,
    Enter,
    EventTimeout,
    Info,
    Internal,
    Keep,
    NamedTimeout,
    Next,
    Repeat,
    StateTimeout,
    Stop,
    Transition,
    answer,
    answer_error,
    cancel_timeout,
    event_timeout,
    next_event,
    state_timeout,
    timeout,
    update_timeout,
)
from penstock.supervisors.calls import (
    count_children,
    delete_child,
    get_childspec,
    restart_child,
    start_child,
    terminate_child,
    which_child,
    which_children,
)
from penstock.supervisors.dynamic import DynamicSupervisor
from penstock.supervisors.plain import PlainActor
from penstock.supervisors.spec import BRUTAL_KILL, Backoff, ChildInfo, ChildSpec, SupervisorFlags
from penstock.supervisors.supervisor import Supervisor

__all__ = [
    "BRUTAL_KILL",
    "IGNORE",
    "KILL",
    "KILLED",
    "NOPROC",
    "NORMAL",
    "POSTPONE",
    "SHUTDOWN",
    "Backoff",
    "Call",
    "Cast",
    "ChildInfo",
    "ChildSpec",
    "Down",
    "DynamicSupervisor",
    "Enter",
    "EventTimeout",
    "ExitNotice",
    "Info",
    "Internal",
    "Keep",
    "MailboxOptions",
    "NamedTimeout",
    "Next",
    "PlainActor",
    "Process",
    "ProcessRef",
    "Refusal",
    "Repeat",
    "Reply",
    "Runtime",
    "Shutdown",
    "StateMachine",
    "StateTimeout",
    "Stop",
    "Supervisor",
    "SupervisorFlags",
    "SystemClock",
    "ThreadedDispatcher",
    "TimerThread",
    "Transition",
    "answer",
    "answer_error",
    "as_completed",
    "blocking",
    "cancel_timeout",
    "count_children",
    "delete_child",
    "event_timeout",
    "get_childspec",
    "inspect",
    "is_clean",
    "next_event",
    "restart_child",
    "start_child",
    "state_timeout",
    "terminate_child",
    "timeout",
    "update_timeout",
    "which_child",
    "which_children",
]
