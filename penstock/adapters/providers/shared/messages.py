"""Chat messages, content parts, tools and choices in OpenAI's form, read so that another form can be made of them.

Every reader here says None (or nothing) of what is not in OpenAI's form: that is then the provider's own, and passes
unchanged. Nothing here changes what it reads.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote_to_bytes

import msgspec

from penstock.adapters.providers.shared.json_values import text_of
from penstock.errors import OptionError
from penstock.events import ReasoningBlock

__all__ = [
    "AnswerFormat",
    "AskedCall",
    "Function",
    "Image",
    "NamedTool",
    "ToolChoice",
    "answer_format",
    "calls_of",
    "function_of",
    "image_of",
    "is_server_call",
    "messages_of",
    "parts_of",
    "reasoning_blocks_of",
    "said_parameters",
    "split_system",
    "text_in",
    "tool_choice_of",
]

_SYSTEM_ROLES = {"system", "developer"}


# --- messages ------------------------------------------------------------------------------------------------------


def messages_of(value: object, field: str = "messages") -> list[dict[str, Any]]:
    """The call's input as a list of messages; text alone is what the user says.

    Raises:
        OptionError: it is no list of dicts, or one of them has no role. The message tells which, not what is in it.
    """
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, Sequence) or isinstance(value, (bytes, bytearray)):
        raise OptionError(field, type(value), "a list of messages, or text")
    for number, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise OptionError(f"{field}[{number}]", type(message), "a dict with a role and content")
        if not isinstance(message.get("role"), str):
            raise OptionError(f"{field}[{number}].role", type(message.get("role")), "a role: user, assistant, …")
    return [dict(message) for message in value]


def said_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that say something: None is OpenAI's way to leave one out, where others refuse a null."""
    return {name: value for name, value in parameters.items() if value is not None}


def split_system(messages: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The messages that instruct (roles ``system`` and ``developer``), and all others, each in their order."""
    instructing: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for message in messages:
        (instructing if message["role"] in _SYSTEM_ROLES else others).append(message)
    return instructing, others


def parts_of(content: object) -> list[dict[str, Any]]:
    """A message's content as parts; text becomes a text part, and what says nothing (None, ``""``) none."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if isinstance(content, Mapping):
        return [dict(content)]
    found: list[dict[str, Any]] = []
    for part in content if isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray)) else ():
        if isinstance(part, (str, Mapping)):
            found += parts_of(part)
    return found


def text_in(content: object) -> str:
    """The text of a message's content, its text parts put together; refusals count as text, images do not."""
    if isinstance(content, str):
        return content
    fields = [(part, _SAYING.get(text_of(part.get("type", "text")), "")) for part in parts_of(content)]
    return "".join(text_of(part.get(field)) for part, field in fields)


_SAYING = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Where the parts that say something, the chat API's and the Responses API's, have their text."""


def reasoning_blocks_of(message: Mapping[str, Any], kinds: Collection[str]) -> list[ReasoningBlock]:
    """The message's ``reasoning_blocks`` of these kinds, dicts or `ReasoningBlock`; other providers' are left out."""
    blocks = message.get("reasoning_blocks")
    found: list[ReasoningBlock] = []
    for each in blocks if isinstance(blocks, (list, tuple)) else ():
        if isinstance(each, ReasoningBlock):
            block = each
        elif isinstance(each, Mapping):
            block = ReasoningBlock(
                kind=text_of(each.get("kind")),
                text=text_of(each.get("text")),
                signature=text_of(each.get("signature")),
                id=text_of(each.get("id")) or None,
            )
        else:
            continue
        if block.kind in kinds:
            found.append(block)
    return found


# --- images --------------------------------------------------------------------------------------------------------


class Image(msgspec.Struct, frozen=True):
    """An image of a message: by its address, or whole, as base64 with its media type."""

    url: str = ""
    media_type: str = ""
    data: str = ""

    def __repr__(self) -> str:
        return f"Image({self.media_type or 'by URL'})"


def image_of(part: Mapping[str, Any]) -> Image | None:
    """The image of an ``image_url`` (or ``input_image``) part; None: the part is no such thing.

    Raises:
        OptionError: its ``data:`` URL is malformed.
    """
    if part.get("type") not in ("image_url", "input_image"):
        return None
    value = part.get("image_url")
    url = text_of(value.get("url")) if isinstance(value, Mapping) else text_of(value)
    if not url:
        return None
    return _data_image(url) if url[:5].lower() == "data:" else Image(url=url)


def _data_image(url: str) -> Image:
    """Read a ``data:`` URL (RFC 2397); what is not base64 becomes base64."""
    head, comma, data = url[5:].partition(",")
    if not comma:
        raise OptionError("image_url", "data:…", "data:<media type>;base64,<data>")
    media_type, *marks = head.split(";")
    if marks and marks[-1].strip().lower() == "base64":
        return Image(media_type=media_type or "text/plain", data=data)
    return Image(media_type=media_type or "text/plain", data=base64.b64encode(unquote_to_bytes(data)).decode())


# --- calls ---------------------------------------------------------------------------------------------------------


class AskedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A function call in an assistant's message. ``arguments`` is always an object: see `calls_of`."""

    id: str
    name: str
    arguments: dict[str, Any]
    signature: str = ""

    def __repr__(self) -> str:
        return f"AskedCall(id={self.id!r}, name={self.name!r})"


