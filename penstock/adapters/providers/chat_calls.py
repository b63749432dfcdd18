"""A user's input as a provider may receive it: checked, and converted if the provider offers chat only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from penstock.adapters.providers.shared.messages import to_messages
from penstock.errors import OptionError
from penstock.ports import ChatCall

__all__ = ["check_input", "to_chat_call"]


def check_input(given: object) -> str | list[Mapping[str, Any]]:
    """Return the input: text, or a list of dicts. Their form is the provider's concern.

    Raises:
        OptionError: it is neither, or a content is bytes, which JSON would carry as base64.
    """
    if isinstance(given, str):
        return given
    if not isinstance(given, Iterable) or isinstance(given, (bytes, bytearray, Mapping)):
        raise OptionError("messages", type(given), 'a text, or a list of messages: [{"role": "user", "content": "…"}]')
    messages = list(given)
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise OptionError(f"messages[{number}]", type(message), "a dict with a role and content")
        if isinstance(content := message.get("content"), (bytes, bytearray)):
            raise OptionError(f"messages[{number}].content", type(content), "a text, or a list of content parts")
    return messages


def to_chat_call(call: ChatCall) -> ChatCall:
    """Convert a call in the form of the Responses API, for a provider that offers chat only.

    ``instructions`` become a system message, ``max_output_tokens`` becomes ``max_tokens``, and functions get chat's
    form.

    Raises:
        OptionError: ``input`` contains items that are not messages.
    """
    messages = to_messages(call.input, "input")
    parameters = dict(call.parameters)
    instructions = parameters.pop("instructions", None)
    if instructions:
        messages.insert(0, {"role": "system", "content": instructions})
    if "max_output_tokens" in parameters:
        parameters["max_tokens"] = parameters.pop("max_output_tokens")
    if isinstance(tools := parameters.get("tools"), (list, tuple)):
        parameters["tools"] = [_chat_tool(tool) for tool in tools]
    return msgspec.structs.replace(call, input=messages, parameters=parameters)


def _chat_tool(tool: Any) -> Any:
    if not isinstance(tool, Mapping) or tool.get("type") != "function" or "function" in tool:
        return tool
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}
