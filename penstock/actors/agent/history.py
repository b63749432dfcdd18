"""The history of a conversation, as it is sent to a model. Pure: no thread, no clock, no I/O.

A history is a list of *turns*. A turn begins with the user's message, continues with any number of rounds (the model's
calls and all their results), and ends with an answer in words::

    user, (assistant with tool_calls, tool, tool, …)*, assistant

This is the one form that every provider accepts. Some refuse a call without its result, some two messages of one role
in a row, some a user's message directly after a tool's, some an empty answer. So a turn that was cut off is completed:
a call without a result gets one that says so, and an answer without words gets the text `INTERRUPTED` or `NO_ANSWER`.
Only whole turns are dropped, oldest first.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from penstock.config.surrogates import is_plain_json, mend_surrogates, replace_surrogates
from penstock.errors import OptionError
from penstock.events import MediaKind, MediaPart, ProviderBlock, ReasoningBlock, ToolCall
from penstock.ports.messages import check_depth, check_finite, check_message

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
    "instead_of_words",
    "read_turns",
    "size_of",
    "user_message",
]

Message: TypeAlias = dict[str, Any]
"""A chat message in OpenAI's form; see `penstock.ports.ChatCall`."""

INTERRUPTED: Final = "[interrupted]"
"""The text of an answer that was cancelled or failed before it had words."""
NO_ANSWER: Final = "[no answer]"
"""The text of an answer that was completed without words."""
_MEDIA: Final[Mapping[MediaKind, str]] = {
    "image": "[picture]",
    "audio": "[sound]",
    "video": "[video]",
    "file": "[file]",
}
"""The text of an answer that is only this. No provider takes the thing itself in a message of the assistant's."""
NOT_RUN: Final = "This call was not run, because the conversation was interrupted."
UNKNOWN_END: Final = "This call was interrupted while it ran. Whether it has taken effect is not known."

_SYSTEM_ROLES: Final = ("system", "developer")


# --- messages ------------------------------------------------------------------------------------------------------


def size_of(message: Mapping[str, Any]) -> int:
    """Estimate the bytes that a message takes on the wire.

    Raises:
        TypeError, ValueError: it cannot be encoded as JSON.
    """
    return len(json.dumps(message, ensure_ascii=False).encode(errors="replace"))


def user_message(message: object) -> Message:
    """Make the user's message from a text, a list of content parts, or a whole message of the role ``user``.

    It is a copy, in plain JSON types and without lone surrogates, so that every later request can contain it.

    Raises:
        OptionError: it is none of these, has no content, or cannot be encoded as JSON.
    """
    allowed = "a text, a list of content parts, or a dict of the role 'user', that can be encoded as JSON"
    if isinstance(message, str):
        made: Message = {"role": "user", "content": message}
    elif isinstance(message, Mapping) and message.get("role", "user") == "user" and message.get("content"):
        made = {"role": "user", **message}
    elif isinstance(message, (list, tuple)) and message and all(isinstance(part, Mapping) for part in message):
        made = {"role": "user", "content": [dict(part) for part in message]}
    else:
        raise OptionError("message", type(message).__name__, allowed)
    check_message(made, "message")
    return _as_json(made, "message", allowed)


def _as_json(message: Mapping[str, Any], field: str, allowed: str) -> Message:
    """Return a message as a JSON parser would read it, with U+FFFD in the place of lone surrogates.

    Raises:
        OptionError: it cannot be encoded as JSON, or is nested too deeply.
    """
    check_depth(message, field)
    if is_plain_json(message):
        with contextlib.suppress(ValueError):
            copied: Message = msgspec.json.decode(msgspec.json.encode(message))
            return copied
    check_finite(message, field)
    try:
        plain: Message = json.loads(mend_surrogates(json.dumps(dict(message), ensure_ascii=False, allow_nan=False)))
        msgspec.json.encode(plain)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise OptionError(field, type(message).__name__, allowed) from None
    return plain


def answer_message(
    text: str, fallback: str, blocks: Sequence[ReasoningBlock] = (), sealed: Sequence[ProviderBlock] = ()
) -> Message:
    """The message of an answer with ``text``, or with ``fallback`` if that is blank.

    Args:
        text: what the model said.
        fallback: what stands for it.
        blocks: its signed reasoning.
        sealed: what the provider needs back; the signed reasoning is among it.
    """
    if text.strip():
        return {"role": "assistant", "content": text} | _given_back(blocks, sealed)
    before = [msgspec.structs.replace(block, at=0) for block in sealed]  # the fallback is not to be cut by them
    return {"role": "assistant", "content": fallback} | _given_back(blocks, before)


