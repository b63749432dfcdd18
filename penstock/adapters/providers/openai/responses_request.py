"""The body of a Responses API request, made of chat messages, tools and formats in OpenAI's chat form.

Items, tools and parameters that are already in the Responses API's own form pass unchanged, one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.adapters.providers.openai.responses_calls import call_item, result_items
from penstock.adapters.providers.openai.responses_content import INPUT_TEXT, OUTPUT_TEXT, is_list, to_content
from penstock.adapters.providers.openai.responses_returned import exact_calls, returned_blocks
from penstock.adapters.providers.shared.blocks import Text, interleaved, own_blocks
from penstock.adapters.providers.shared.json_values import text_of
from penstock.adapters.providers.shared.messages import content_text, is_server_call, parse_reasoning_blocks, to_parts
from penstock.adapters.providers.shared.parameters import TOOL_PARAMETERS, check_reserved, drop_none
from penstock.errors import OptionError
from penstock.events import ProviderBlock
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
    # The API finds items by their ids only if it stores responses; otherwise it needs the encrypted text.
    items = _to_input(call.input, call.provider, is_stored=parameters.get("store") is not False)
    return {"model": call.model, "input": items, "stream": True, **parameters}


# --- messages to items ---------------------------------------------------------------------------------------------


def _to_input(given: Any, provider: str, *, is_stored: bool) -> Any:
    """Convert chat messages to input items. ``is_stored``: items may be referred to by their ids alone."""
    if not isinstance(given, (list, tuple)):
        return given
    items: list[Any] = []
    calls: dict[str, Mapping[str, Any]] = {}  # by id: the type of a result depends on that of its call
    for message in given:
        if not isinstance(message, Mapping) or "role" not in message or message.get("type") is not None:
            items.append(message)
        elif message["role"] in ("tool", "function"):
            items += result_items(message, calls.get(text_of(message.get("tool_call_id"))))
        elif message["role"] == "assistant":
            items += _assistant_items(message, calls, provider, is_stored)
        else:
            items.append(_message_item(message, message.get("content"), INPUT_TEXT))
    return items


def _assistant_items(
    message: Mapping[str, Any], calls: dict[str, Mapping[str, Any]], provider: str, is_stored: bool
) -> list[dict[str, Any]]:
    """Convert an assistant's message to its text, its calls and the items that go back, in the order of the answer.

    Without places, reasoning comes first and calls come last.
    """
    given = message.get("tool_calls")
    own = [call for call in given if isinstance(call, Mapping) and not is_server_call(call)] if is_list(given) else []
    blocks = own_blocks(message, provider)
    if blocks is None:
        blocks = _reasoning_blocks(message, provider)
    asked = exact_calls([call_item(call) for call in own], blocks)
    calls.update((text_of(call.get("id")), item) for call, item in zip(own, asked, strict=True))
    content = message.get("content")
    if refusal := text_of(message.get("refusal")):
        content = [*to_parts(content), {"type": "refusal", "refusal": refusal}]
    items = _in_order(message, content, asked, returned_blocks(blocks, asked, is_stored=is_stored))
    while items and items[-1].get("type") == "reasoning":
        items.pop()  # the API refuses reasoning that nothing follows
    # Also for an answer that ended before its first token.
    return items or [_message_item(message, content, OUTPUT_TEXT)]


def _in_order(
    message: Mapping[str, Any], content: Any, calls: list[dict[str, Any]], blocks: list[ProviderBlock]
) -> list[dict[str, Any]]:
    """Put the items of an assistant's message in order. Parts that are not text follow the last text."""
    said = [part for part in to_parts(content) if part.get("type") != "refusal"]
    pieces = list(interleaved(content_text(said), calls, blocks))
    texts = [place for place, piece in enumerate(pieces) if isinstance(piece, Text)]
    items = [
        _message_item(message, piece.text, OUTPUT_TEXT) if isinstance(piece, Text) else dict(piece) for piece in pieces
    ]
    if len(texts) == 1:
        items[texts[0]] = _message_item(message, content, OUTPUT_TEXT)
    elif others := [part for part in to_parts(content) if not content_text([part]) or part.get("type") == "refusal"]:
        first_call = next((place for place, piece in enumerate(pieces) if piece in calls), len(pieces))
        place = texts[-1] + 1 if texts else first_call
        items.insert(place, _message_item(message, others, OUTPUT_TEXT))
    return items


