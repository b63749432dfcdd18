"""State machines in the manner of OTP's ``gen_statem``.

A state is a method named like it; an event is a value; what to do next is what the method returns::

    class Door(StateMachine):
        def init(self) -> str:
            return "locked"

        def locked(self, event):
            match event:
                case Call(message="unlock", reply_to=caller):
                    return Next("open", answer(caller, True), state_timeout(10.0))

        def open(self, event):
            match event:
                case StateTimeout():
                    return Next("locked")

``None`` means: keep the state, nothing to do. With ``handle_event(event, state)`` instead of methods, a state may be
any value; two states are the same if type and value are. Data lives on ``self``.

Order after a transition: replies and other actions as they are given, the enter call, inserted events, postponed ones
(after a change of state, oldest first), zero time-outs, the mailbox.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec
from pykka._envelope import Envelope
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop

from penstock.actors.runtime.clock import Timer
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.process import Process, SystemMessage, refuse
from penstock.actors.runtime.signals import Down, ExitNotice, ProcessExit
from penstock.actors.runtime.transitions import (
    EVENT_TIMEOUT,
    EVENTS,
    IGNORE,
    POSTPONE,
    STATE_TIMEOUT,
    Answer,
    Call,
    Cast,
    Enter,
    Event,
    Info,
    InsertEvent,
    Keep,
    Next,
    Postpone,
    Repeat,
    SetTimeout,
    Stop,
    Transition,
    UpdateTimeout,
    answer_error,
    timeout_event,
)
from penstock.errors import PenstockError, ProcessDead, StartError

__all__ = ["StateMachine", "StateMachineError", "UnknownCall"]

_INFINITY: Final = float("inf")


class StateMachineError(PenstockError):
    """A state machine did what its contract does not allow; ``code`` is OTP's word for it."""

    def __init__(self, code: str, machine: str, state: object, detail: object) -> None:
        self.code = code
        super().__init__(f"{machine} in state {state!r}: {code}: {type(detail).__name__}")


class Fired(msgspec.Struct, frozen=True):
    """A timer's message to its machine."""

    name: Any
    generation: int


class _Timeout(Timer):
    """One time-out of a machine; kept for its next use once it has been set."""

    __slots__ = ("content", "inbox", "name", "running", "zero")

    def __init__(self, name: Any, inbox: Mailbox) -> None:
        super().__init__()
        self.name = name
        self.inbox = inbox
        self.content: Any = None
        self.running = False  # set, or expired and not delivered yet
        self.zero = False  # pending without a timer

    def fire(self, generation: int) -> None:
        self.inbox.put(Fired(self.name, generation))


_PYKKA: Final = frozenset({ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop})


