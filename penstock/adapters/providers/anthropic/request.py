"""The Messages API's request, made of chat messages and tools in OpenAI's form.

Whatever is already in Anthropic's own form passes unchanged.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

from penstock.adapters.providers.anthropic.returned import Returned, container_id, in_order, returned_blocks
from penstock.adapters.providers.shared.json_values import text_of
from penstock.adapters.providers.shared.messages import (
    File,
    NamedTool,
    RequestedCall,
    parse_calls,
    parse_file,
    parse_function,
    parse_image,
    parse_reasoning_blocks,
    parse_response_format,
    parse_tool_choice,
    split_system,
    to_messages,
    to_parts,
)
from penstock.adapters.providers.shared.parameters import check_reserved, drop_none
from penstock.errors import OptionError
from penstock.events import ReasoningBlock
from penstock.ports import ChatCall

__all__ = ["beta_headers", "messages_body"]

DEFAULT_MAX_TOKENS = 4096
"""``max_tokens`` if the call has none; the API has no default of its own and requires the parameter."""

_OPENAI_FIELDS = {
    *("name", "tool_calls", "function_call", "refusal", "audio", "annotations"),
    *("reasoning_blocks", "provider_blocks"),
}
"""Fields of a message in OpenAI's form, or in Penstock's, that the API would refuse."""


def beta_headers(call: ChatCall) -> dict[str, str]:
    """Build the ``anthropic-beta`` header from the parameter ``anthropic_beta``.

    Raises:
        OptionError: it is neither a name nor a list of names.
    """
    value = call.parameters.get("anthropic_beta")
    if value is None:
        return {}
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise OptionError("anthropic_beta", type(value), "a name, or a list of names")
    return {"anthropic-beta": ",".join(names)} if names else {}


def messages_body(call: ChatCall) -> dict[str, Any]:
    """Build the body.

    Raises:
        OptionError: the input is not messages, a parameter is not allowed, ``response_format`` asks for what the API
            does not have, an image's ``data:`` URL is malformed, or a file has neither data nor a URL.
    """
    check_reserved(call.parameters, "model", "messages")
    body = drop_none(call.parameters)
    body.pop("stream", None)
    body.pop("anthropic_beta", None)  # a header, see `beta_headers`
    body.pop("stream_options", None)  # OpenAI needs it for usage, which Anthropic always sends
    system, others = split_system(to_messages(call.input))
    system_blocks = [*to_parts(body.pop("system", None)), *_system_blocks(system)]
    if system_blocks:
        body["system"] = _simplified(system_blocks)
    body["messages"] = _messages(others, call.provider)
    container = body.get("container", {})
    if (running := container_id(others, call.provider)) and isinstance(container, Mapping):
        body["container"] = {"id": running, **container} if container else running
    limit = body.pop("max_completion_tokens", body.get("max_tokens"))  # of OpenAI's two names the newer one counts
    body["max_tokens"] = _default_max_tokens(body.get("thinking")) if limit is None else limit
    stop = body.pop("stop", None)
    if stop is not None:
        body.setdefault("stop_sequences", [stop] if isinstance(stop, str) else stop)
    _translate_tools(body)
    _translate_format(body)
    return {"model": call.model, **body, "stream": True}


def _default_max_tokens(thinking: object) -> int:
    """Return the default, plus the thinking budget: ``max_tokens`` includes it and must be larger."""
    budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    return DEFAULT_MAX_TOKENS + (budget if isinstance(budget, int) else 0)


def _translate_tools(body: dict[str, Any]) -> None:
    tools = body.get("tools")
    if isinstance(tools, (list, tuple)):
        body["tools"] = [_tool(tool) for tool in tools]
    choice = parse_tool_choice(body.get("tool_choice"))
    if choice is not None and not tools:  # the API refuses a choice without tools
        del body["tool_choice"]
    elif isinstance(choice, NamedTool):
        body["tool_choice"] = {"type": "tool", "name": choice.name}
    elif choice is not None:
        body["tool_choice"] = {"type": "any" if choice == "required" else choice}
    parallel = body.pop("parallel_tool_calls", None)
    if parallel is False and tools:
        wanted = body.get("tool_choice") or {"type": "auto"}
        if isinstance(wanted, Mapping) and wanted.get("type") != "none":
            body["tool_choice"] = {**wanted, "disable_parallel_tool_use": True}


def _tool(tool: object) -> object:
    function = parse_function(tool)
    if function is None:
        return tool
    translated: dict[str, Any] = {"name": function.name}
    if function.description:
        translated["description"] = function.description
    translated["input_schema"] = function.parameters or {"type": "object", "properties": {}}
    if function.strict:
        translated["strict"] = True
    return translated | (_cached(tool) if isinstance(tool, Mapping) else {})


def _translate_format(body: dict[str, Any]) -> None:
    """Turn ``response_format`` with a schema into ``output_config.format``; drop one of type ``text``."""
    wanted = parse_response_format(body.get("response_format"))
    if wanted is None:
        return
    del body["response_format"]
    if wanted.kind == "json":
        message = "response_format: Anthropic does not support json_object. Use json_schema."
        raise OptionError("response_format", "json_object", "text | json_schema", message=message)
    if wanted.kind == "schema":
        config = body.get("output_config") or {}
        if not isinstance(config, Mapping):
            raise OptionError("output_config", type(config), "a dict")
        body["output_config"] = {"format": {"type": "json_schema", "schema": wanted.schema}, **drop_none(config)}


# --- messages ------------------------------------------------------------------------------------------------------


def _system_blocks(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [block for message in messages for block in _blocks(message.get("content"))]


def _simplified(blocks: list[dict[str, Any]]) -> object:
    """Return a single block of plain text as its text, which is equivalent and easier to read in a log."""
    if len(blocks) == 1 and drop_none(blocks[0]).keys() == {"type", "text"}:
        return blocks[0]["text"]
    return blocks


def _messages(messages: list[dict[str, Any]], provider: str) -> list[dict[str, Any]]:
    """Translate the conversation. Consecutive tool results go into one user message, as the API requires."""
    translated: list[dict[str, Any]] = []
    ids = _CallIds()
    results: list[dict[str, Any]] | None = None
    for message, returned in zip(messages, returned_blocks(messages, provider), strict=True):
        if message["role"] == "tool":
            if results is None:
                results = []
                translated.append({"role": "user", "content": results})
            results.append(_tool_result(message, ids))
            continue
        results = None
        if (other := _message(message, ids, returned, provider)) is not None:
            translated.append(other)
    return [*translated[:-1], _without_trailing_blanks(translated[-1])] if translated else translated


def _without_trailing_blanks(message: dict[str, Any]) -> dict[str, Any]:
    """Strip the end of the last message if it is the assistant's: the API refuses trailing blanks in a prefill."""
    content = message["content"]
    if message["role"] != "assistant":
        return message
    if isinstance(content, str):
        return {**message, "content": content.rstrip()}
    *before, last = content
    text = last.get("text")
    return {**message, "content": [*before, {**last, "text": text.rstrip()}]} if isinstance(text, str) else message