def instead_of_words(media: Sequence[MediaPart]) -> str:
    """The text of an answer that was completed without words: what was spoken in ``media``, or what they are.

    >>> instead_of_words([MediaPart(kind="image", data="aGk=")])
    '[picture]'
    """
    told = [" ".join(part.transcript.split()) or _MEDIA[part.kind] for part in media]
    return " ".join(told) or NO_ANSWER


def _given_back(blocks: Sequence[ReasoningBlock], sealed: Sequence[ProviderBlock]) -> Message:
    """What an assistant's message needs besides text and calls."""
    if sealed:
        return {"provider_blocks": [_as_dict(block) for block in sealed]}
    return {"reasoning_blocks": [_as_dict(block) for block in blocks]} if blocks else {}


def _as_dict(block: ReasoningBlock | ProviderBlock) -> Message:
    """The block as every later request can contain it: null stands for NaN and infinity."""
    plain: Message = msgspec.json.decode(msgspec.json.encode(mend_surrogates(msgspec.to_builtins(block))))
    return plain


def _call_message(call: ToolCall, provider: str | None) -> Message:
    # Arguments that are no object are sent as an empty one, since some providers require one; the result says why.
    arguments = call.arguments_raw if isinstance(call.arguments, dict) and call.arguments_raw.strip() else "{}"
    if arguments.strip() == "null":
        arguments = "{}"
    if call.type == "custom":
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments_raw}}
    message: Message = {"id": call.id, "type": call.type, "function": {"name": call.name, "arguments": arguments}}
    if call.signature:
        message["signature"] = call.signature
        if signer := call.signed_by or provider:
            message["signed_by"] = signer
    return message


class Round(msgspec.Struct, frozen=True):
    """One round of an answer: calls and their results. ``text`` is the model's text before the calls.

    ``blocks`` and ``sealed``: as for `answer_message`. ``provider``: the one that made the calls, if it is known.
    """

    calls: tuple[ToolCall, ...]
    results: tuple[str, ...]
    text: str = ""
    blocks: tuple[ReasoningBlock, ...] = ()
    sealed: tuple[ProviderBlock, ...] = ()
    provider: str | None = None

    def __repr__(self) -> str:
        return f"Round(calls={len(self.calls)})"

    def messages(self) -> list[Message]:
        """The model's message and one result for each of its calls."""
        assistant: Message = {
            "role": "assistant",
            "content": self.text if self.text.strip() else None,
            "tool_calls": [_call_message(call, self.provider) for call in self.calls],
        }
        return [
            assistant | _given_back(self.blocks, self.sealed),
            *(
                {"role": "tool", "tool_call_id": call.id, "content": result}
                for call, result in zip(self.calls, self.results, strict=True)
            ),
        ]


def distinct_calls(calls: Iterable[ToolCall], used: set[str]) -> list[tuple[ToolCall, ToolCall]]:
    """Pair each call with its copy for the history, in which every id is unique.

    Some providers send no ids, or the same ones in each answer, and some refuse a conversation with a repeated id. A
    call whose id is in ``used`` gets another one. Within one answer, a second call with the same id is a duplicate and
    is left out. The ids are added to ``used``.
    """
    found: list[tuple[ToolCall, ToolCall]] = []
    seen: set[str] = set()
    for call in calls:
        if call.id in seen:
            continue
        seen.add(call.id)
        given = own = replace_surrogates(call.id)
        number = 1
        while own in used:
            number += 1
            own = f"{given}_{number}"
        used.add(own)
        found.append((call, call if own == call.id else msgspec.structs.replace(call, id=own)))
    return found


# --- turns -----------------------------------------------------------------------------------------------------


class PastTurn:
    """A user's message and everything up to its answer; see the module's docstring for the form."""

    __slots__ = ("messages", "size")

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages: tuple[Message, ...] = tuple(mend_surrogates(list(messages)))  # a model's text may have some too
        self.size = sum(size_of(message) for message in self.messages)

    def __repr__(self) -> str:
        return f"PastTurn(messages={len(self.messages)})"