class StateMachine(Process):
    """A process that is a state machine; see the module's docstring for how to write one."""

    state_enter: ClassVar[bool] = False
    """Whether states get an `Enter` event when they are entered."""

    in_pykka_registry = False

    _state: Any = None
    _handler: Callable[[Any], Transition]
    _postponed: deque[Any] | None = None
    _inserted: deque[Any] | None = None  # events to handle before the mailbox
    _timeouts: dict[Any, _Timeout] | None = None
    _zeros: list[_Timeout] | None = None  # pending zero time-outs, in the order they were set
    _event: Any = None  # the one being handled
    _trace: Callable[[str, object], None] | None = None
    _tracer: Callable[[str, str], None] | None = None
    _steps: deque[tuple[str, str]] | None = None

    data: Any = None
    """What `sys.get_state` shows and `sys.replace_state` changes beside the state; a machine may as well keep its
    data in attributes of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self._arguments: Any = (args, kwargs)

    # --- to be written by the subclass ---------------------------------------------------------------------------

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """Return the first state, a `Next` with actions, `IGNORE`, or `Stop`; gets what was given to ``spawn``."""
        raise NotImplementedError(f"{type(self).__name__}.init")

    def format_status(self, status: dict[str, Any]) -> dict[str, Any]:
        """Filter what `status` and the crash log show. The default shows no event contents."""
        return status

    # --- what may be asked of it ---------------------------------------------------------------------------------

    @property
    def state(self) -> Any:
        """The current state."""
        return self._state

    def unhandled(self, event: Event) -> Transition:
        """What a state does with an event it does not know: a call gets an error, anything else is counted."""
        if isinstance(event, Call):
            code = f"{type(self).__name__} does not know this call in state {self._state!r}"
            return Keep(answer_error(event.reply_to, UnknownCall(code)))
        self.runtime.dead_letters.unexpected(getattr(event, "message", event))
        return None

    def status(self) -> dict[str, Any]:
        """The machine as `sys.get_status` shows it: no contents, only what waits and how much."""
        timeouts = [str(entry.name) for entry in (self._timeouts or {}).values() if entry.running]
        status = {
            "state": self._state,
            "postponed": len(self._postponed or ()),
            "queued": len(self._inserted or ()),
            "timeouts": timeouts,
            "suspended": self._backlog is not None,
        }
        try:
            return self.format_status(status)
        except Exception as error:
            return {"state": "hidden", "format_status": f"raised {type(error).__name__}"}

    # --- start ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        (args, kwargs), self._arguments = self._arguments, None
        result = self.init(*args, **kwargs)
        if result is IGNORE:
            raise StartError(self.label, "ignore")
        if isinstance(result, Stop):
            raise StartError(self.label, result.reason)
        if not isinstance(result, Next):
            if isinstance(result, (Keep, Repeat)) or result is None:
                raise StartError(self.label, "bad_return_from_init")
            result = Next(result)
        actions = tuple(action for action in result.actions if action is not POSTPONE)
        try:
            state = self._enter_handler(result.state)
        except StateMachineError:
            raise StartError(self.label, "bad_return_from_init") from None
        self._state = state
        self._apply(Next(state, *actions), None, first=True)
        self._drain()

    def _enter_handler(self, state: Any) -> Any:
        """Find what handles ``state``, make it current, and return the state's name."""
        if type(self).handle_event is not StateMachine.handle_event:
            self._handler = self._handle_any
            return state
        handler = getattr(self, state, None) if isinstance(state, str) else None
        if handler is None or not callable(handler):
            raise self._mistake("bad_state", state)
        self._handler = handler
        return state

    def handle_event(self, event: Any, state: Any) -> Transition:
        """Handle every event in every state: define it instead of state methods."""
        raise NotImplementedError

    def _handle_any(self, event: Any) -> Transition:
        return self.handle_event(event, self._state)

    # --- events --------------------------------------------------------------------------------------------------

    def _handle(self, item: Any) -> None:
        kind = item.__class__
        if kind is Fired:
            event = self._expired(item)
            if event is None:
                return
        elif kind is Envelope:
            message = item.message
            if item.reply_to is None:
                event = Cast(message)
            elif message.__class__ in _PYKKA or isinstance(message, SystemMessage):
                self._answer(message, item.reply_to)
                return
            else:
                event = Call(message, item.reply_to)
        elif kind in EVENTS:
            event = item
        elif kind is Down:
            event = Info(item)
        elif kind is ExitNotice:
            self._notice(item)
            return
        elif kind in _PYKKA:
            self._receive(item)
            return
        elif isinstance(item, SystemMessage):
            item.apply(self)
            return
        else:
            event = Cast(item)
        self._dispatch(event)
        if self._inserted or self._zeros:
            self._drain()

    def _drain(self) -> None:
        """Handle what comes before the mailbox: inserted and retried events, then zero time-outs."""
        while True:
            if self._inserted:
                self._dispatch(self._inserted.popleft())
            elif self._zeros:
                entry = self._zeros.pop(0)
                entry.zero = entry.running = False
                self._dispatch(timeout_event(entry.name, entry.content))
            else:
                return

    def _dispatch(self, event: Any) -> None:
        if self._timeouts is not None and EVENT_TIMEOUT in self._timeouts:
            self._cancel(EVENT_TIMEOUT)
        if self._trace is not None:
            self._trace("in", event)
        self._event = event
        try:
            result = self._handler(event)
            if result is not None:
                self._apply(result, event)
            elif self._trace is not None:
                self._trace("consume", event)
        except ProcessExit as exit_:
            self._end(exit_.reason)
            self._fail_call(event, ProcessDead(self.label, exit_.reason))
            raise
        except BaseException as error:
            self._end(error)
            self._fail_call(event, error)
            raise
        self._event = None

    def _fail_call(self, event: Any, error: BaseException) -> None:
        if event.__class__ is Call:
            refuse(event.reply_to, error)

    # --- transitions ---------------------------------------------------------------------------------------------

    def _apply(self, result: Any, event: Any, *, first: bool = False) -> None:
        kind = result.__class__
        old = self._state
        changed = entering = first
        if kind is Next:
            state = result.state
            if not first and not _same(state, old):
                self._state = self._enter_or_crash(state)
                changed = entering = True
                if self._timeouts is not None:
                    self._cancel(STATE_TIMEOUT)
        elif kind is Repeat:
            entering = True
        elif kind is Stop:
            self._finish(result)
        elif kind is not Keep:
            raise self._mistake("bad_return_from_state_function", result)
        postponed = False
        inserted: list[Any] = []
        for action in result.actions:
            postponed = self._act(action, inserted) or postponed
        if self._trace is not None:
            self._trace("postpone" if postponed else "consume", event)
        if entering and self.state_enter:
            self._call_enter(old)
        if postponed:
            if self._postponed is None:
                self._postponed = deque()
            self._postponed.append(event)
        if changed and self._postponed:
            inserted.extend(self._postponed)
            self._postponed = None
        if inserted:
            if self._inserted is None:
                self._inserted = deque()
            self._inserted.extendleft(reversed(inserted))

    def _enter_or_crash(self, state: Any) -> Any:
        try:
            return self._enter_handler(state)
        except StateMachineError:
            raise self._mistake("bad_return_from_state_function", state) from None

    def _mistake(self, code: str, detail: object) -> StateMachineError:
        return StateMachineError(code, self.label, self._state, detail)

    def _act(self, action: Any, inserted: list[Any]) -> bool:
        kind = action.__class__
        if kind is Answer:
            if self._trace is not None:
                self._trace("out", action)
            if action.error is not None:
                refuse(action.to, action.error)
            else:
                action.to.set(action.value)
        elif kind is SetTimeout:
            self._set_timeout(action)
        elif kind is InsertEvent and action.event.__class__ in EVENTS:
            inserted.append(action.event)
        elif kind is UpdateTimeout:
            self._update_timeout(action)
        elif kind is Postpone:
            return True
        else:
            raise self._mistake("bad_action_from_state_function", action)
        return False

    def _call_enter(self, old: Any) -> None:
        """Give the state its `Enter`, again and again as long as it answers `Repeat`."""
        while True:
            event = Enter(old)
            if self._trace is not None:
                self._trace("enter", event)
            result: Any = self._handler(event)
            if result is None:
                return
            kind = result.__class__
            if kind is Stop:
                self._finish(result)
            stays = kind in (Keep, Repeat) or (kind is Next and _same(result.state, self._state))
            if not stays:
                raise self._mistake("bad_state_enter_return_from_state_function", result)
            for action in result.actions:
                if action.__class__ in (Postpone, InsertEvent):
                    raise self._mistake("bad_state_enter_action_from_state_function", action)
                self._act(action, [])
            if kind is not Repeat:
                return
            old = self._state

    def _finish(self, result: Stop) -> None:
        for action in result.replies:
            if action.__class__ is not Answer:
                raise self._mistake("bad_action_from_state_function", action)
            self._act(action, [])
        raise ProcessExit(result.reason)

    # --- time-outs -----------------------------------------------------------------------------------------------

    def _set_timeout(self, action: SetTimeout) -> None:
        seconds, name = action.seconds, action.name
        if seconds is None or seconds == _INFINITY:
            self._cancel(name)
            return
        if seconds.__class__ not in (int, float) or not (seconds >= 0 or action.absolute):
            raise self._mistake("bad_action_from_state_function", action)
        if self._timeouts is None:
            self._timeouts = {}
        entry = self._timeouts.get(name)
        if entry is None:
            entry = self._timeouts[name] = _Timeout(name, self.actor_inbox)
        elif entry.zero:
            self._forget_zero(entry)
        entry.content = action.content
        entry.running = True
        if seconds == 0 and not action.absolute:
            self.runtime.timers.cancel(entry)  # also what has expired and is in the mailbox
            entry.zero = True
            if self._zeros is None:
                self._zeros = []
            self._zeros.append(entry)
        else:
            when = seconds if action.absolute else self.runtime.clock.monotonic() + seconds
            self.runtime.timers.set(entry, when)
        if self._trace is not None:
            self._trace("insert_timeout" if entry.zero else "start_timer", name)

    def _update_timeout(self, action: UpdateTimeout) -> None:
        entry = (self._timeouts or {}).get(action.name)
        if entry is not None and entry.running:
            entry.content = action.content
        else:
            self._set_timeout(SetTimeout(action.name, 0, action.content, False))

    def _cancel(self, name: Any) -> None:
        entry = self._timeouts.get(name) if self._timeouts is not None else None
        if entry is not None and entry.running:
            entry.running = False
            if entry.zero:
                self._forget_zero(entry)
            self.runtime.timers.cancel(entry)

    def _forget_zero(self, entry: _Timeout) -> None:
        entry.zero = False
        assert self._zeros is not None
        self._zeros.remove(entry)

    def _expired(self, fired: Fired) -> Any:
        """The event for a timer's message, or None if it has been set again or cancelled since."""
        entry = self._timeouts.get(fired.name) if self._timeouts is not None else None
        if entry is None or entry.generation != fired.generation:
            return None
        entry.running = False
        return timeout_event(fired.name, entry.content)

    # --- end -----------------------------------------------------------------------------------------------------

    def _notice(self, notice: ExitNotice) -> None:
        if notice.sender is not None and notice.sender is self.parent:
            raise ProcessExit(notice.reason)
        self._dispatch(Info(notice))
        self._drain()

    def terminate(self, reason: object) -> None:
        """Clean up; nothing by default."""

    def _end(self, reason: object) -> None:
        if self._trace is not None and self.is_alive:
            self._trace("terminate", reason)
        super()._end(reason)

    def _retrace(self) -> None:
        """Trace only if somebody listens."""
        self._trace = self._record if self._tracer is not None or self._steps is not None else None

    def _record(self, what: str, detail: object) -> None:
        step = (what, detail if isinstance(detail, str) else type(detail).__name__)
        if self._steps is not None:
            self._steps.append(step)
        if self._tracer is not None:
            self._tracer(*step)

    def _circumstances(self) -> dict[str, Any]:
        return super()._circumstances() | self.status() | {"event": type(self._event).__name__}

    def _dispose(self, reason: object) -> None:
        for entry in (self._timeouts or {}).values():
            self.runtime.timers.cancel(entry)
        error = ProcessDead(self.label, reason)
        waiting = [*(self._postponed or ()), *(self._inserted or ())]
        for event in waiting:
            self._fail_call(event, error)
        super()._dispose(reason)


class UnknownCall(PenstockError):
    """A process was asked what it does not know in the state it is in."""


def _same(one: Any, other: Any) -> bool:
    """Whether two states are the same: in Python ``1 == 1.0 == True``, so the type counts too."""
    return one is other or (one.__class__ is other.__class__ and bool(one == other))
