"""Text of an answer in token-like pieces, and the calls that the client must act on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from penstock.config.checks import check_choice
from penstock.errors import OptionError

__all__ = ["CALL_TYPES", "ScriptedCall", "check_text", "fragments_of", "split_text"]

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
