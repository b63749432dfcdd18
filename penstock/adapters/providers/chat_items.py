"""Items of the Responses API as chat messages, for a provider that offers chat only.

All items of the assistant between two others become one message: its text, its calls, and what its provider signed. An
item with a field ``penstock`` came through Penstock from another provider, and the field says from which one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from penstock.adapters.providers.openai.chat_reasoning import ENTRY_TYPES
from penstock.adapters.providers.openai.responses_items import (
    CLIENT_CALLS,
    OUTPUTS_OF_HOSTED,
    SEALED,
    action_of,
    is_for_client,
    is_hosted,
    name_of,
)
from penstock.adapters.providers.shared.json_values import json_text, text_of
from penstock.adapters.providers.shared.messages import content_text, to_parts
from penstock.adapters.providers.shared.parameters import drop_none
from penstock.errors import OptionError

__all__ = ["MARK", "items_to_messages"]

MARK: Final = "penstock"
"""The field of an item with what the API has no place for: the provider, its word for a block and its id for it."""

_OPENAI: Final = "openai"
_OUTPUTS: Final = frozenset(
    {
        "function_call_output",
        "custom_tool_call_output",
        "computer_call_output",
        "local_shell_call_output",
        "shell_call_output",
        "apply_patch_call_output",
        "tool_search_output",
        "mcp_approval_response",
    }
)
_PLAIN: Final = frozenset({"role", "content", "type", "id", "status", "phase"})
"""Fields of a message that say no more than its content."""
_LONGEST_TYPE: Final = 40


def items_to_messages(items: Iterable[Mapping[str, Any]], field: str = "input") -> list[dict[str, Any]]:
    """Convert items to chat messages; those that are chat messages already pass unchanged.

    Calls and results of OpenAI's own tools, and what it has compacted, become ``provider_blocks`` of its own: no other
    provider gets them.

    Raises:
        OptionError: an item refers to another one by its id, is of a type that chat has nothing for, or is no item.
    """
    messages: list[dict[str, Any]] = []
    turn: _AssistantItems | None = None
    asked: set[str] = set()
    for number, item in enumerate(items):
        place = f"{field}[{number}]"
        if not isinstance(item, Mapping):
            raise OptionError(place, type(item), "a dict with a role and content, or an item")
        kind = _type_of(item, place)
        is_result = kind in _OUTPUTS and (_answered(item) in asked or kind not in OUTPUTS_OF_HOSTED)
        if not is_result and (kind != "message" or _is_assistants(item)):
            turn = turn or _AssistantItems(asked)
            turn.add(item, kind, place)
            continue
        if turn is not None:
            messages.append(turn.message())
            turn = None
        messages.append(_result(item, kind, place) if is_result else _message(item))
        asked.update(_calls_in(messages[-1]))
    if turn is not None:
        messages.append(turn.message())
    return messages


def _type_of(item: Mapping[str, Any], place: str) -> str:
    kind = item.get("type")
    if kind == "item_reference" or (kind is None and item.get("role") is None and item.get("id") is not None):
        message = f"{place}: an item_reference cannot be resolved, since the provider stores no items. Pass the item."
        raise OptionError(place, "item_reference", "an item itself", message=message)
    if kind is None or kind == "message":
        if not isinstance(item.get("role"), str):
            raise OptionError(f"{place}.role", type(item.get("role")), "a role: user, assistant, …")
        return "message"
    return text_of(kind)


def _calls_in(message: Mapping[str, Any]) -> Iterator[str]:
    """The ids of the calls in a chat message."""
    given = message.get("tool_calls")
    for call in given if isinstance(given, (list, tuple)) else ():
        yield text_of(call.get("id")) if isinstance(call, Mapping) else ""


def _is_assistants(item: Mapping[str, Any]) -> bool:
    """Whether this is an assistant's message that can be joined with the items beside it."""
    return item.get("role") == "assistant" and _PLAIN.issuperset(drop_none(item))


# --- the assistant's items -------------------------------------------------------------------------------------------