def _message_item(message: Mapping[str, Any], content: Any, text_type: str) -> dict[str, Any]:
    others = {name: value for name, value in message.items() if name not in _CHAT_ONLY_FIELDS}
    return {**others, "content": to_content(content, text_type)}


_CHAT_ONLY_FIELDS = {
    *("type", "name", "refusal", "audio", "tool_calls", "function_call", "tool_call_id"),
    *("reasoning_blocks", "provider_blocks"),
}


def _reasoning_blocks(message: Mapping[str, Any], provider: str) -> list[ProviderBlock]:
    """The reasoning of a message that says nothing of its place: it comes first."""
    return [
        ProviderBlock(provider=provider, data=_reasoning_item(block.id, block.text, block.signature))
        for block in parse_reasoning_blocks(message, ("reasoning",), provider)
    ]


def _reasoning_item(item_id: str | None, text: str, encrypted: str) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "reasoning"}
    if item_id:
        item["id"] = item_id
    item["summary"] = [{"type": "summary_text", "text": text}] if text else []
    if encrypted:
        item["encrypted_content"] = encrypted
    return item


# --- parameters ----------------------------------------------------------------------------------------------------


def _to_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert chat's ``tools``, ``tool_choice``, ``response_format`` and ``max_tokens`` to the API's own.

    Raises:
        OptionError: one of them is given in chat's form and the API's own.
    """
    parameters = drop_none(given)
    if parameters.get("stream_options") == {"include_usage": True}:
        del parameters["stream_options"]  # chat needs it for usage, which this API always sends
    limits = {name: parameters.pop(name) for name in ("max_tokens", "max_completion_tokens") if name in parameters}
    for name, limit in limits.items():
        if "max_output_tokens" in parameters:
            raise _given_twice(name, limit, "max_output_tokens")
    if limits:  # of chat's two names the newer one counts, as in chat
        parameters["max_output_tokens"] = limits.get("max_completion_tokens", limits.get("max_tokens"))
    if "response_format" in parameters:
        _set_format(parameters, parameters.pop("response_format"))
    if is_list(given_tools := parameters.get("tools")):
        parameters["tools"] = [_flat_tool(tool) for tool in given_tools if not _is_approval(tool)]
        if given_tools and not parameters["tools"]:
            parameters = {name: value for name, value in parameters.items() if name not in TOOL_PARAMETERS}
    if isinstance(choice := parameters.get("tool_choice"), Mapping):
        parameters["tool_choice"] = _flat_choice(choice)
    return parameters


def _given_twice(name: str, got: object, other: str) -> OptionError:
    message = f"{name} and {other} mean the same and are both given. Pass one of them."
    return OptionError(name, got, f"given once, not as {other} too", message=message)


def _set_format(parameters: dict[str, Any], wanted: Any) -> None:
    text = parameters.get("text")
    text = text if isinstance(text, Mapping) else {}
    if text.get("format") is not None:
        raise _given_twice("response_format", type(wanted), "text.format")
    if wanted is not None:
        inner = wanted.get("json_schema") if isinstance(wanted, Mapping) else None
        wanted = {"type": "json_schema", **inner} if isinstance(inner, Mapping) else wanted
        parameters["text"] = {**text, "format": wanted}


def _is_approval(tool: Any) -> bool:
    """Whether this is an agent's tool that answers requests for approval: the API has none; its MCP servers ask."""
    return isinstance(tool, Mapping) and tool.get("type") == "mcp_approval"


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
    if kind == "allowed_tools" and is_list(inner.get("tools")):
        allowed = [_flat_choice(tool) if isinstance(tool, Mapping) else tool for tool in inner["tools"]]
        return {"type": kind, **inner, "tools": allowed}
    return {"type": kind, **inner}
