"""State machines in the manner of OTP's ``gen_statem``.

A state is a method of that name, an event is a value, and the method returns what to do next::

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

``None`` keeps the state and does nothing. With ``handle_event(event, state)`` instead of methods, a state may be any
value; two states are the same if their types and values are. Data lives on ``self``.

Order after a transition: replies and other actions in the given order, the enter call, inserted events, postponed
events (after a change of state, oldest first), time-outs of zero seconds, the mailbox.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from types import MethodType
from typing import Any, ClassVar, Final

from pykka._envelope import Envelope

from penstock.actors.runtime.clock import Fired
from penstock.actors.runtime.dead_process import answer_call_to_dead
from penstock.actors.runtime.process import PYKKA_MESSAGES, Process
from penstock.actors.runtime.reasons import ProcessExit
from penstock.actors.runtime.ref import ProcessRef, SystemMessage
from penstock.actors.runtime.reply import Reply, answer_with, answer_with_error, is_answered
from penstock.actors.runtime.signals import Down, ExitNotice
from penstock.actors.runtime.timeouts import Timeouts
from penstock.actors.runtime.transitions import (
    EVENT_TIMEOUT,
    EVENTS,
    IGNORE,
    STATE_TIMEOUT,
    Answer,
    Call,
    Cast,
    Enter,
    Event,
    EventTimeout,
    Info,
    InsertEvent,
    Internal,
    Keep,
    NamedTimeout,
    Next,
    Postpone,
    Repeat,
    SetTimeout,
    StateMachineError,
    StateTimeout,
    Stop,
    Transition,
    UnknownCall,
    UpdateTimeout,
    answer_error,
)
from penstock.errors import StartError

__all__ = ["StateMachine", "StateMachineError", "UnknownCall"]


_INNER: Final = frozenset({Internal, StateTimeout, EventTimeout, NamedTimeout})


class _MachineRef(ProcessRef):
    """A ref by which only the machine itself and its timers can send internal events and time-outs."""

    def tell(self, message: Any) -> None:
        """As `ProcessRef.tell`; internal events and time-outs arrive as a `Cast`."""
        self.actor_inbox.put(Cast(message) if message.__class__ in _INNER else message)


class StateMachine(Process):
    """A process that is a state machine; the module's docstring shows how to write one.

    Its start raises `StartError` if `init` returns `IGNORE`, a `Stop`, or something that is not a state.
    """

    state_enter: ClassVar[bool] = False
    """Whether a state gets an `Enter` event when the machine enters it."""

    in_pykka_registry = False
    ref_class = _MachineRef

    _first: Next | None = None  # returned by `init`, and still to be done
    _state: Any = None
    _handler: Callable[[Any, Any], Transition]  # not bound: gets the machine and the event
    _postponed: deque[Any] | None = None
    _inserted: deque[Any] | None = None  # events to handle before the mailbox
    timeouts_are_periodic: ClassVar[bool] = False
    """Whether its time-outs only start periodic checks. A simulation does not wait for them; see `Deadlock`."""
    _timeouts: Timeouts | None = None
    _event: Any = None  # being handled
    _owed: list[weakref.ref[Reply]] | None = None  # calls that were consumed and not answered yet
    _owed_bound: int = 16  # length of `_owed` at which answered calls are removed
    _trace: Callable[[str, object], None] | None = None
    _tracer: Callable[[str, str], None] | None = None
    _steps: deque[tuple[str, str]] | None = None

    data: Any = None
    """What `inspect.get_state` shows and `inspect.replace_state` changes, together with the state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self._arguments: Any = (args, kwargs)

    # --- to be defined by the subclass ---------------------------------------------------------------------------

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """Return the first state, a `Next` with actions, `IGNORE`, or `Stop`. Gets the arguments of ``spawn``."""
        raise NotImplementedError(f"{type(self).__name__} does not define init()")

    def format_status(self, status: dict[str, Any]) -> dict[str, Any]:
        """Filter the output of `status` and the crash log. By default they show no event contents."""
        return status

    @property
    def state(self) -> Any:
        """The current state."""
        return self._state

    def unhandled(self, event: Event) -> Transition:
        """Handle an event that a state does not know: a call gets `UnknownCall`, any other event is counted."""
        if isinstance(event, Call):
            text = f"{type(self).__name__} does not know this call in state {self._state!r}"
            return Keep(answer_error(event.reply_to, UnknownCall(text)))
        self.runtime.dead_letters.unexpected(getattr(event, "message", event))
        return None

    def status(self) -> dict[str, Any]:
        """Return the machine's part of `inspect.get_status`: states and counts, no contents."""
        return self._show({})

    def _show(self, more: dict[str, Any]) -> dict[str, Any]:
        status = {
            "state": self._state,
            "postponed": len(self._postponed or ()),
            "queued": len(self._inserted or ()),
            "timeouts": self._timeouts.running() if self._timeouts is not None else [],
            "suspended": self._suspended,
            "log": list(self._steps or ()),
        }
        try:
            return self.format_status(status | more)
        except Exception as error:
            return more | {"state": "hidden", "format_status": f"raised {type(error).__name__}"}

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
        try:
            self._state = self._enter_handler(result.state)
        except StateMachineError:
            raise StartError(self.label, "bad_return_from_init") from None
        actions = tuple(action for action in result.actions if action.__class__ is not Postpone)
        if actions or self.state_enter:
            self._first = Next(result.state, *actions)

    def _proceed(self) -> None:
        first, self._first = self._first, None
        if first is not None:
            self._apply(first, None, first=True)
            self._drain()

    def _enter_handler(self, state: Any) -> Any:
        """Make the handler of ``state`` the current one; returns ``state``."""
        if type(self).handle_event is not StateMachine.handle_event:
            self._handler = StateMachine._handle_any
            return state
        handler = getattr(self, state, None) if isinstance(state, str) else None
        if not callable(handler):
            raise self._mistake("bad_state", state)
        if handler.__class__ is MethodType and handler.__self__ is self:
            self._handler = handler.__func__  # a method would be a circle, and an object more for each machine
        else:
            self._handler = lambda _machine, event: handler(event)
        return state

    def handle_event(self, event: Any, state: Any) -> Transition:
        """Handle every event in every state, if defined; there are no state methods then."""
        raise NotImplementedError

    def _handle_any(self, event: Any) -> Transition:
        return self.handle_event(event, self._state)

    # --- events --------------------------------------------------------------------------------------------------

    def _handle(self, item: Any) -> None:
        kind = item.__class__
        if kind is Fired:
            event = self._timeouts.expired(item) if self._timeouts is not None else None
            if event is None:
                return
        elif kind is Envelope:
            message = item.message
            if item.reply_to is None:
                event = Cast(message)
            elif message.__class__ in PYKKA_MESSAGES or isinstance(message, SystemMessage):
                self._answer(item)
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
        elif kind in PYKKA_MESSAGES:
            self._receive(item)
            return
        elif isinstance(item, SystemMessage):
            item.apply(self)
            return
        else:
            event = Cast(item)
        self._dispatch(event)
        if self._inserted or (self._timeouts is not None and self._timeouts.zeros):
            self._drain()

    def _drain(self) -> None:
        """Handle what comes before the mailbox: inserted and retried events, then time-outs of zero seconds."""
        while True:
            if self._inserted:
                self._dispatch(self._inserted.popleft())
            elif self._timeouts is not None and self._timeouts.zeros:
                self._dispatch(self._timeouts.next_zero())
            else:
                return

    def _dispatch(self, event: Any) -> None:
        self._event = event  # before `is_alive` is read; `Runtime.mark_dead` works in the opposite order
        if self._attention and not self._attend():
            raise ProcessExit(self.exit_reason)
        if self._timeouts is not None:
            self._timeouts.cancel(EVENT_TIMEOUT)
        if self._trace is not None:
            self._trace("in", event)
        result = self._handler(self, event)
        if self._attention and not self.is_alive:  # killed meanwhile: the result has no effect
            raise ProcessExit(self.exit_reason)
        postponed = False
        if result is not None:
            postponed = self._apply(result, event)
        elif self._trace is not None:
            self._trace("consume", event)
        if event.__class__ is Call and not postponed and event.reply_to.__class__ is Reply:
            self._owe(event.reply_to)
        self._event = None

    def _owe(self, reply: Reply) -> None:
        """Remember a call that is to be answered later, so that its caller gets an error if the machine ends first."""
        if reply.is_done:
            return
        owed = self._owed
        if owed is None:
            owed = self._owed = []
        elif len(owed) >= self._owed_bound:  # drop the answered calls, and those whose caller is gone
            owed = self._owed = [other for other in owed if (found := other()) is not None and not found.is_done]
            self._owed_bound = max(16, 2 * len(owed))
        owed.append(weakref.ref(reply))

    # --- transitions ---------------------------------------------------------------------------------------------

    def _apply(self, result: Any, event: Any, *, first: bool = False) -> bool:
        """Carry out what a state function returned; returns whether the event was postponed."""
        kind = result.__class__
        old = self._state
        changed = entering = first
        if kind is Next:
            state = result.state
            if not _same(state, old):
                self._state = self._enter_or_crash(state)
                changed = entering = True
                if self._timeouts is not None:
                    self._timeouts.cancel(STATE_TIMEOUT)
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
        if self._trace is not None:  # not yet at the start
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
        return postponed

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
                answer_with_error(action.to, action.error)
            else:
                answer_with(action.to, action.value)
        elif kind is SetTimeout or kind is UpdateTimeout:
            self._time(action)
        elif kind is InsertEvent and action.event.__class__ in EVENTS:
            inserted.append(action.event)
        elif kind is Postpone:
            return True
        else:
            raise self._mistake("bad_action_from_state_function", action)
        return False

    def _call_enter(self, old: Any) -> None:
        """Give the state its `Enter`, again as long as it returns `Repeat`."""
        event = Enter(old)
        while True:
            if self._trace is not None:
                self._trace("enter", event)
            result: Any = self._handler(self, event)
            if self._attention and not self.is_alive:
                raise ProcessExit(self.exit_reason)
            if result is None:
                return
            kind = result.__class__
            if kind is Stop:
                self._finish(result)
            if kind is Next and not _same(result.state, self._state):
                raise self._mistake("bad_state_enter_return_from_state_function", result)
            if kind not in (Keep, Repeat, Next):
                raise self._mistake("bad_return_from_state_function", result)
            for action in result.actions:
                if action.__class__ in (Postpone, InsertEvent):
                    raise self._mistake("bad_state_enter_action_from_state_function", action)
                self._act(action, [])
            if kind is not Repeat:
                return

    def _finish(self, result: Stop) -> None:
        for action in result.replies:
            if action.__class__ is not Answer:
                raise self._mistake("bad_action_from_state_function", action)
            self._act(action, [])
        raise ProcessExit(result.reason)

    def _time(self, action: SetTimeout | UpdateTimeout) -> None:
        if self._timeouts is None:
            self._timeouts = Timeouts(
                self.runtime.timers, self.runtime.clock, self.actor_inbox, are_periodic=self.timeouts_are_periodic
            )
        try:
            done = self._timeouts.set(action) if isinstance(action, SetTimeout) else self._timeouts.update(action)
        except ValueError:
            raise self._mistake("bad_action_from_state_function", action) from None
        if done is not None and self._trace is not None:
            self._trace(done, str(action.name))

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
        """Trace only if there is a listener or a log."""
        self._trace = self._record if self._tracer is not None or self._steps is not None else None

    def _record(self, what: str, detail: object) -> None:
        step = (what, detail if isinstance(detail, str) else type(detail).__name__)
        if self._steps is not None:
            self._steps.append(step)
        if self._tracer is not None:
            try:
                self._tracer(*step)
            except Exception:  # as in OTP, a listener that raises is removed
                self._tracer = None
                self._retrace()

    def _circumstances(self, reason: str) -> dict[str, Any]:
        return self._show(super()._circumstances(reason) | {"last_event": type(self._event).__name__})

    def dispose(self, reason: object) -> None:
        """Release what the machine holds. Called once by the runtime when it is dead, in any thread."""
        if self._timeouts is not None:
            self._timeouts.cancel_all()
        self._handler = _ended  # if it is not a method, it may refer to this machine, which would be a circle
        super().dispose(reason)

    def _answer_pending_calls(self, reason: object) -> None:
        super()._answer_pending_calls(reason)
        current = self._event
        if current.__class__ is Call and not is_answered(current.reply_to):
            self._answer_current_call(current.message, current.reply_to, reason)
        for event in (*(self._postponed or ()), *(self._inserted or ())):
            if event.__class__ is Call:
                answer_call_to_dead(event.message, event.reply_to, self.label, reason)
        for owed in tuple(self._owed or ()):
            if (reply := owed()) is not None:
                answer_call_to_dead(None, reply, self.label, reason)


def _ended(_machine: Any, _event: Any) -> None:
    """Handler of a dead machine. Its own thread may call it, if another thread has killed the machine just before."""


def _same(one: Any, other: Any) -> bool:
    """Return whether two states are the same. Their types count too, since in Python ``1 == 1.0 == True``."""
    return one is other or (one.__class__ is other.__class__ and bool(one == other))
