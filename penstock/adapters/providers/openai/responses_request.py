"""Chat messages, tools and formats in OpenAI's chat form, as the Responses API wants them.

What is in the Responses API's own form already passes unchanged, item by item and tool by tool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import msgspec

from penstock.adapters.providers.shared.json_values import text_of
from penstock.adapters.providers.shared.messages import is_server_call, reasoning_blocks_of, said_parameters
from penstock.errors import OptionError

__all__ = ["to_input", "to_parameters"]


# --- messages → items ----------------------------------------------------------------------------------------------


def to_input(given: Any, *, is_stored: bool) -> Any:
    """Make input items of chat messages. ``is_stored``: reasoning may be named by its id alone."""
    if not isinstance(given, (list, tuple)):
        return given
    items: list[Any] = []
    custom: set[str] = set()  # ids of calls whose results are of another type than functions'
    for message in given:
        if not isinstance(message, Mapping) or "role" not in message or "type" in message:
            items.append(message)
        elif message["role"] in ("tool", "function"):
            items.append(_result(message, custom))
        elif message["role"] == "assistant":
            items += _answer(message, custom, is_stored)
        else:
            items.append(_said(message, message.get("content"), _INPUT_PARTS))
    return items


def _answer(message: Mapping[str, Any], custom: set[str], is_stored: bool) -> list[dict[str, Any]]:
    """An assistant's message: what it thought, what it said, what it called."""
    calls = message.get("tool_calls")
    own = [call for call in calls if isinstance(call, Mapping) and not is_server_call(call)] if _is_list(calls) else []
    called = [_call(call, custom) for call in own]
    said: list[dict[str, Any]] = []
    content = message.get("content")
    if refusal := text_of(message.get("refusal")):
        parts = content if _is_list(content) else [{"type": "text", "text": content}] if content else []
        content = [*parts, {"type": "refusal", "refusal": refusal}]
    if content or not called:  # also an answer that ended before it began
        said.append(_said(message, content, _OUTPUT_PARTS))
    if not content and not called:
        return said  # reasoning without what followed it is refused
    thought = [
        _thought(block.id, block.text, block.signature)
        for block in reasoning_blocks_of(message, ("reasoning",))
        if block.signature or (block.id and is_stored)
    ]
    return thought + said + called


def _said(message: Mapping[str, Any], content: Any, text_type: str) -> dict[str, Any]:
    more = {name: value for name, value in message.items() if name not in _CHATS_OWN}
    return {**more, "content": _content(content, text_type)}


_CHATS_OWN = {"name", "refusal", "audio", "tool_calls", "function_call", "tool_call_id", "reasoning_blocks"}


def _thought(item_id: str | None, text: str, encrypted: str) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "reasoning"}
    if item_id:
        item["id"] = item_id
    item["summary"] = [{"type": "summary_text", "text": text}] if text else []
    if encrypted:
        item["encrypted_content"] = encrypted
    return item


def _call(call: Mapping[str, Any], custom: set[str]) -> dict[str, Any]:
    call_id = text_of(call.get("id"))
    own = call.get("custom")
    if isinstance(own, Mapping):
        custom.add(call_id)
        return {
            "type": "custom_tool_call",
            "call_id": call_id,
            "name": text_of(own.get("name")),
            "input": text_of(own.get("input")),
        }
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments or {}).decode()
    return {
        "type": "function_call",
        "call_id": call_id,
        "name": text_of(function.get("name")),
        "arguments": arguments or "{}",
    }


def _result(message: Mapping[str, Any], custom: set[str]) -> dict[str, Any]:
    call_id = text_of(message.get("tool_call_id"))
    return {
        "type": "custom_tool_call_output" if call_id in custom else "function_call_output",
        "call_id": call_id,
        "output": _content(message.get("content"), _INPUT_PARTS),
    }


_INPUT_PARTS = "input_text"
_OUTPUT_PARTS = "output_text"


def _content(content: Any, text_type: str) -> Any:
    if content is None:
        return ""
    return [_part(part, text_type) for part in content] if _is_list(content) else content


def _part(part: Any, text_type: str) -> Any:
    if isinstance(part, str):
        return {"type": text_type, "text": part}
    if not isinstance(part, Mapping):
        return part
    match part.get("type"):
        case "text":
            return {"type": text_type, "text": part.get("text")}
        case "image_url":
            image = part.get("image_url")
            image = image if isinstance(image, Mapping) else {"url": image}
            return {"type": "input_image", "image_url": image.get("url"), "detail": image.get("detail") or "auto"}
        case "file" if isinstance(part.get("file"), Mapping):
            return {"type": "input_file", **part["file"]}
    return part


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


# --- parameters ----------------------------------------------------------------------------------------------------


def to_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Turn chat's ``tools``, ``tool_choice``, ``response_format`` and ``max_tokens`` into the API's own.

    Raises:
        OptionError: one of them is given in both forms.
    """
    parameters = said_parameters(given)
    if parameters.get("stream_options") == {"include_usage": True}:
        del parameters["stream_options"]  # chat's way to ask for usage, which the API tells unasked
    for name in ("max_tokens", "max_completion_tokens"):
        if name in parameters:
            limit = parameters.pop(name)
            if "max_output_tokens" in parameters:
                raise OptionError(name, limit, "given once, not as max_output_tokens too")
            parameters["max_output_tokens"] = limit
    if "response_format" in parameters:
        _set_format(parameters, parameters.pop("response_format"))
    if _is_list(parameters.get("tools")):
        parameters["tools"] = [_flat(tool) for tool in parameters["tools"]]
    if isinstance(choice := parameters.get("tool_choice"), Mapping):
        parameters["tool_choice"] = _flat_choice(choice)
    return parameters


def _set_format(parameters: dict[str, Any], wanted: Any) -> None:
    text = parameters.get("text")
    text = text if isinstance(text, Mapping) else {}
    if "format" in text:
        raise OptionError("response_format", type(wanted), "given once, not in text.format too")
    if wanted is not None:
        inner = wanted.get("json_schema") if isinstance(wanted, Mapping) else None
        wanted = {"type": "json_schema", **inner} if isinstance(inner, Mapping) else wanted
        parameters["text"] = {**text, "format": wanted}


def _flat(tool: Any) -> Any:
    """A tool without the inner object in which chat describes it."""
    if not isinstance(tool, Mapping):
        return tool
    function, custom = tool.get("function"), tool.get("custom")
    if tool.get("type") == "function" and isinstance(function, Mapping):
        # Chat's default is not strict, and no parameters at all; the Responses API's is strict, and it wants a schema.
        default = {"parameters": {"type": "object", "properties": {}}, "strict": False}
        return {"type": "function", **default, **{name: each for name, each in function.items() if each is not None}}
    if tool.get("type") == "custom" and isinstance(custom, Mapping):
        flat = {"type": "custom", **custom}
        form = custom.get("format")
        if isinstance(form, Mapping) and isinstance(form.get("grammar"), Mapping):
            flat["format"] = {"type": "grammar", **form["grammar"]}
        return flat
    return tool


def _flat_choice(choice: Mapping[str, Any]) -> Any:
    kind = choice.get("type")
    inner = choice.get(kind) if isinstance(kind, str) else None
    if not isinstance(inner, Mapping):
        return choice
    if kind == "allowed_tools" and _is_list(inner.get("tools")):
        return {"type": kind, **inner, "tools": [_flat_choice(tool) for tool in inner["tools"]]}
    return {"type": kind, **inner}
