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
            if _is_users(message) and _tool_result(message) is None:
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

    @property
    def returned(self) -> list[dict[str, Any]]:
        """What the conversation gives back of earlier answers besides text and calls, in order, as it was sent.

        Signed or encrypted reasoning, calls and results of the provider's own tools, compaction: blocks (Anthropic),
        items (Responses), parts (Gemini), entries of ``reasoning_details`` and calls with ``extra_content`` (chat). For
        Ollama ``{"thinking": …}`` of an assistant's message.
        """
        return [found for message in self.messages for found in _returned(message)]

    @property
    def top_logprobs(self) -> int | None:
        """How many likely tokens are asked for at each place, besides probabilities; None: no probabilities are."""
        fields = self.fields
        if self.path.endswith("enerateContent"):
            given = fields.get("generationConfig", fields.get("generation_config"))
            fields = given if isinstance(given, dict) else {}
            is_asked = fields.get("responseLogprobs", fields.get("response_logprobs")) is True
            count = fields.get("logprobs")
        else:
            included = fields.get("include")
            is_asked = fields.get("logprobs") is True or (
                isinstance(included, list) and "message.output_text.logprobs" in included
            )
            count = fields.get("top_logprobs")
        if not is_asked:
            return None
        return min(max(count, 0), _MOST_LIKELY) if isinstance(count, int) and not isinstance(count, bool) else 0

    def count_words(self) -> int:
        """Count the words in all texts of the conversation; they stand for input tokens."""
        fields = self.fields
        system = fields.get("systemInstruction", fields.get("system_instruction"))
        contents = [fields.get("instructions"), fields.get("system"), *([_content(system)] if system else [])]
        contents += [_content(message) for message in self.messages]
        return sum(len(text.split()) for content in contents for text in _texts(content))

    def __repr__(self) -> str:
        return f"ReceivedRequest(number={self.number}, {self.method} {self.path}, model={self.model!r})"


_MOST_LIKELY = 20
_OWN_BLOCKS = frozenset({"thinking", "redacted_thinking", "server_tool_use", "mcp_tool_use", "compaction", "fallback"})
_OWN_ITEM_NAMES = frozenset({"message", "function_call", "custom_tool_call"})
_GEMINI_OWN = frozenset({"thoughtSignature", "executableCode", "codeExecutionResult", "toolCall", "toolResponse"})
_RESULTS = frozenset(
    {
        *("function_call_output", "custom_tool_call_output", "local_shell_call_output", "apply_patch_call_output"),
        *("computer_call_output", "mcp_approval_response"),
    }
)


def _is_users(message: dict[str, Any]) -> bool:
    """Whether a message is the user's: it says so, or it is Gemini's, where the role may be missing."""
    return message.get("role") == "user" or not {"role", "type"} & message.keys()


def _returned(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = message.get("type")
    if isinstance(kind, str) and kind not in _OWN_ITEM_NAMES and kind not in _RESULTS:
        yield message
        return
    if message.get("role") not in ("assistant", "model"):
        return
    if isinstance(message.get("thinking"), str):
        yield {"thinking": message["thinking"]}
    content = _content(message)
    for part in _dicts(content):
        own = part.get("type")
        if _GEMINI_OWN & part.keys() or own in _OWN_BLOCKS or (isinstance(own, str) and own.endswith("_tool_result")):
            yield part
    yield from _dicts(message.get("reasoning_details"))
    yield from (call for call in _dicts(message.get("tool_calls")) if "extra_content" in call)


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


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
    if message.get("type") == "mcp_approval_response":
        return _to_text(message.get("approve"))
    if str(message.get("type")).endswith("_call_output"):
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
