"""A received request, and what it asks for, whatever its dialect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

__all__ = ["ReceivedRequest"]


class ReceivedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One received request.

    ``body`` is the parsed JSON, or None if there was none or it could not be parsed. ``path`` has no query. Header
    names are in lower case; values that may hold a key (``authorization``, ``x-api-key``, ``cookie`` …) are replaced
    by stars.
    """

    number: int
    """1 for the first request to this provider, whatever its path."""

    method: str
    path: str
    model: str | None
    """From the body, or for Gemini from the path."""

    body: Any
    headers: Mapping[str, str]

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the body; empty if it is not an object."""
        return self.body if isinstance(self.body, dict) else {}

    @property
    def stream(self) -> bool:
        """Whether a streamed answer is requested: Gemini's path says so; Ollama streams unless ``stream`` is false."""
        if self.path.endswith("enerateContent"):
            return self.path.endswith(":streamGenerateContent")
        return self.fields.get("stream", self.path == "/api/chat") is True

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of the conversation as sent: ``messages``, Gemini's ``contents`` or Responses' ``input``.

        An ``input`` that is a string is one user message.
        """
        given = next((self.fields[name] for name in ("messages", "contents", "input") if name in self.fields), None)
        if isinstance(given, str):
            return [{"role": "user", "content": given}]
        return [message for message in given if isinstance(message, dict)] if isinstance(given, list) else []

    @property
    def last_user_text(self) -> str:
        """The text of the last user message, or an empty string. The result of a tool is not a user message."""
        for message in reversed(self.messages):
            if message.get("role", "user") == "user" and _tool_result(message) is None:
                return "".join(_texts(_content(message)))
        return ""

    @property
    def tool_names(self) -> list[str]:
        """The names of the functions that may be called, in order."""
        return [name for name, _ in self.tools]

    @property
    def tools(self) -> list[tuple[str, Any]]:
        """The functions that may be called: the name of each, and the JSON schema of its parameters as it was sent."""
        offered = self.fields.get("tools")
        found: list[Any] = []
        for tool in offered if isinstance(offered, list) else ():
            if isinstance(tool, dict):
                declared = tool.get("functionDeclarations", tool.get("function_declarations"))
                functions = declared if isinstance(declared, list) else [tool.get("function", tool)]
                found += [function for function in functions if isinstance(function, dict)]
        named = [(function.get("name"), function) for function in found]
        return [(name, _schema(function)) for name, function in named if isinstance(name, str)]

    @property
    def tool_result(self) -> str | None:
        """The content of the last message if it is the result of a tool, otherwise None."""
        messages = self.messages
        return _tool_result(messages[-1]) if messages else None

    def count_words(self) -> int:
        """Count the words in all texts of the conversation; they stand for input tokens."""
        fields = self.fields
        system = fields.get("systemInstruction", fields.get("system_instruction"))
        contents = [fields.get("instructions"), fields.get("system"), *([_content(system)] if system else [])]
        contents += [_content(message) for message in self.messages]
        return sum(len(text.split()) for content in contents for text in _texts(content))

    def __repr__(self) -> str:
        return f"ReceivedRequest(number={self.number}, {self.method} {self.path}, model={self.model!r})"


def _content(message: object) -> object:
    return message.get("content", message.get("parts")) if isinstance(message, dict) else None


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def _schema(function: dict[str, Any]) -> Any:
    for name in ("parameters", "input_schema", "parametersJsonSchema"):
        if name in function:
            return function[name]
    return None


def _tool_result(message: dict[str, Any]) -> str | None:
    if message.get("role") == "tool":
        return _to_text(message.get("content"))
    if message.get("type") == "function_call_output":
        return _to_text(message.get("output"))
    content = _content(message)
    for part in reversed(content) if isinstance(content, list) else ():
        if isinstance(part, dict) and part.get("type") == "tool_result":
            return _to_text(part.get("content"))
        if isinstance(part, dict) and isinstance(part.get("functionResponse"), dict):
            return _to_text(part["functionResponse"].get("response"))
    return None


def _to_text(result: object) -> str:
    """Return the text of a tool's result; a result that is not text is encoded as JSON."""
    if isinstance(result, dict) and len(result) == 1:
        result = next(iter(result.values()))  # Gemini takes an object; clients wrap a text in {"result": …}
    if isinstance(result, (str, list)):
        return "".join(_texts(result)) if any(_texts(result)) or not result else msgspec.json.encode(result).decode()
    return "" if result is None else msgspec.json.encode(result).decode()
