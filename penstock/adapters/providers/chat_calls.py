"""A user's input as a provider may receive it: checked, and converted if the provider offers chat only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from penstock.adapters.providers.chat_parameters import hosted_tools, to_chat_parameters
from penstock.adapters.providers.shared.messages import to_messages
from penstock.config.logs import get_logger
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

    Items become messages (see `items_to_messages`), ``instructions`` the first of them, and parameters those of chat
    (see `to_chat_parameters`). OpenAI's own tools are left out, which the log says.

    Raises:
        OptionError: an item or a parameter has no counterpart in chat.
    """
    messages = _to_messages(call.input, "input")
    parameters = to_chat_parameters(call.parameters)
    instructions = parameters.pop("instructions", None)
    if isinstance(instructions, str) and instructions:
        messages.insert(0, {"role": "system", "content": instructions})
    elif instructions:
        messages = [*_to_messages(instructions, "instructions"), *messages]
    if dropped := hosted_tools(call.parameters.get("tools")):
        get_logger().warning("tools_dropped", provider=call.provider, tools=list(dropped))
    return msgspec.structs.replace(call, input=messages, parameters=parameters)


def _to_messages(given: Any, field: str) -> list[dict[str, Any]]:
    if isinstance(given, (list, tuple)):
        from penstock.adapters.providers.chat_items import items_to_messages  # loads OpenAI's adapter

        return items_to_messages(given, field)
    return to_messages(given, field)