class _CallIds:
    """Maps call ids to ids that the API accepts: of letters, digits, ``_`` and ``-``, and each used once.

    A conversation that began at another provider has others: ``functions.f:0``, or the same numbers in every answer.
    """

    def __init__(self) -> None:
        self._latest: dict[str, str] = {}
        self._used: set[str] = set()

    def begin(self, call_id: str) -> str:
        """Return the id of a call; results that follow belong to the last call that had ``call_id``."""
        plain = unique = _INVALID_CHARACTERS.sub("_", call_id)
        number = 1
        while unique in self._used:
            number += 1
            unique = f"{plain}_{number}"
        self._used.add(unique)
        self._latest[call_id] = unique
        return unique

    def of_result(self, call_id: str) -> str:
        return self._latest.get(call_id) or _INVALID_CHARACTERS.sub("_", call_id)


_INVALID_CHARACTERS = re.compile(r"[^a-zA-Z0-9_-]")


def _message(message: dict[str, Any], ids: _CallIds, returned: Returned, provider: str) -> dict[str, Any] | None:
    """Translate one message. None: it is an empty answer, or reasoning alone, both of which the API refuses."""
    content = message.get("content")
    others = {name: value for name, value in message.items() if name not in _OPENAI_FIELDS}
    if message["role"] != "assistant":
        return {**others, "content": content if isinstance(content, str) else _blocks(content)}
    asked = parse_calls(message)
    callers = returned.callers([call.id for call in asked])
    calls = [_tool_use(call, ids, callers.get(place)) for place, call in enumerate(asked)]
    parts = to_parts(content if _blocks(content) else message.get("refusal"))
    # The API refuses a turn if signed blocks were moved. Without places, they come first.
    reasoning = [] if returned.blocks else parse_reasoning_blocks(message, _REASONING_KINDS, provider)
    blocks = [*map(_reasoning_block, reasoning), *in_order(parts, calls, returned.blocks, _block)]
    while blocks and blocks[-1].get("type") in _REASONING_KINDS and not any(blocks[-1] is part for part in parts):
        blocks.pop()  # the API refuses reasoning at the end; what the caller has written passes unchanged
    if not blocks:
        return None
    if isinstance(content, str) and blocks == [{"type": "text", "text": content}]:
        return {**others, "content": content}
    return {**others, "content": blocks}


