"""What state machines are written with: events, actions, transitions. All of them are values.

A state method gets an event and returns a transition; a transition carries actions. See
`penstock.actors.runtime.statem` for the machine itself.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec
import pykka

from penstock.actors.runtime.signals import NORMAL, Ephemeral
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
    """Somebody asks (``ref.ask``) and waits; to be answered now or later with `answer` or `answer_error`."""

    message: Any
    reply_to: pykka.Future[Any]


class Cast(msgspec.Struct, frozen=True):
    """Somebody tells (``ref.tell``)."""

    message: Any


class Info(msgspec.Struct, frozen=True):
    """Anything else that came: `Down`, `ExitNotice`, or what was told wrapped in an `Info`."""

    message: Any


class Internal(Ephemeral, msgspec.Struct, frozen=True):
    """An event the machine gave itself with `next_event`."""

    message: Any


class Enter(msgspec.Struct, frozen=True):
    """The state has just been entered, from ``old`` (only with ``state_enter``)."""

    old: Any


class StateTimeout(msgspec.Struct, frozen=True):
    """The state has held for as long as its time-out said."""

    content: Any = None


class EventTimeout(msgspec.Struct, frozen=True):
    """No event has come for as long as the event time-out said."""

    content: Any = None


class NamedTimeout(msgspec.Struct, frozen=True):
    """A named time-out is over."""

    name: Any
    content: Any = None


Event: TypeAlias = Call | Cast | Info | Internal | Enter | StateTimeout | EventTimeout | NamedTimeout
EVENTS: Final = frozenset({Call, Cast, Info, Internal, StateTimeout, EventTimeout, NamedTimeout})

# --- actions -------------------------------------------------------------------------------------------------------


class _Kind:
    """The names under which the two unnamed time-outs are kept."""

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
    """Made by the functions named after the time-outs."""

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
    """There is one: `POSTPONE`."""


Action: TypeAlias = Answer | SetTimeout | UpdateTimeout | InsertEvent | Postpone
POSTPONE: Final = Postpone()
"""Keep this event, untouched, until the state changes."""


def answer(to: pykka.Future[Any], value: Any = None) -> Action:
    """Answer a `Call`."""
    return Answer(to, value)


def answer_error(to: pykka.Future[Any], error: BaseException) -> Action:
    """Let the caller get ``error``; the machine goes on."""
    return Answer(to, None, error)


def next_event(event: Event) -> Action:
    """Insert an event before everything that waits."""
    return InsertEvent(event)


def state_timeout(seconds: float | None, content: Any = None, *, absolute: bool = False) -> Action:
    """A `StateTimeout` after ``seconds`` in this state (None cancels it; ``absolute`` takes monotonic time)."""
    return SetTimeout(STATE_TIMEOUT, seconds, content, absolute)


def event_timeout(seconds: float | None, content: Any = None, *, absolute: bool = False) -> Action:
    """An `EventTimeout` unless some event comes within ``seconds``."""
    return SetTimeout(EVENT_TIMEOUT, seconds, content, absolute)


def timeout(name: Any, seconds: float | None, content: Any = None, *, absolute: bool = False) -> Action:
    """A `NamedTimeout` after ``seconds``, whatever happens meanwhile; setting it again replaces it."""
    return SetTimeout(name, seconds, content, absolute)


def cancel_timeout(name: Any = STATE_TIMEOUT) -> Action:
    """Cancel a named time-out, or the state's; it is never delivered, even if it has expired already."""
    return SetTimeout(name, None, None, False)


def update_timeout(content: Any, name: Any = STATE_TIMEOUT) -> Action:
    """Change what a running time-out will carry and leave its moment; one that does not run fires at once."""
    return UpdateTimeout(name, content)


# --- transitions ---------------------------------------------------------------------------------------------------


class Next:
    """Go to ``state`` (which may be the same: then it is the same as `Keep`)."""

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
    """Stay in the state, but give it its `Enter` again. Postponed events and its time-out stay where they are."""

    __slots__ = ("actions",)

    def __init__(self, *actions: Action) -> None:
        self.actions = actions


class Stop:
    """End with ``reason``, after giving the replies."""

    __slots__ = ("reason", "replies")

    def __init__(self, reason: object = NORMAL, *replies: Action) -> None:
        self.reason = reason
        self.replies = replies


class _Ignore:
    """Returned by ``init``: do not start, and that is no error."""


IGNORE: Final = _Ignore()
Transition: TypeAlias = Next | Keep | Repeat | Stop | None


def timeout_event(name: Any, content: Any) -> Any:
    if name is STATE_TIMEOUT:
        return StateTimeout(content)
    if name is EVENT_TIMEOUT:
        return EventTimeout(content)
    return NamedTimeout(name, content)


# --- mistakes --------------------------------------------------------------------------------------------------------


class StateMachineError(PenstockError):
    """A state machine did what its contract does not allow; ``code`` is OTP's word for it."""

    def __init__(self, code: str, machine: str, state: object, detail: object) -> None:
        self.code = code
        super().__init__(f"{machine} in state {state!r}: {code}: {type(detail).__name__}")


class UnknownCall(PenstockError):
    """A process was asked what it does not know in the state it is in."""
