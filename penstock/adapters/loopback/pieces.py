"""What all parts of an answer are made of: token-like pieces, checks, and the calls that the client must act on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from penstock.config.checks import check_choice
from penstock.errors import OptionError

__all__ = [
    "CALL_TYPES",
    "ScriptedCall",
    "check_id",
    "check_text",
    "fragments_of",
    "split_text",
    "take_json",
    "take_tuple",
]

CALL_TYPES = (
    "function",
    "custom",
    "local_shell",
    "shell",
    "apply_patch",
    "computer",
    "mcp_approval",
    "tool_search",
)
"""The types of `penstock.events.ToolCall`."""

_LONGEST_ID = 256
_TOKEN = re.compile(r"\s*\S{1,8}|\s+")


def split_text(text: str) -> list[str]:
    """Split ``text`` into token-like pieces: words with the space before them, long words in parts.

    >>> split_text("Good morning, Vienna")
    ['Good', ' morning,', ' Vienna']
    """
    return _TOKEN.findall(text)


def fragments_of(text: str) -> list[str]:
    """Split arguments, code and base64 data into the pieces that they are streamed in.

    >>> fragments_of('{"city": "Bern"}')
    ['{"city":', ' "Bern"}']
    """
    return [text[start : start + 8] for start in range(0, len(text), 8)]


def check_text(name: str, value: object, *, optional: bool = False) -> None:
    """Raise `OptionError` unless ``value`` is text that UTF-8 can encode (no lone surrogates)."""
    if optional and value is None:
        return
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            pass
        else:
            return
    allowed = "a string that UTF-8 can encode (no lone surrogates)"
    raise OptionError(name, value, allowed + (", or None" if optional else ""))


def take_tuple(owner: object, name: str, kind: Any, allowed: str, *, optional: bool = False) -> None:
    """Store a list as a tuple; raise `OptionError` if an item is not of ``kind``."""
    value = getattr(owner, name)
    if value is None and optional:
        return
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, kind) for item in value):
        raise OptionError(name, value, allowed)
    object.__setattr__(owner, name, tuple(value))


def take_json(owner: object, name: str, allowed: str = "a JSON value", kind: type = object) -> None:
    """Store a copy of a JSON value; raise `OptionError` if it is none, or not of ``kind``."""
    value = getattr(owner, name)
    try:
        plain = msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError, RecursionError):
        raise OptionError(name, value, allowed) from None
    if not isinstance(plain, kind):
        raise OptionError(name, value, allowed)
    object.__setattr__(owner, name, plain)


def check_id(value: str | None) -> None:
    check_text("id", value, optional=True)
    if value is not None and not 0 < len(value) <= _LONGEST_ID:
        raise OptionError("id", value, f"1 to {_LONGEST_ID} characters, or None")


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """A call in an answer that the client must act on.

    ``arguments`` is sent as it is, so it may be broken JSON. Ollama and Gemini send an object, where broken JSON
    breaks the whole event. ``signature`` is Gemini's ``thoughtSignature``; other APIs do not send it, except for chat
    completions where the answer has ``parts`` (``extra_content.google.thought_signature``).

    ``type``: ``"function"``; ``"custom"``, where ``arguments`` is any text (chat completions and Responses); or another
    type of `penstock.events.ToolCall`, where ``arguments`` is the action as a JSON object (Responses only). APIs
    without the type leave the call out.
    """

    name: str
    arguments: str = "{}"
    id: str | None = None
    signature: str | None = None
    type: str = "function"

    def __post_init__(self) -> None:
        check_text("name", self.name)
        check_text("arguments", self.arguments)
        for name in ("id", "signature"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))
        check_choice("type", self.type, CALL_TYPES)

    @property
    def fragments(self) -> list[str]:
        """The pieces that the arguments are streamed in."""
        return fragments_of(self.arguments)

    @property
    def token_count(self) -> int:
        """How many events of it are paced and counted."""
        return len(self.fragments)
