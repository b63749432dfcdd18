"""The body of a chat completion request: OpenAI's own form, without what other providers need in messages.

What this provider itself has sent to be returned goes back: entries of ``reasoning_details``, and the ``extra_content``
of calls (Gemini's signature). Both come from the message's ``provider_blocks``, which name the provider; without them,
the entries come from its ``reasoning_blocks``. A call's ``signature`` is never sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.adapters.providers.openai.chat_reasoning import ENTRY_TYPES
from penstock.adapters.providers.shared.blocks import CALL_EXTRAS, own_blocks, place_of_call
from penstock.adapters.providers.shared.json_values import text_of
from penstock.adapters.providers.shared.messages import is_server_call, parse_reasoning_blocks
from penstock.adapters.providers.shared.parameters import check_reserved
from penstock.events import ProviderBlock, ReasoningBlock
from penstock.ports import ChatCall

__all__ = ["chat_body"]

_OTHER_PROVIDERS_FIELDS = {"reasoning_blocks", "provider_blocks", "signature", "signed_by", "is_server", "is_error"}
"""Fields of messages and calls that are not OpenAI's; OpenAI refuses fields that it does not know."""

_ENTRIES: Final = {
    "reasoning.text": ("text", "signature"),
    "reasoning.summary": ("summary", "signature"),
    "reasoning.encrypted": ("text", "data"),
}
"""Types of entries of ``reasoning_details``, each with its field of text and that of its signature."""


def chat_body(call: ChatCall) -> dict[str, Any]:
    """Build the body; the call's parameters pass unchanged, null too, except for what the call itself sets.

    Raises:
        OptionError: ``model``, ``messages`` or ``stream`` is among the parameters.
    """
    check_reserved(call.parameters, "model", "messages")
    parameters = {"stream_options": {"include_usage": True}, **call.parameters}
    if parameters["stream_options"] is None:
        del parameters["stream_options"]
    fixed = {"model": call.model, "messages": _messages(call.input, call.provider), "stream": True}
    return {**fixed, **{name: value for name, value in parameters.items() if name not in fixed}}


def _messages(messages: Any, provider: str) -> Any:
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    return [_message(message, provider) for message in messages] if isinstance(messages, (list, tuple)) else messages


def _message(message: Any, provider: str) -> Any:
    """Return ``message`` without what OpenAI refuses; the same object if there is nothing to change."""
    if not isinstance(message, Mapping):
        return message
    blocks = own_blocks(message, provider) or ()
    signed = () if blocks else parse_reasoning_blocks(message, _ENTRIES, provider)
    signed = [block for block in signed if not provider or block.provider]  # OpenAI itself refuses the field
    message = _openai_fields(message)
    entries = [dict(block.data) for block in blocks if text_of(block.data.get("type")).startswith(ENTRY_TYPES)]
    entries += map(_entry, signed)
    if entries and message.get("reasoning_details") is None:
        message = {**message, "reasoning_details": entries}
    given = message.get("tool_calls")
    if isinstance(given, (list, tuple)):
        extras = [block for block in blocks if block.data.get("type") == CALL_EXTRAS]
        calls = _with_extras([_call(call) for call in given if not is_server_call(call)], extras)
        if not calls:  # an empty list is refused as "too short"
            message = {name: value for name, value in message.items() if name != "tool_calls"}
        elif len(calls) < len(given) or any(call is not before for call, before in zip(calls, given, strict=True)):
            message = {**message, "tool_calls": calls}
    if (
        message.get("role") == "assistant"
        and message.get("content") is None
        and not any(message.get(name) for name in ("tool_calls", "function_call", "refusal", "audio"))
    ):
        return {**message, "content": ""}  # an answer that ended before its first token
    return message


def _entry(block: ReasoningBlock) -> dict[str, Any]:
    """The entry of ``reasoning_details`` that a block of signed reasoning was made of."""
    text, seal = _ENTRIES[block.kind]
    fields = {"type": block.kind, text: block.text, seal: block.signature, "id": block.id}
    return {name: value for name, value in fields.items() if value}


def _with_extras(calls: list[Any], extras: list[ProviderBlock]) -> list[Any]:
    """Give each call what the provider sent with it."""
    ids = [text_of(call.get("id")) if isinstance(call, Mapping) else "" for call in calls]
    for block in extras:
        place = place_of_call(ids, text_of(block.data.get("id")), block.calls)
        if place is None:
            continue
        call = calls[place]
        if isinstance(call, Mapping) and call.get("extra_content") is None:
            calls[place] = {**call, "extra_content": block.data.get("extra_content")}
    return calls


def _call(call: Any) -> Any:
    """Return a call with its arguments as text, also if they were already parsed.

    Calls of types that exist in the Responses API only become functions.
    """
    call = _openai_fields(call)
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return call
    if isinstance(function.get("arguments"), Mapping):
        function = {**function, "arguments": msgspec.json.encode(function["arguments"]).decode()}
        call = {**call, "function": function}
    return call if call.get("type", "function") == "function" else {**call, "type": "function"}


def _openai_fields(value: Any) -> Any:
    if not isinstance(value, Mapping) or _OTHER_PROVIDERS_FIELDS.isdisjoint(value):
        return value
    return {name: item for name, item in value.items() if name not in _OTHER_PROVIDERS_FIELDS}
