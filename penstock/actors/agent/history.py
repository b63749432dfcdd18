"""What a model is told of a conversation so far. Pure: no thread, no clock, no I/O.

A history is a list of *turns*. A turn begins with what the user said, goes on with any number of rounds (the
model's calls and all their results), and ends with an answer in words::

    user, (assistant with tool_calls, tool, tool, …)*, assistant

That is the one form which every provider accepts. Some refuse a call without its result, some two messages of one role
in a row, some a user's message right behind a tool's, some an empty answer. So what was cut off is made whole: a
call without a result gets one that says so, and an answer without words gets `INTERRUPTED` or `NO_ANSWER` for words.
Turns are dropped whole, oldest first.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from penstock.errors import OptionError
from penstock.events import ReasoningBlock, ToolCall

__all__ = [
    "INTERRUPTED",
    "NOT_RUN",
    "NO_ANSWER",
    "UNKNOWN_END",
    "History",
    "Message",
    "PastTurn",
    "Round",
    "answer_message",
    "distinct_calls",
    "read_turns",
    "size_of",
    "user_message",
]

Message: TypeAlias = dict[str, Any]
"""A chat message in OpenAI's form; see `penstock.ports.ChatCall`."""

INTERRUPTED: Final = "[interrupted]"
"""Stands for the answer of a turn that was cancelled or has failed before it had words."""
NO_ANSWER: Final = "[no answer]"
"""Stands for the answer of a turn that ended well without words."""
NOT_RUN: Final = "This call was not run: the conversation was interrupted before."
UNKNOWN_END: Final = "This call was interrupted while it ran. Whether it has taken effect is not known."

_SYSTEM_ROLES: Final = ("system", "developer")


# --- messages ------------------------------------------------------------------------------------------------------


def size_of(message: Mapping[str, Any]) -> int:
    """About how many bytes a message takes on the wire.

    Raises:
        TypeError, ValueError: it cannot be written as JSON.
    """
    return len(json.dumps(message, ensure_ascii=False).encode(errors="replace"))


def user_message(message: object) -> Message:
    """What a user may say: a text, a list of content parts, or a whole message of the role ``user``.

    Raises:
        OptionError: it is none of these, or cannot be written as JSON.
    """
    allowed = "a text, a list of content parts, or a dict of the role 'user', which JSON can hold"
    if isinstance(message, str):
        made: Message = {"role": "user", "content": message}
    elif isinstance(message, Mapping) and message.get("role", "user") == "user" and message.get("content"):
        made = {"role": "user", **message}
    elif isinstance(message, (list, tuple)) and message and all(isinstance(part, Mapping) for part in message):
        made = {"role": "user", "content": [dict(part) for part in message]}
    else:
        raise OptionError("message", type(message).__name__, allowed)
    try:
        size_of(made)
    except (TypeError, ValueError, RecursionError):
        raise OptionError("message", type(message).__name__, allowed) from None
    return copy.deepcopy(made)


def answer_message(text: str, fallback: str, blocks: Sequence[ReasoningBlock] = ()) -> Message:
    """An answer in words; ``fallback`` are the words if there are none."""
    message: Message = {"role": "assistant", "content": text if text.strip() else fallback}
    return message | _reasoning(blocks)


def _reasoning(blocks: Sequence[ReasoningBlock]) -> Message:
    return {"reasoning_blocks": [msgspec.to_builtins(block) for block in blocks]} if blocks else {}


def _asked(call: ToolCall) -> Message:
    # What is no object stands as an empty one: some providers take nothing else, and the result says what was wrong.
    arguments = call.arguments_raw if isinstance(call.arguments, dict) and call.arguments_raw.strip() else "{}"
    if arguments.strip() == "null":
        arguments = "{}"
    asked: Message = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
    return asked | ({"signature": call.signature} if call.signature else {})


class Round(msgspec.Struct, frozen=True):
    """One round of an answer: calls, and what each has come to. ``text`` is what the model said beside them."""

    calls: tuple[ToolCall, ...]
    results: tuple[str, ...]
    text: str = ""
    blocks: tuple[ReasoningBlock, ...] = ()

    def __repr__(self) -> str:
        return f"Round(calls={len(self.calls)})"

    def messages(self) -> list[Message]:
        """The model's message and one result for each of its calls."""
        assistant: Message = {
            "role": "assistant",
            "content": self.text if self.text.strip() else None,
            "tool_calls": [_asked(call) for call in self.calls],
        }
        return [
            assistant | _reasoning(self.blocks),
            *(
                {"role": "tool", "tool_call_id": call.id, "content": result}
                for call, result in zip(self.calls, self.results, strict=True)
            ),
        ]


def distinct_calls(calls: Iterable[ToolCall], used: set[str]) -> list[tuple[ToolCall, ToolCall]]:
    """Each call as it was told and as it stands in the history, where no id stands twice.

    Some providers give no ids, or the same ones in each answer, and some refuse a conversation in which one comes
    twice: such a call stands under another. A second call of one answer with the id of the first is the same call,
    told twice, and left out. ``used`` is added to.
    """
    found: list[tuple[ToolCall, ToolCall]] = []
    seen: set[str] = set()
    for call in calls:
        if call.id in seen:
            continue
        seen.add(call.id)
        own, number = call.id, 1
        while own in used:
            number += 1
            own = f"{call.id}_{number}"
        used.add(own)
        found.append((call, call if own == call.id else msgspec.structs.replace(call, id=own)))
    return found


# --- turns -----------------------------------------------------------------------------------------------------