def read_turns(messages: Iterable[Mapping[str, Any]]) -> tuple[list[Message], list[PastTurn]]:
    """Parse a list of chat messages into its instructions and its turns.

    A user's message without an answer gets one (`NO_ANSWER`).

    Raises:
        OptionError: it is no list of chat messages, does not begin with the user, has a message without content or with
            content that is not JSON, or has a call without its result or a result without its call. The error has the
            index of the message, and nothing of its content.
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
                turns.append(_completed(current))
            current = []
        elif not current:
            raise OptionError(field, role, "a user message before it")
        if role == "tool":
            if message.get("tool_call_id") not in open_calls:
                raise OptionError(field, role, "the id of an earlier call without a result")
            open_calls.remove(message["tool_call_id"])
        elif role == "assistant":
            open_calls = _ids_of(message, field)
        current.append(message)
    if open_calls:
        raise OptionError("history", f"{len(open_calls)} calls without a result", "a result for each")
    return system, [*turns, _completed(current)] if current else turns


def _checked(given: object, field: str) -> tuple[Message, str]:
    role = given.get("role") if isinstance(given, Mapping) else None
    if not isinstance(given, Mapping) or role not in ("user", "assistant", "tool", *_SYSTEM_ROLES):
        raise OptionError(field, role or type(given).__name__, "a chat message: user, assistant, tool or system")
    check_message(given, field)
    return _as_json(given, field, "a message that can be encoded as JSON"), role


def _ids_of(message: Message, field: str) -> list[str]:
    calls = message.get("tool_calls") or ()
    found = [call.get("id") if isinstance(call, Mapping) else None for call in calls]
    ids = [id for id in found if isinstance(id, str) and id]
    if len(set(ids)) != len(found):
        raise OptionError(f"{field}.tool_calls", len(found), "calls with a different id each")
    return ids


def _completed(messages: list[Message]) -> PastTurn:
    last = next(message for message in reversed(messages) if message["role"] not in _SYSTEM_ROLES)
    is_answered = last["role"] == "assistant" and not last.get("tool_calls")
    return PastTurn(messages if is_answered else [*messages, answer_message("", NO_ANSWER)])


# --- the history ---------------------------------------------------------------------------------------------------


class History:
    """Past turns up to a bound. The instructions and the newest turn are kept even if they exceed it.

    Args:
        system: the instructions, sent first; they do not count.
        turns: the turns to begin with.
        max_messages: how many messages are kept at most.
        max_bytes: how many bytes of messages are kept at most.
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
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self.dropped = 0
        """The number of dropped messages."""
        self._turns: list[PastTurn] = []
        self._messages: list[Message] = []  # of all turns, so that a request need not look at each turn
        self._size = 0
        self._set(turns)

    def __len__(self) -> int:
        """The number of messages, without the instructions."""
        return len(self._messages)

    def add(self, turn: PastTurn) -> None:
        """Add the newest turn, and drop old ones if the bound is exceeded."""
        self._append(turn)
        self._trim()

    def replace(self, system: Iterable[Message], turns: Iterable[PastTurn]) -> None:
        """Replace the instructions and all turns, and drop the oldest new ones if the bound is exceeded."""
        self._system = tuple(system)
        self._set(turns)

    def forget(self, turns: int) -> int:
        """Remove the newest turns; returns how many there were to remove. They do not count as dropped."""
        count = min(turns, len(self._turns))
        first = len(self._turns) - count
        forgotten = self._turns[first:]
        del self._turns[first:]
        del self._messages[len(self._messages) - _count(forgotten) :]
        self._size -= sum(turn.size for turn in forgotten)
        return count

    def _set(self, turns: Iterable[PastTurn]) -> None:
        self._turns, self._messages, self._size = [], [], 0
        for turn in turns:
            self._append(turn)
        self._trim()

    def _append(self, turn: PastTurn) -> None:
        self._turns.append(turn)
        self._messages += turn.messages
        self._size += turn.size

    def _trim(self) -> None:
        first = self._first_that_fits(0, 0, keep=1)
        if not first:
            return
        dropped = self._turns[:first]
        count = _count(dropped)
        self.dropped += count
        self._size -= sum(turn.size for turn in dropped)
        del self._turns[:first]
        del self._messages[:count]

    def _first_that_fits(self, count: int, size: int, *, keep: int) -> int:
        """The index of the first turn that fits besides ``count`` messages of ``size`` bytes; ``keep`` always fit."""
        count += len(self._messages)
        size += self._size
        first, last = 0, len(self._turns) - keep
        while first < last and (count > self._max_messages or size > self._max_bytes):
            count -= len(self._turns[first].messages)
            size -= self._turns[first].size
            first += 1
        return first

    def request(self, current: Sequence[Message]) -> list[Message]:
        """The messages to send: the instructions, as many past turns as there is room for, and the turn under way."""
        first = self._first_that_fits(len(current), sum(size_of(message) for message in current), keep=0)
        kept = self._messages[_count(self._turns[:first]) :] if first else self._messages
        mended: list[Message] = mend_surrogates(list(current))
        return [*self._system, *kept, *mended]

    def messages(self) -> tuple[Message, ...]:
        """All messages, including the instructions, as a copy."""
        return tuple(copy.deepcopy([*self._system, *self._messages]))

    def past_messages(self) -> list[Message]:
        """All messages but the instructions. They must not be changed."""
        return list(self._messages)

    def call_ids(self) -> set[str]:
        """The ids of all calls in the history."""
        return {call["id"] for message in self._messages for call in message.get("tool_calls") or ()}

    def __repr__(self) -> str:
        return f"History(messages={len(self)}, dropped={self.dropped})"


def _count(turns: Iterable[PastTurn]) -> int:
    return sum(len(turn.messages) for turn in turns)