def is_server_call(call: object) -> bool:
    """Whether a provider ran this call itself. Its result is not in the conversation: nobody would take it back."""
    return isinstance(call, Mapping) and bool(call.get("is_server"))


def calls_of(message: Mapping[str, Any]) -> list[AskedCall]:
    """The message's ``tool_calls``, their arguments parsed; those that a provider ran itself are left out.

    Arguments that are no JSON object become ``{}``. They are the model's, not the user's: a conversation in which a
    call came broken, and was answered with an error, must be able to go on with providers that take objects only.
    """
    calls = message.get("tool_calls")
    found = []
    for call in calls if isinstance(calls, (list, tuple)) else ():
        if not isinstance(call, Mapping) or is_server_call(call):
            continue
        function = call.get("function")
        function = function if isinstance(function, Mapping) else {}
        found.append(
            AskedCall(
                id=text_of(call.get("id")),
                name=text_of(function.get("name")),
                arguments=_arguments(function.get("arguments")),
                signature=text_of(call.get("signature")),
            )
        )
    return found


def _arguments(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    try:
        parsed = msgspec.json.decode(text_of(value))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


# --- tools and choices ---------------------------------------------------------------------------------------------


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function as a tool. ``parameters`` is its JSON Schema; None where it takes nothing."""

    name: str
    description: str = ""
    parameters: Any = None
    strict: bool | None = None


def function_of(tool: object) -> Function | None:
    """Read ``{"type": "function", "function": {…}}``; None: it is not that, but a provider's own form."""
    if not isinstance(tool, Mapping) or tool.get("type") != "function":
        return None
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return None
    strict = function.get("strict")
    return Function(
        name=text_of(function.get("name")),
        description=text_of(function.get("description")),
        parameters=function.get("parameters"),
        strict=strict if isinstance(strict, bool) else None,
    )


class NamedTool(msgspec.Struct, frozen=True):
    """The choice of one tool that must be called."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedTool


def tool_choice_of(value: object) -> ToolChoice | None:
    """Read ``tool_choice``: a word, or ``{"type": "function", "function": {"name": …}}``; None: not OpenAI's form."""
    if value == "auto" or value == "none" or value == "required":
        return value
    if isinstance(value, Mapping) and value.get("type") == "function":
        function = value.get("function")
        name = text_of(function.get("name")) if isinstance(function, Mapping) else text_of(value.get("name"))
        return NamedTool(name) if name else None
    return None


class AnswerFormat(msgspec.Struct, frozen=True, kw_only=True):
    """What ``response_format`` asks for: text, any JSON object, or JSON of a schema."""

    kind: Literal["text", "json", "schema"]
    schema: Any = None
    name: str = ""
    strict: bool | None = None


def answer_format(value: object) -> AnswerFormat | None:
    """Read ``response_format``: types ``text``, ``json_object`` and ``json_schema``; None: not OpenAI's form."""
    if not isinstance(value, Mapping):
        return None
    kind = value.get("type")
    if kind == "text":
        return AnswerFormat(kind="text")
    if kind == "json_object":
        return AnswerFormat(kind="json")
    inner = value.get("json_schema")
    if kind != "json_schema" or not isinstance(inner, Mapping):
        return None
    strict = inner.get("strict")
    return AnswerFormat(
        kind="schema",
        schema=inner.get("schema"),
        name=text_of(inner.get("name")),
        strict=strict if isinstance(strict, bool) else None,
    )
