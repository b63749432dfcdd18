"""OpenAI's chat completions, and everything that calls itself compatible with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.adapters.providers.openai.account import OpenAiAccount
from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.adapters.providers.shared.messages import is_server_call
from penstock.config.options import RequestOptions
from penstock.ports import ChatCall, ProviderRequest

__all__ = ["ChatDecoder", "OpenAiChat"]


class OpenAiChat(OpenAiAccount):
    """Implements `Provider` for ``POST {base_url}/chat/completions``; see `OpenAiAccount` for keys and headers."""

    name = "openai"

    def request(self, call: ChatCall) -> ProviderRequest:
        """Build the request. Usage is asked for; the parameter ``stream_options=None`` leaves that out.

        Raises:
            OptionError: there is no key for OpenAI's own URL, or a parameter is not allowed or cannot be JSON.
        """
        parameters = {"stream_options": {"include_usage": True}, **call.parameters}
        if parameters["stream_options"] is None:
            del parameters["stream_options"]
        return self._endpoint.request(
            "chat/completions", self._body(call, "messages", _messages(call.input), parameters)
        )

    def decoder(self, options: RequestOptions) -> ChatDecoder:
        """A fresh decoder for one response."""
        return ChatDecoder(options.max_event_bytes)


_NOT_OPENAIS = {"reasoning_blocks", "signature", "is_server", "is_error"}
"""What messages and calls carry for other providers; OpenAI refuses fields it does not know."""


def _messages(messages: Any) -> Any:
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    return [_acceptable(message) for message in messages] if isinstance(messages, (list, tuple)) else messages


def _acceptable(message: Any) -> Any:
    """``message`` without what OpenAI refuses; the same object where there is nothing of that."""
    if not isinstance(message, Mapping):
        return message
    message = _without_others(message)
    given = message.get("tool_calls")
    if isinstance(given, (list, tuple)):
        calls = [_acceptable_call(call) for call in given if not is_server_call(call)]
        if not calls:  # refused as "too short"
            message = {name: value for name, value in message.items() if name != "tool_calls"}
        elif len(calls) < len(given) or any(call is not before for call, before in zip(calls, given, strict=True)):
            message = {**message, "tool_calls": calls}
    if (
        message.get("role") == "assistant"
        and message.get("content") is None
        and not any(message.get(name) for name in ("tool_calls", "function_call", "refusal", "audio"))
    ):
        return {**message, "content": ""}  # an answer that ended before it began
    return message


def _acceptable_call(call: Any) -> Any:
    """A call as OpenAI takes it: with its arguments as text, also where somebody has parsed them."""
    call = _without_others(call)
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), Mapping):
        return call
    return {**call, "function": {**function, "arguments": msgspec.json.encode(function["arguments"]).decode()}}


def _without_others(value: Any) -> Any:
    if not isinstance(value, Mapping) or _NOT_OPENAIS.isdisjoint(value):
        return value
    return {name: each for name, each in value.items() if name not in _NOT_OPENAIS}
