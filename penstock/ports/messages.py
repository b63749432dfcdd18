"""The form of chat messages, checked in one place for every provider.

Only what no provider accepts is refused: each provider's own forms pass. An error has the message's position and the
field, and nothing of the content.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, TypeGuard

from penstock.config.checks import Shown, near_miss, type_of
from penstock.config.surrogates import is_plain_json
from penstock.errors import OptionError

__all__ = ["check_depth", "check_finite", "check_items", "check_message", "check_messages"]

_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
_SPEAKERS: Final = ("user", "assistant", "system", "developer")
_RARE_ROLES: Final = frozenset({"model", "ipython", "critic", "discriminator", "latest_reminder"})
"""Gemini's own, and those of chat templates and of the Responses API."""
_NULLABLE: Final = frozenset({"assistant", "model", "tool", "function"})
"""Roles whose content may be None: an answer without words, a result without text."""
_INSTEAD: Final = (
    *("tool_calls", "function_call", "refusal", "audio", "reasoning_blocks", "reasoning_content", "reasoning"),
    *("thinking", "images", "parts", "prefix"),
)
"""Fields that a message may have instead of content."""
_MADE_BY_MODELS: Final = ("provider_blocks", "reasoning_blocks", "tool_calls", "reasoning_details")
_LONGEST_SHOWN: Final = 20
_MOST_LEVELS: Final = 256


def check_messages(messages: object, field: str = "messages") -> None:
    """Check the messages of a chat; a text is fine too.

    Raises:
        OptionError: there is none; one has no role or an unknown one, no content, or content of a wrong type; or one is
            a tool's result without its call.
    """
    if isinstance(messages, str):
        return
    if not _is_list(messages):
        raise OptionError(field, type_of(messages), "a list of messages, or text")
    if not messages:
        raise OptionError(field, Shown("an empty list"), "at least one message")
    calls = _Calls()
    for number, message in enumerate(messages):
        if _is_usual(message):
            continue
        place = f"{field}[{number}]"
        check_message(message, place)
        calls.check(message, place)


def _is_usual(message: object) -> bool:
    """Whether a message is right at first sight: a role and a text."""
    return (
        type(message) is dict
        and len(message) == 2
        and type(message.get("content")) is str
        and message.get("role") in _SPEAKERS
    )


def check_items(items: object, field: str = "input", *, is_continued: bool = False) -> None:
    """Check the messages among the items of a Responses API request; other items pass, and so does no input at all.

    Args:
        items: the input.
        field: its name, for errors.
        is_continued: the provider has an earlier part of the conversation, so the input may be empty, and may have
            results of calls that are there.

    Raises:
        OptionError: as for `check_messages`.
    """
    if isinstance(items, (Mapping, bytes, bytearray, bool, int, float)):
        raise OptionError(field, type_of(items), "a text, or a list of messages and items")
    if isinstance(items, str) or not _is_list(items):
        return
    if not items and not is_continued:
        raise OptionError(field, Shown("an empty list"), "at least one message or item")
    calls = _Calls()
    is_continued = is_continued or any(
        isinstance(item, Mapping) and item.get("type") == "item_reference" for item in items
    )
    for number, item in enumerate(items):
        place = f"{field}[{number}]"
        if not isinstance(item, Mapping):
            raise OptionError(place, type_of(item), "a dict with a role and content, or an item")
        if item.get("type") in (None, "message"):
            check_message(item, place)
        if not is_continued:
            calls.check(item, place)


def check_message(message: object, field: str) -> None:
    """Check one message by itself.

    Raises:
        OptionError: it has no role or an unknown one, no content, or content of a wrong type.
    """
    if not isinstance(message, Mapping):
        raise OptionError(field, type_of(message), "a dict with a role and content")
    role = message.get("role", "user" if "parts" in message else None)
    if role not in _ROLES and not (isinstance(role, str) and role in _RARE_ROLES):
        raise _wrong_role(role, f"{field}.role")
    content = message.get("content")
    if content is None:
        if any(message.get(name) is not None for name in _INSTEAD) or (role in _NULLABLE and "content" in message):
            return
        raise OptionError(f"{field}.content", content, "a text, or a list of content parts", problem="it is missing")
    if isinstance(content, (bool, int, float, bytes, bytearray)):
        raise OptionError(f"{field}.content", type_of(content), "a text, or a list of content parts")
    for number, part in enumerate(content if _is_list(content) else ()):
        if part is None or isinstance(part, (bool, int, float, bytes, bytearray)):
            raise OptionError(f"{field}.content[{number}]", type_of(part), "a content part, or a text")