_REASONING_KINDS = ("thinking", "redacted_thinking")


def _reasoning_block(block: ReasoningBlock) -> dict[str, Any]:
    if block.kind == "redacted_thinking":
        return {"type": "redacted_thinking", "data": block.signature}
    return {"type": "thinking", "thinking": block.text, "signature": block.signature}


def _tool_use(call: RequestedCall, ids: _CallIds, caller: Mapping[str, Any] | None) -> dict[str, Any]:
    block = {"type": "tool_use", "id": ids.begin(call.id), "name": call.name, "input": call.arguments}
    return block if caller is None else block | {"caller": caller}


def _tool_result(message: Mapping[str, Any], ids: _CallIds) -> dict[str, Any]:
    call_id = ids.of_result(text_of(message.get("tool_call_id")))
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": call_id}
    content = message.get("content")
    if content := content if isinstance(content, str) else _blocks(content):
        result["content"] = content
    if message.get("is_error"):
        result["is_error"] = True
    return result | _cached(message)


def _blocks(content: object) -> list[dict[str, Any]]:
    return [block for part in to_parts(content) if (block := _block(part)) is not None]


def _block(part: dict[str, Any]) -> dict[str, Any] | None:
    """Translate one part. None: it is text that is empty or blank, which the API refuses."""
    kind = part.get("type")
    if kind is None and "text" in part:
        kind = "text"
    if kind in ("text", "input_text", "output_text", "refusal"):
        text = text_of(part.get("refusal" if kind == "refusal" else "text"))
        fields = drop_none(part).items()
        others = {name: value for name, value in fields if name not in ("type", "text", "refusal", "annotations")}
        return {"type": "text", "text": text, **others} if text.strip() else None
    image = parse_image(part)
    if image is None:
        file = parse_file(part)
        return part if file is None else _file(file) | _cached(part)
    source = {"type": "url", "url": image.url}
    if not image.url:
        source = {"type": "base64", "media_type": image.media_type, "data": image.data}
    # A data: URL may also contain a PDF.
    is_picture = bool(image.url) or image.media_type.startswith("image/")
    return {"type": "image" if is_picture else "document", "source": source, **_cached(part)}


def _file(file: File) -> dict[str, Any]:
    """A picture, or a document: as text, as base64 (which the API takes of PDF alone), or by its URL."""
    source = {"type": "base64", "media_type": file.media_type, "data": file.data}
    if file.url:
        source = {"type": "url", "url": file.url}
    if file.media_type.startswith("image/"):
        return {"type": "image", "source": source}
    if file.data and file.media_type.startswith("text/"):
        source = {"type": "text", "media_type": "text/plain", "data": _decoded(file.data)}
    return {"type": "document", "source": source, **({"title": file.name} if file.name else {})}


def _decoded(data: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except ValueError:
        raise OptionError("file_data", "data of another kind", "text in UTF-8, as base64") from None


def _cached(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a part or a tool says of the provider's cache."""
    control = given.get("cache_control")
    return {} if control is None else {"cache_control": control}
