"""The body of a Responses API request, made of chat messages, tools and formats in OpenAI's chat form.

Items, tools and parameters that are already in the Responses API's own form pass unchanged, one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import msgspec

from penstock.adapters.providers.shared.json_values import text_of
from penstock.adapters.providers.shared.messages import is_server_call, parse_reasoning_blocks
from penstock.adapters.providers.shared.parameters import check_reserved, drop_none
from penstock.errors import OptionError
from penstock.ports import ChatCall

__all__ = ["responses_body"]


def responses_body(call: ChatCall) -> dict[str, Any]:
    """Build the body.

    Raises:
        OptionError: ``model``, ``input`` or ``stream`` is among the parameters, or one is given in both forms.
    """
    parameters = _to_parameters(call.parameters)
    check_reserved(parameters, "model", "input")
    if call.resumable:
        parameters = {"background": True, "store": True, **parameters}
    # The API finds reasoning by its id only if it stores responses; otherwise it needs the encrypted text.
    items = _to_input(call.input, call.provider, is_stored=parameters.get("store") is not False)
    return {"model": call.model, "input": items, "stream": True, **parameters}


# --- messages to items ---------------------------------------------------------------------------------------------


def _to_input(given: Any, provider: str, *, is_stored: bool) -> Any:
    """Convert chat messages to input items. ``is_stored``: reasoning may be referred to by its id alone."""
    if not isinstance(given, (list, tuple)):
        return given
    items: list[Any] = []
    custom_ids: set[str] = set()  # of calls to custom tools: their results have another type than functions'
    for message in given:
        if not isinstance(message, Mapping) or "role" not in message or "type" in message:
            items.append(message)
        elif message["role"] in ("tool", "function"):
            items.append(_call_output(message, custom_ids))
        elif message["role"] == "assistant":
            items += _assistant_items(message, custom_ids, provider, is_stored)
        else:
            items.append(_message_item(message, message.get("content"), _INPUT_TEXT))
    return items


def _assistant_items(
    message: Mapping[str, Any], custom_ids: set[str], provider: str, is_stored: bool
) -> list[dict[str, Any]]:
    """Convert an assistant's message to its reasoning, its text and its calls, in this order."""
    given = message.get("tool_calls")
    own = [call for call in given if isinstance(call, Mapping) and not is_server_call(call)] if _is_list(given) else []
    calls = [_call(call, custom_ids) for call in own]
    texts: list[dict[str, Any]] = []
    content = message.get("content")
    if refusal := text_of(message.get("refusal")):
        parts = content if _is_list(content) else [{"type": "text", "text": content}] if content else []
        content = [*parts, {"type": "refusal", "refusal": refusal}]
    if content or not calls:  # also for an answer that ended before its first token
        texts.append(_message_item(message, content, _OUTPUT_TEXT))
    if not content and not calls:
        return texts  # the API refuses reasoning that nothing follows
    reasoning = [
        _reasoning_item(block.id, block.text, block.signature)
        for block in parse_reasoning_blocks(message, ("reasoning",), provider)
        if block.signature or (block.id and is_stored)
    ]
    return reasoning + texts + calls


def _message_item(message: Mapping[str, Any], content: Any, text_type: str) -> dict[str, Any]:
    others = {name: value for name, value in message.items() if name not in _CHAT_ONLY_FIELDS}
    return {**others, "content": _content(content, text_type)}


_CHAT_ONLY_FIELDS = {
    *("name", "refusal", "audio", "tool_calls", "function_call", "tool_call_id"),
    *("reasoning_blocks", "provider_blocks"),
}


def _reasoning_item(item_id: str | None, text: str, encrypted: str) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "reasoning"}
    if item_id:
        item["id"] = item_id
    item["summary"] = [{"type": "summary_text", "text": text}] if text else []
    if encrypted:
        item["encrypted_content"] = encrypted
    return item


def _call(call: Mapping[str, Any], custom_ids: set[str]) -> dict[str, Any]:
    call_id = text_of(call.get("id"))
    custom = call.get("custom")
    if isinstance(custom, Mapping):
        custom_ids.add(call_id)
        return {
            "type": "custom_tool_call",
            "call_id": call_id,
            "name": text_of(custom.get("name")),
            "input": text_of(custom.get("input")),
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


def _call_output(message: Mapping[str, Any], custom_ids: set[str]) -> dict[str, Any]:
    call_id = text_of(message.get("tool_call_id"))
    return {
        "type": "custom_tool_call_output" if call_id in custom_ids else "function_call_output",
        "call_id": call_id,
        "output": _content(message.get("content"), _INPUT_TEXT),
    }


_INPUT_TEXT = "input_text"
_OUTPUT_TEXT = "output_text"


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


def _to_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert chat's ``tools``, ``tool_choice``, ``response_format`` and ``max_tokens`` to the API's own.

    Raises:
        OptionError: one of them is given in both forms.
    """
    parameters = drop_none(given)
    if parameters.get("stream_options") == {"include_usage": True}:
        del parameters["stream_options"]  # chat needs it for usage, which this API always sends
    for name in ("max_tokens", "max_completion_tokens"):
        if name in parameters:
            limit = parameters.pop(name)
            if "max_output_tokens" in parameters:
                raise _given_twice(name, limit, "max_output_tokens")
            parameters["max_output_tokens"] = limit
    if "response_format" in parameters:
        _set_format(parameters, parameters.pop("response_format"))
    if _is_list(parameters.get("tools")):
        parameters["tools"] = [_flat_tool(tool) for tool in parameters["tools"]]
    if isinstance(choice := parameters.get("tool_choice"), Mapping):
        parameters["tool_choice"] = _flat_choice(choice)
    return parameters


def _given_twice(name: str, got: object, other: str) -> OptionError:
    message = f"{name} and {other} mean the same and are both given. Pass one of them."
    return OptionError(name, got, f"given once, not as {other} too", message=message)


def _set_format(parameters: dict[str, Any], wanted: Any) -> None:
    text = parameters.get("text")
    text = text if isinstance(text, Mapping) else {}
    if "format" in text:
        raise _given_twice("response_format", type(wanted), "text.format")
    if wanted is not None:
        inner = wanted.get("json_schema") if isinstance(wanted, Mapping) else None
        wanted = {"type": "json_schema", **inner} if isinstance(inner, Mapping) else wanted
        parameters["text"] = {**text, "format": wanted}


def _flat_tool(tool: Any) -> Any:
    """Return a tool without the inner object in which chat describes it."""
    if not isinstance(tool, Mapping):
        return tool
    function, custom = tool.get("function"), tool.get("custom")
    if tool.get("type") == "function" and isinstance(function, Mapping):
        # Chat's defaults are strict=False and no parameters; the Responses API's default is strict=True, and it
        # requires a schema.
        default = {"parameters": {"type": "object", "properties": {}}, "strict": False}
        return {"type": "function", **default, **drop_none(function)}
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
