"""The body of a chat completion request: OpenAI's own form, without what other providers need in messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.adapters.providers.shared.messages import is_server_call
from penstock.adapters.providers.shared.parameters import check_reserved
from penstock.ports import ChatCall

__all__ = ["chat_body"]

_OTHER_PROVIDERS_FIELDS = {"reasoning_blocks", "signature", "is_server", "is_error"}
"""Fields of messages and calls for other providers; OpenAI refuses fields that it does not know."""


def chat_body(call: ChatCall) -> dict[str, Any]:
    """Build the body; the call's parameters pass unchanged.

    Raises:
        OptionError: ``model``, ``messages`` or ``stream`` is among the parameters.
    """
    check_reserved(call.parameters, "model", "messages")
    parameters = {"stream_options": {"include_usage": True}, **call.parameters}
    if parameters["stream_options"] is None:
        del parameters["stream_options"]
    return {"model": call.model, "messages": _messages(call.input), "stream": True, **parameters}


def _messages(messages: Any) -> Any:
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    return [_message(message) for message in messages] if isinstance(messages, (list, tuple)) else messages


def _message(message: Any) -> Any:
    """Return ``message`` without what OpenAI refuses; the same object if there is nothing to remove."""
    if not isinstance(message, Mapping):
        return message
    message = _openai_fields(message)
    given = message.get("tool_calls")
    if isinstance(given, (list, tuple)):
        calls = [_call(call) for call in given if not is_server_call(call)]
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


def _call(call: Any) -> Any:
    """Return a call with its arguments as text, also if they were already parsed."""
    call = _openai_fields(call)
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), Mapping):
        return call
    return {**call, "function": {**function, "arguments": msgspec.json.encode(function["arguments"]).decode()}}


def _openai_fields(value: Any) -> Any:
    if not isinstance(value, Mapping) or _OTHER_PROVIDERS_FIELDS.isdisjoint(value):
        return value
    return {name: item for name, item in value.items() if name not in _OTHER_PROVIDERS_FIELDS}