class _AssistantItems:
    """Items of the assistant that follow one another."""

    def __init__(self, asked: set[str]) -> None:
        self._asked = asked  # the ids of all calls for the client so far
        self._parts: list[Any] = []
        self._refusals: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._blocks: list[dict[str, Any]] = []
        self._reasoning: list[dict[str, Any]] = []
        self._length = 0

    def add(self, item: Mapping[str, Any], kind: str, place: str) -> None:
        if kind == "message":
            self._say(item.get("content"))
        elif kind == "reasoning":
            self._reason(item)
        elif is_for_client(item):
            call = _call(item, kind, place)
            self._asked.add(call["id"])
            self._calls.append(call)
        elif is_hosted(kind) or kind in OUTPUTS_OF_HOSTED or kind in SEALED or kind == "compaction_trigger":
            self._block(_OPENAI, item)
        else:
            shown = kind if kind.isidentifier() and len(kind) <= _LONGEST_TYPE else "a type that is not known"
            message = f"{place}.type: {shown} has no counterpart in chat, and the provider offers chat only"
            raise OptionError(f"{place}.type", type(item.get("type")), "an item with a counterpart", message=message)

    def _say(self, content: Any) -> None:
        for part in to_parts(content):
            if part.get("type") == "refusal":
                self._refusals.append(text_of(part.get("refusal")))
            else:
                self._parts.append(_part(part))
                self._length += len(content_text([part]))

    def _reason(self, item: Mapping[str, Any]) -> None:
        mark = item.get(MARK)
        mark = mark if isinstance(mark, Mapping) else {}
        provider, kind = text_of(mark.get("provider")), text_of(mark.get("kind"))
        if kind in ("", "reasoning"):
            data = {name: value for name, value in item.items() if name != MARK}
            if identifier := text_of(mark.get("id")):
                data["id"] = identifier
            self._block(provider or _OPENAI, data)
            return
        texts = [text_of(part.get("text")) for name in ("summary", "content") for part in to_parts(item.get(name))]
        text, seal = "".join(texts), text_of(item.get("encrypted_content"))
        named = {name: mark[name] for name in ("id", "provider") if text_of(mark.get(name))}
        if kind.startswith(ENTRY_TYPES):  # chat's `reasoning_details`
            entry = {"data": seal} if kind == "reasoning.encrypted" else {"text": text, "signature": seal}
            self._block(provider, {"type": kind, **entry, **({"id": named["id"]} if "id" in named else {})})
        else:
            self._reasoning.append({"kind": kind, "text": text, "signature": seal, **named})

    def _block(self, provider: str, data: Mapping[str, Any]) -> None:
        block = {"provider": provider, "data": dict(data), "at": self._length, "calls": len(self._calls)}
        self._blocks.append(block)

    def message(self) -> dict[str, Any]:
        is_text = all(set(part) == {"type", "text"} and part["type"] == "text" for part in self._parts)
        content: Any = "".join(text_of(part["text"]) for part in self._parts) if is_text else self._parts
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if self._refusals:
            message["refusal"] = "".join(self._refusals)
        if self._calls:
            message["content"] = content or None
            message["tool_calls"] = self._calls
        if self._blocks:
            message["provider_blocks"] = self._blocks
        if self._reasoning:
            message["reasoning_blocks"] = self._reasoning
        return message


def _call(item: Mapping[str, Any], kind: str, place: str) -> dict[str, Any]:
    """A call in chat's form. Types that chat has not are functions with the action as their arguments."""
    identifier = text_of(item.get("call_id")) or text_of(item.get("id"))
    if not identifier:
        raise OptionError(
            f"{place}.call_id", type(item.get("call_id")), "the id by which the call's result refers to it"
        )
    if kind == "custom_tool_call":
        custom = {"name": name_of(item), "input": text_of(item.get("input"))}
        return {"id": identifier, "type": "custom", "custom": custom}
    if kind == "function_call":
        arguments = item.get("arguments")
        text = arguments if isinstance(arguments, str) else json_text(arguments or {})
        call = {"id": identifier, "type": "function", "function": {"name": name_of(item), "arguments": text or "{}"}}
        mark = item.get(MARK)
        mark = mark if isinstance(mark, Mapping) else {}
        signed = {"signature": text_of(mark.get("signature"))}
        if signed["signature"]:
            signed["signed_by"] = text_of(mark.get("provider"))
        return call | {name: text for name, text in signed.items() if text}
    name = CLIENT_CALLS[kind]
    function = {"name": name_of(item) or name, "arguments": action_of(item) or "{}"}
    return {"id": identifier, "type": name, "function": function}


# --- results and messages --------------------------------------------------------------------------------------------


def _answered(item: Mapping[str, Any]) -> str:
    return text_of(item.get("call_id")) or text_of(item.get("approval_request_id"))


def _result(item: Mapping[str, Any], kind: str, place: str) -> dict[str, Any]:
    """The result of a call: text and parts as they are, all else as JSON."""
    identifier = _answered(item)
    if not identifier:
        name = "approval_request_id" if kind == "mcp_approval_response" else "call_id"
        raise OptionError(f"{place}.{name}", type(item.get(name)), "the id of the call that it is the result of")
    output = item.get("output")
    message: dict[str, Any] = {"role": "tool", "tool_call_id": identifier}
    if kind == "computer_call_output":
        shot = output if isinstance(output, Mapping) else {}
        message["content"] = [_part({**shot, "type": "input_image"})]
    elif kind == "apply_patch_call_output":
        message["content"] = text_of(output) or text_of(item.get("status"))
        if item.get("status") == "failed":
            message["is_error"] = True
    elif kind in ("mcp_approval_response", "tool_search_output"):
        fields = {name: item[name] for name in ("approve", "reason", "tools") if item.get(name) is not None}
        message["content"] = json_text(fields)
    elif kind == "shell_call_output":
        message["content"] = json_text(output)
    else:
        message["content"] = output if isinstance(output, str) else [_part(part) for part in to_parts(output)]
    return message


def _message(item: Mapping[str, Any]) -> dict[str, Any]:
    message = {
        name: value
        for name, value in item.items()
        if name not in ("type", "id", "status", "phase") and (value is not None or name == "content")
    }
    if isinstance(message.get("content"), (list, tuple)):
        message["content"] = [_part(part) if isinstance(part, Mapping) else part for part in message["content"]]
    return message


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    """A content part in chat's form."""
    match part.get("type"):
        case "input_text":
            return {**part, "type": "text"}
        case "output_text":
            return {"type": "text", "text": text_of(part.get("text"))}
        case "input_image" if part.get("image_url"):
            image = {name: part[key] for name, key in (("url", "image_url"), ("detail", "detail")) if part.get(key)}
            return {"type": "image_url", "image_url": image}
        case "input_image" | "input_file":
            names = ("file_id", "file_data", "file_url", "filename")
            return {"type": "file", "file": {name: part[name] for name in names if part.get(name)}}
    return dict(part)
