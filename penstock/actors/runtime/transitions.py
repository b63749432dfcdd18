"""Events, actions and transitions of state machines. All of them are values.

A state method gets an event and returns a transition; a transition carries actions. The machine itself is
`penstock.actors.runtime.statem.StateMachine`.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec
import pykka

from penstock.actors.runtime.reasons import NORMAL
from penstock.actors.runtime.signals import Ephemeral
from penstock.errors import PenstockError

__all__ = [
    "EVENTS",
    "EVENT_TIMEOUT",
    "IGNORE",
    "POSTPONE",
    "STATE_TIMEOUT",
    "Action",
    "Answer",
    "Call",
    "Cast",
    "Enter",
    "Event",
    "EventTimeout",
    "Info",
    "InsertEvent",
    "Internal",
    "Keep",
    "NamedTimeout",
    "Next",
    "Postpone",
    "Repeat",
    "SetTimeout",
    "StateMachineError",
    "StateTimeout",
    "Stop",
    "Transition",
    "UnknownCall",
    "UpdateTimeout",
    "answer",
    "answer_error",
    "cancel_timeout",
    "event_timeout",
    "next_event",
    "state_timeout",
    "timeout",
    "timeout_event",
    "update_timeout",
]


# --- events --------------------------------------------------------------------------------------------------------


class Call(msgspec.Struct, frozen=True):
    """A request (``ref.ask``) whose caller waits; to be answered, now or later, with `answer` or `answer_error`."""

    message: Any
    reply_to: pykka.Future[Any]


class Cast(msgspec.Struct, frozen=True):
    """A message without an answer (``ref.tell``)."""

    message: Any


class Info(msgspec.Struct, frozen=True):
    """Any other message: `Down`, `ExitNotice`, or what a sender wrapped in an `Info`."""

    message: Any


class Internal(Ephemeral, msgspec.Struct, frozen=True):
    """An event that the machine inserted itself with `next_event`."""

    message: Any


class Enter(msgspec.Struct, frozen=True):
    """The state has just been entered from ``old`` (only with ``state_enter``)."""

    old: Any


class StateTimeout(msgspec.Struct, frozen=True):
    """The time-out of the state has expired."""

    content: Any = None


class EventTimeout(msgspec.Struct, frozen=True):
    """The event time-out has expired: no event arrived meanwhile."""

    content: Any = None


class NamedTimeout(msgspec.Struct, frozen=True):
    """A named time-out has expired."""

    name: Any
    content: Any = None


Event: TypeAlias = Call | Cast | Info | Internal | Enter | StateTimeout | EventTimeout | NamedTimeout
EVENTS: Final = frozenset({Call, Cast, Info, Internal, StateTimeout, EventTimeout, NamedTimeout})

# --- actions -------------------------------------------------------------------------------------------------------


class _Kind:
    """Key of one of the two time-outs that have no name."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __repr__(self) -> str:
        return self.word


STATE_TIMEOUT: Final = _Kind("state_timeout")
EVENT_TIMEOUT: Final = _Kind("event_timeout")


class Answer(msgspec.Struct, frozen=True):
    """Made by `answer` and `answer_error`."""

    to: pykka.Future[Any]
    value: Any
    error: BaseException | None = None


class SetTimeout(msgspec.Struct, frozen=True):
    """Made by `state_timeout`, `event_timeout`, `timeout` and `cancel_timeout`."""

    name: Any
    seconds: float | None
    content: Any
    absolute: bool


class UpdateTimeout(msgspec.Struct, frozen=True):
    """Made by `update_timeout`."""

    name: Any
    content: Any


class InsertEvent(msgspec.Struct, frozen=True):
    """Made by `next_event`."""

    event: Any


class Postpone(msgspec.Struct, frozen=True):
    """Its only instance is `POSTPONE`."""


Action: TypeAlias = Answer | SetTimeout | UpdateTimeout | InsertEvent | Postpone
POSTPONE: Final = Postpone()
"""Keep this event, unhandled, until the state changes."""


def answer(to: pykka.Future[Any], value: Any = None) -> Action:
    """Answer a `Call`."""
    return Answer(to, value)


def answer_error(to: pykka.Future[Any], error: BaseException) -> Action:
    """Answer a `Call` with an exception. The machine goes on."""
    return Answer(to, None, error)


def next_event(event: Event) -> Action:
    """Handle ``event`` before all events that wait."""
    return InsertEvent(event)


def state_timeout(seconds: float | None, content: Any = None, *, absolute: bool = False) -> Action:
    """Get a `StateTimeout` after ``seconds`` in this state.

    None cancels the time-out. With ``absolute``, ``seconds`` is a time of the monotonic clock.
    """
    return SetTimeout(STATE_TIMEOUT, seconds, content, absolute)


def event_timeout(seconds: float | None, content: Any = None, *, absolute: bool = False) -> Action:
    """Get an `EventTimeout` unless an event arrives within ``seconds``. Arguments as for `state_timeout`."""
    return SetTimeout(EVENT_TIMEOUT, seconds, content, absolute)


def timeout(name: Any, seconds: float | None, content: Any = None, *, absolute: bool = False) -> Action:
    """Get a `NamedTimeout` after ``seconds``, whatever happens meanwhile. Setting it again replaces it.

    Arguments as for `state_timeout`.
    """
    return SetTimeout(name, seconds, content, absolute)


def cancel_timeout(name: Any = STATE_TIMEOUT) -> Action:
    """Cancel a named time-out or that of the state. It is not delivered, even if it has expired already."""
    return SetTimeout(name, None, None, False)


def update_timeout(content: Any, name: Any = STATE_TIMEOUT) -> Action:
    """Change the content of a running time-out but not its time. One that is not running expires at once."""
    return UpdateTimeout(name, content)


# --- transitions ---------------------------------------------------------------------------------------------------


class Next:
    """Go to ``state``. If that is the current state, the same as `Keep`."""

    __slots__ = ("actions", "state")

    def __init__(self, state: Any, *actions: Action) -> None:
        self.state = state
        self.actions = actions


class Keep:
    """Stay in the state."""

    __slots__ = ("actions",)

    def __init__(self, *actions: Action) -> None:
        self.actions = actions


class Repeat:
    """Stay in the state and give it its `Enter` again. Postponed events stay postponed, its time-out keeps running."""

    __slots__ = ("actions",)

    def __init__(self, *actions: Action) -> None:
        self.actions = actions


class Stop:
    """Send the replies and end with ``reason``."""

    __slots__ = ("reason", "replies")

    def __init__(self, reason: object = NORMAL, *replies: Action) -> None:
        self.reason = reason
        self.replies = replies


class _Ignore:
    """Returned by ``init`` to not start, which a supervisor does not treat as an error."""


IGNORE: Final = _Ignore()
Transition: TypeAlias = Next | Keep | Repeat | Stop | None


def timeout_event(name: Any, content: Any) -> Any:
    """Return the event of an expired time-out."""
    if name is STATE_TIMEOUT:
        return StateTimeout(content)
    if name is EVENT_TIMEOUT:
        return EventTimeout(content)
    return NamedTimeout(name, content)


# --- errors ----------------------------------------------------------------------------------------------------------


class StateMachineError(PenstockError):
    """A state machine broke its contract; ``code`` is OTP's word for it, e.g. ``"bad_action_from_state_function"``."""

    def __init__(self, code: str, machine: str, state: object, detail: object) -> None:
        self.code = code
        super().__init__(f"{machine} in state {state!r}: {code}, got {type(detail).__name__}")


class UnknownCall(PenstockError):
    """The state of a state machine does not know this call."""
