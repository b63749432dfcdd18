"""Chat messages, content parts, tools and choices in OpenAI's form, parsed for translation into another form.

Every parser returns None (or nothing) for values that are not in OpenAI's form: those are the provider's own and pass
unchanged. Nothing here modifies its arguments.
"""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote_to_bytes

import msgspec

from penstock.adapters.providers.shared.json_values import parse_shallow, text_of
from penstock.errors import OptionError
from penstock.events import ReasoningBlock

__all__ = [
    "File",
    "FunctionDefinition",
    "Image",
    "NamedTool",
    "RequestedCall",
    "ResponseFormat",
    "ToolChoice",
    "content_text",
    "guessed_type",
    "is_server_call",
    "parse_calls",
    "parse_file",
    "parse_function",
    "parse_image",
    "parse_reasoning_blocks",
    "parse_response_format",
    "parse_tool_choice",
    "split_system",
    "to_messages",
    "to_parts",
]

_SYSTEM_ROLES = {"system", "developer"}


# --- messages ------------------------------------------------------------------------------------------------------


def to_messages(value: object, field: str = "messages") -> list[dict[str, Any]]:
    """Return a call's input as a list of messages; plain text becomes one user message.

    Args:
        value: what the caller passed.
        field: the argument's name, for errors.

    Raises:
        OptionError: it is not a list of dicts, or one of them has no role. The error names the message's position and
            does not show its content.
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


def split_system(messages: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Separate the messages of roles ``system`` and ``developer`` from all others, each in their order."""
    system: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for message in messages:
        (system if message["role"] in _SYSTEM_ROLES else others).append(message)
    return system, others


def to_parts(content: object) -> list[dict[str, Any]]:
    """Return a message's content as parts; text becomes a text part, None and ``""`` become no part."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if isinstance(content, Mapping):
        return [dict(content)]
    parts: list[dict[str, Any]] = []
    for part in content if isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray)) else ():
        if isinstance(part, (str, Mapping)):
            parts += to_parts(part)
    return parts


def content_text(content: object) -> str:
    """Concatenate the text parts of a message's content. Refusals count as text, images do not."""
    if isinstance(content, str):
        return content
    fields = [(part, _TEXT_FIELDS.get(_kind_of(part), "")) for part in to_parts(content)]
    return "".join(text_of(part.get(field)) for part, field in fields)


def _kind_of(part: Mapping[str, Any]) -> str:
    kind = part.get("type")
    return "text" if kind is None else text_of(kind)


_TEXT_FIELDS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""The field with the text, by type of part, of the chat API and of the Responses API."""


def parse_reasoning_blocks(
    message: Mapping[str, Any], kinds: Collection[str], provider: str = ""
) -> list[ReasoningBlock]:
    """Read the message's ``reasoning_blocks`` (dicts or `ReasoningBlock`) of ``kinds``; skip other providers'.

    Blocks that do not say which provider signed them are taken, and all of them if ``provider`` is empty.
    """
    given = message.get("reasoning_blocks")
    blocks: list[ReasoningBlock] = []
    for item in given if isinstance(given, (list, tuple)) else ():
        if isinstance(item, ReasoningBlock):
            block = item
        elif isinstance(item, Mapping):
            block = ReasoningBlock(
                kind=text_of(item.get("kind")),
                text=text_of(item.get("text")),
                signature=text_of(item.get("signature")),
                id=text_of(item.get("id")) or None,
                provider=text_of(item.get("provider")) or None,
            )
        else:
            continue
        if block.kind in kinds and (not provider or block.provider in (None, provider)):
            blocks.append(block)
    return blocks


# --- images and files ----------------------------------------------------------------------------------------------


class Image(msgspec.Struct, frozen=True):
    """An image of a message: either its URL, or its base64 data with a media type."""

    url: str = ""
    media_type: str = ""
    data: str = ""

    def __repr__(self) -> str:
        return f"Image({self.media_type or 'by URL'})"


def parse_image(part: Mapping[str, Any]) -> Image | None:
    """Read an ``image_url`` (or ``input_image``) part; None: it is another kind of part.

    Raises:
        OptionError: its ``data:`` URL is malformed.
    """
    if part.get("type") not in ("image_url", "input_image"):
        return None
    value = part.get("image_url")
    url = text_of(value.get("url")) if isinstance(value, Mapping) else text_of(value)
    if not url:
        return None
    if url[:5].lower() != "data:":
        return Image(url=url)
    media_type, data = _parse_data_url(url, "image_url")
    return Image(media_type=media_type, data=data)


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a message: either its URL, or its base64 data. Its media type is ``""`` if nothing says it."""

    name: str = ""
    url: str = ""
    media_type: str = ""
    data: str = ""

    def __repr__(self) -> str:
        return f"File({self.media_type or 'by URL'})"


def parse_file(part: Mapping[str, Any]) -> File | None:
    """Read a ``file`` part of chat, or an ``input_file`` part of the Responses API; None: it is another kind of part.

    Raises:
        OptionError: it has neither data nor a URL, such as a file that OpenAI keeps; or its ``data:`` URL is malformed.
    """
    kind = part.get("type")
    given = part.get("file") if kind == "file" else part if kind == "input_file" else None
    if not isinstance(given, Mapping):
        return None
    name, data = text_of(given.get("filename")), text_of(given.get("file_data"))
    url = text_of(given.get("file_url")) or (data if data[:8].lower().startswith(("http://", "https://")) else "")
    if url:
        return File(name=name, url=url, media_type=guessed_type(name) or guessed_type(url))
    if data[:5].lower() == "data:":
        media_type, data = _parse_data_url(data, "file_data")
        return File(name=name, media_type=media_type, data=data)
    if data:
        return File(name=name, media_type=guessed_type(name) or "application/pdf", data=data)
    message = "file: this provider does not have the files that OpenAI keeps. Pass the file itself as file_data."
    raise OptionError("file", "a file without its data", "file_data, or file_url", message=message)