class PastTurn:
    """One message of the user's and everything up to the answer; see the module's docstring for its form."""

    __slots__ = ("messages", "size")

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = tuple(messages)
        self.size = sum(size_of(message) for message in self.messages)

    def __repr__(self) -> str:
        return f"PastTurn(messages={len(self.messages)})"


def read_turns(messages: Iterable[Mapping[str, Any]]) -> tuple[list[Message], list[PastTurn]]:
    """A history that was kept elsewhere: its instructions, and its turns.

    A user's message without an answer gets one (`NO_ANSWER`).

    Raises:
        OptionError: it is no list of chat messages, does not begin with the user, or has a call without its result or
            a result without its call. The message says which, and nothing of what is in it.
    """
    system: list[Message] = []
    turns: list[PastTurn] = []
    current: list[Message] = []
    open_calls: list[str] = []
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise OptionError("history", type(messages).__name__, "a list of chat messages")
    for number, given in enumerate(messages):
        field = f"history[{number}]"
        message, role = _checked(given, field)
        if open_calls and role != "tool":
            raise OptionError(field, role, f"results of the {len(open_calls)} calls before it")
        if role in _SYSTEM_ROLES and not current:
            system.append(message)
            continue
        if role == "user":
            if current:
                turns.append(_whole(current))
            current = []
        elif not current:
            raise OptionError(field, role, "a message of the user before it")
        if role == "tool":
            if message.get("tool_call_id") not in open_calls:
                raise OptionError(field, role, "the id of a call before it that has no result yet")
            open_calls.remove(message["tool_call_id"])
        elif role == "assistant":
            open_calls = _ids_of(message, field)
        current.append(message)
    if open_calls:
        raise OptionError("history", f"{len(open_calls)} calls without a result", "a result for each")
    return system, [*turns, _whole(current)] if current else turns


def _checked(given: object, field: str) -> tuple[Message, str]:
    role = given.get("role") if isinstance(given, Mapping) else None
    if not isinstance(given, Mapping) or role not in ("user", "assistant", "tool", *_SYSTEM_ROLES):
        raise OptionError(field, role or type(given).__name__, "a chat message: user, assistant, tool or system")
    try:
        size_of(dict(given))
    except (TypeError, ValueError, RecursionError):
        raise OptionError(field, role, "a message that JSON can hold") from None
    return copy.deepcopy(dict(given)), role


def _ids_of(message: Message, field: str) -> list[str]:
    calls = message.get("tool_calls") or ()
    found = [call.get("id") if isinstance(call, Mapping) else None for call in calls]
    ids = [id for id in found if isinstance(id, str) and id]
    if len(set(ids)) != len(found):
        raise OptionError(f"{field}.tool_calls", len(found), "calls with an id of their own each")
    return ids


def _whole(messages: list[Message]) -> PastTurn:
    last = next(message for message in reversed(messages) if message["role"] not in _SYSTEM_ROLES)
    is_answered = last["role"] == "assistant" and not last.get("tool_calls")
    return PastTurn(messages if is_answered else [*messages, answer_message("", NO_ANSWER)])


# --- the history ---------------------------------------------------------------------------------------------------


class History:
    """Past turns up to a bound. The instructions, and the newest turn, are kept whatever the bound is.

    Args:
        system: the instructions, before everything else; they do not count.
        turns: what to begin with.
        max_messages: how many messages are kept.
        max_bytes: how many bytes of messages are kept.
    """

    def __init__(
        self,
        system: Iterable[Message] = (),
        turns: Iterable[PastTurn] = (),
        *,
        max_messages: int = 1_000,
        max_bytes: int = 1_048_576,
    ) -> None:
        self._system = tuple(system)
        self._exchanges = list(turns)
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self.dropped = 0
        """How many messages have been dropped."""
        self._trim()

    def __len__(self) -> int:
        """How many messages there are, instructions apart."""
        return sum(len(turn.messages) for turn in self._exchanges)

    def add(self, turn: PastTurn) -> None:
        """Add the newest one; the oldest make room for it."""
        self._exchanges.append(turn)
        self._trim()

    def _trim(self) -> None:
        first = self._first_that_fits(0, 0, keep=1)
        self.dropped += sum(len(turn.messages) for turn in self._exchanges[:first])
        del self._exchanges[:first]

    def _first_that_fits(self, count: int, size: int, *, keep: int) -> int:
        """Where the newest turns begin that fit in beside so many messages and bytes; ``keep`` are kept anyway."""
        first = len(self._exchanges)
        for turn in reversed(self._exchanges):
            count += len(turn.messages)
            size += turn.size
            if (count > self._max_messages or size > self._max_bytes) and len(self._exchanges) - first >= keep:
                break
            first -= 1
        return first

    def request(self, current: Sequence[Message]) -> list[Message]:
        """What to send: the instructions, as much of what was said as there is room for, and the turn under way."""
        first = self._first_that_fits(len(current), sum(size_of(message) for message in current), keep=0)
        kept = self._exchanges[first:]
        return [*self._system, *(message for turn in kept for message in turn.messages), *current]

    def messages(self) -> tuple[Message, ...]:
        """All of it, the instructions included, as a copy."""
        said = (message for turn in self._exchanges for message in turn.messages)
        return tuple(copy.deepcopy([*self._system, *said]))

    def call_ids(self) -> set[str]:
        """The ids of all calls in it."""
        return {
            call["id"]
            for turn in self._exchanges
            for message in turn.messages
            for call in message.get("tool_calls") or ()
        }

    def __repr__(self) -> str:
        return f"History(messages={len(self)}, dropped={self.dropped})"