def _wrong_role(role: object, field: str) -> OptionError:
    is_shown = isinstance(role, str) and role.isidentifier() and len(role) <= _LONGEST_SHOWN
    meant = near_miss(role, _ROLES) if is_shown and isinstance(role, str) else None
    allowed = " | ".join(_ROLES)
    if role is None:
        return OptionError(field, None, allowed, problem=f"it is missing; allowed: {allowed}")
    hint = f"; did you mean {meant}?" if meant else ""
    return OptionError(field, role if is_shown else type_of(role), f"{allowed}{hint}")


class _Calls:
    """The calls so far, in chat's form, in Anthropic's and in that of the Responses API."""

    def __init__(self) -> None:
        self._ids: set[str | None] = set()  # None: a call without an id

    def check(self, message: Mapping[str, Any], field: str) -> None:
        """Note the calls in a message.

        Raises:
            OptionError: it is a tool's result, or has one, and the call is not there.
        """
        for call_id in _call_ids(message):
            self._ids.add(call_id if isinstance(call_id, str) else None)
        if message.get("role") == "tool" and "parts" not in message:
            call_id = message.get("tool_call_id")
            has_name = any(isinstance(message.get(name), str) for name in ("name", "tool_name"))
            if call_id is not None or not has_name:  # Ollama and Gemini know the result by the tool's name
                self._check_id(call_id, f"{field}.tool_call_id")
        for number, part in _parts(message):
            if part.get("type") == "tool_result":
                self._check_id(part.get("tool_use_id"), f"{field}.content[{number}].tool_use_id")

    def _check_id(self, call_id: object, field: str) -> None:
        if None in self._ids or (isinstance(call_id, str) and call_id in self._ids):
            return
        if call_id is None and self._ids:
            return  # the provider goes by the order
        problem = "a tool's result without its call: no message before it has a call with this id"
        raise OptionError(field, type_of(call_id), "the id of an earlier call", problem=problem)


def _call_ids(message: Mapping[str, Any]) -> Iterator[object]:
    calls = message.get("tool_calls")
    for call in calls if _is_list(calls) else ():
        yield call.get("id") if isinstance(call, Mapping) else getattr(call, "id", None)
    if message.get("function_call") is not None:
        yield None
    if "call_id" in message:  # an item of the Responses API
        yield message["call_id"]
    for _, part in _parts(message):
        if part.get("type") in ("tool_use", "server_tool_use", "mcp_tool_use"):
            yield part.get("id")
    for part in message.get("parts") or ():
        if isinstance(part, Mapping) and not {"functionCall", "function_call"}.isdisjoint(part):
            yield None


def _parts(message: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    content = message.get("content")
    for number, part in enumerate(content if _is_list(content) else ()):
        if isinstance(part, Mapping):
            yield number, part


def check_depth(value: object, field: str) -> None:
    """Raise `OptionError` if JSON-like data is nested more than 256 levels deep: Python cannot copy much more."""
    level = [value]
    for _ in range(_MOST_LEVELS):
        level = [item for one in level for item in _items(one) if isinstance(item, (Mapping, list, tuple))]
        if not level:
            return
    raise OptionError(field, Shown("content nested too deeply"), f"at most {_MOST_LEVELS} levels")


def _items(value: object) -> Collection[object]:
    return value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()


def check_finite(value: object, field: str) -> None:
    """Raise `OptionError` if there is NaN or infinity in JSON-like data: JSON has no such numbers.

    The error names the place, but no field of what a model or a provider has made.
    """
    if is_plain_json(value):
        return
    try:
        place = next(_not_finite(value, field), None)
    except RecursionError:
        return  # refused when the request is encoded
    if place is not None:
        raise OptionError(place, Shown("NaN or infinity"), "a number that JSON has")


def _not_finite(value: object, place: str, *, names: bool = True) -> Iterator[str]:
    if isinstance(value, float):
        if not math.isfinite(value):
            yield place
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, float) and not math.isfinite(key):
                yield place
            is_name = names and isinstance(key, str) and key.isidentifier() and len(key) <= _LONGEST_SHOWN
            inside = f"{place}.{key}" if is_name else f"{place}[…]"
            yield from _not_finite(item, inside, names=is_name and key not in _MADE_BY_MODELS)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _not_finite(item, f"{place}[{number}]", names=names)


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    if type(value) is list:
        return True
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