def guessed_type(name: str) -> str:
    """The media type by the ending of a file's name or URL; ``""``: it is not known.

    >>> guessed_type("https://a.example/b.pdf?page=1")
    'application/pdf'
    """
    return mimetypes.guess_type(name.partition("?")[0].rpartition("/")[2])[0] or ""


def _parse_data_url(url: str, field: str) -> tuple[str, str]:
    """Read the media type and the base64 data of a ``data:`` URL (RFC 2397); other encodings become base64."""
    head, comma, data = url[5:].partition(",")
    if not comma:
        raise OptionError(field, "data:…", "data:<media type>;base64,<data>")
    media_type, *attributes = head.split(";")
    if not attributes or attributes[-1].strip().lower() != "base64":
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    return media_type or "text/plain", data


# --- calls ---------------------------------------------------------------------------------------------------------


class RequestedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A function call in an assistant's message. ``arguments`` is always an object: see `parse_calls`.

    ``signed_by``: the provider that made ``signature``; ``""`` if the message does not say.
    """

    id: str
    name: str
    arguments: dict[str, Any]
    signature: str = ""
    signed_by: str = ""

    def __repr__(self) -> str:
        return f"RequestedCall(id={self.id!r}, name={self.name!r})"


def is_server_call(call: object) -> bool:
    """Tell whether the provider ran this call itself. The conversation does not contain the result of such a call."""
    return isinstance(call, Mapping) and bool(call.get("is_server"))


def parse_calls(message: Mapping[str, Any]) -> list[RequestedCall]:
    """Read the message's ``tool_calls`` and parse their arguments; skip calls that the provider ran itself.

    Arguments that are not a JSON object, or are nested too deeply, become ``{}``. They are the model's, not the user's:
    a conversation with a malformed call, which was answered with an error, must be able to go on at providers that
    accept only objects. The free text of a call of type ``"custom"`` becomes ``{"input": text}``.
    """
    given = message.get("tool_calls")
    calls = []
    for call in given if isinstance(given, (list, tuple)) else ():
        if not isinstance(call, Mapping) or is_server_call(call):
            continue
        function = call.get("function")
        function = function if isinstance(function, Mapping) else {}
        custom = call.get("custom")
        if isinstance(custom, Mapping):
            function = {"name": custom.get("name"), "arguments": {"input": text_of(custom.get("input"))}}
        calls.append(
            RequestedCall(
                id=text_of(call.get("id")),
                name=text_of(function.get("name")),
                arguments=_parse_arguments(function.get("arguments")),
                signature=text_of(call.get("signature")),
                signed_by=text_of(call.get("signed_by")),
            )
        )
    return calls


def _parse_arguments(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    try:
        parsed = parse_shallow(text_of(value))
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


# --- tools and choices ---------------------------------------------------------------------------------------------


class FunctionDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that is a function. ``parameters`` is a JSON Schema; None: the function has no parameters."""

    name: str
    description: str = ""
    parameters: Any = None
    strict: bool | None = None


def parse_function(tool: object) -> FunctionDefinition | None:
    """Read ``{"type": "function", "function": {…}}``; None: it is a provider's own form."""
    if not isinstance(tool, Mapping) or tool.get("type") != "function":
        return None
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return None
    strict = function.get("strict")
    return FunctionDefinition(
        name=text_of(function.get("name")),
        description=text_of(function.get("description")),
        parameters=function.get("parameters"),
        strict=strict if isinstance(strict, bool) else None,
    )


class NamedTool(msgspec.Struct, frozen=True):
    """The choice of one tool, which the model must call."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedTool


def parse_tool_choice(value: object) -> ToolChoice | None:
    """Read ``tool_choice``: a word, or ``{"type": "function", "function": {"name": …}}``; None: not OpenAI's form."""
    if value == "auto" or value == "none" or value == "required":
        return value
    if isinstance(value, Mapping) and value.get("type") == "function":
        function = value.get("function")
        name = text_of(function.get("name")) if isinstance(function, Mapping) else text_of(value.get("name"))
        return NamedTool(name) if name else None
    return None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """What ``response_format`` asks for: text, any JSON object, or JSON that matches a schema."""

    kind: Literal["text", "json", "schema"]
    schema: Any = None
    name: str = ""
    strict: bool | None = None


def parse_response_format(value: object) -> ResponseFormat | None:
    """Read ``response_format``: types ``text``, ``json_object`` and ``json_schema``; None: not OpenAI's form."""
    if not isinstance(value, Mapping):
        return None
    kind = value.get("type")
    if kind == "text":
        return ResponseFormat(kind="text")
    if kind == "json_object":
        return ResponseFormat(kind="json")
    inner = value.get("json_schema")
    if kind != "json_schema" or not isinstance(inner, Mapping):
        return None
    strict = inner.get("strict")
    return ResponseFormat(
        kind="schema",
        schema=inner.get("schema"),
        name=text_of(inner.get("name")),
        strict=strict if isinstance(strict, bool) else None,
    )
