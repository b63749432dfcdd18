"""Chat messages and tools in OpenAI's form as Anthropic's; what is in Anthropic's own form passes unchanged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from penstock.adapters.providers.shared.json_values import text_of
from penstock.adapters.providers.shared.messages import (
    AskedCall,
    NamedTool,
    answer_format,
    calls_of,
    function_of,
    image_of,
    parts_of,
    reasoning_blocks_of,
    said_parameters,
    split_system,
    tool_choice_of,
)
from penstock.errors import OptionError
from penstock.events import ReasoningBlock

__all__ = ["to_body"]

DEFAULT_MAX_TOKENS = 4096
"""``max_tokens`` where the call says none; the API has no default of its own and wants the parameter."""

_NOT_THEIRS = {"name", "tool_calls", "function_call", "reasoning_blocks", "refusal", "audio", "annotations"}
"""Fields of an OpenAI message that the API would refuse."""


def to_body(messages: Sequence[dict[str, Any]], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """All of a request's body but ``model`` and ``stream``. What the parameters say that has another name is renamed.

    Raises:
        OptionError: ``response_format`` asks for what the API does not have, or an image's ``data:`` URL is malformed.
    """
    body = said_parameters(parameters)
    body.pop("stream_options", None)  # OpenAI's way to ask for usage, which Anthropic tells unasked
    instructing, others = split_system(messages)
    system = [*parts_of(body.pop("system", None)), *_system_blocks(instructing)]
    if system:
        body["system"] = _as_text(system)
    body["messages"] = _messages(others)
    most = body.pop("max_completion_tokens", None) or _max_tokens(body.get("thinking"))
    body.setdefault("max_tokens", most)
    stop = body.pop("stop", None)
    if stop is not None:
        body.setdefault("stop_sequences", [stop] if isinstance(stop, str) else stop)
    _translate_tools(body)
    _translate_format(body)
    return body


def _max_tokens(thinking: object) -> int:
    """The default; beyond a thinking budget, which it must exceed and which counts into it."""
    budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    return DEFAULT_MAX_TOKENS + (budget if isinstance(budget, int) else 0)


def _translate_tools(body: dict[str, Any]) -> None:
    tools = body.get("tools")
    if isinstance(tools, (list, tuple)):
        body["tools"] = [_tool(tool) for tool in tools]
    choice = tool_choice_of(body.get("tool_choice"))
    if isinstance(choice, NamedTool):
        body["tool_choice"] = {"type": "tool", "name": choice.name}
    elif choice is not None:
        body["tool_choice"] = {"type": "any" if choice == "required" else choice}
    parallel = body.pop("parallel_tool_calls", None)
    if parallel is False and tools:
        wanted = body.get("tool_choice") or {"type": "auto"}
        if isinstance(wanted, Mapping) and wanted.get("type") != "none":
            body["tool_choice"] = {**wanted, "disable_parallel_tool_use": True}


def _tool(tool: object) -> object:
    function = function_of(tool)
    if function is None:
        return tool
    found: dict[str, Any] = {"name": function.name}
    if function.description:
        found["description"] = function.description
    found["input_schema"] = function.parameters or {"type": "object", "properties": {}}
    if function.strict:
        found["strict"] = True
    if isinstance(tool, Mapping) and "cache_control" in tool:
        found["cache_control"] = tool["cache_control"]
    return found


def _translate_format(body: dict[str, Any]) -> None:
    """``response_format`` of a schema becomes ``output_config.format``; that of text says nothing."""
    wanted = answer_format(body.get("response_format"))
    if wanted is None:
        return
    del body["response_format"]
    if wanted.kind == "json":
        raise OptionError("response_format", "json_object", "text | json_schema: Anthropic answers by a schema only")
    if wanted.kind == "schema":
        config = body.get("output_config") or {}
        if not isinstance(config, Mapping):
            raise OptionError("output_config", type(config), "a dict")
        body["output_config"] = {"format": {"type": "json_schema", "schema": wanted.schema}, **config}


# --- messages ------------------------------------------------------------------------------------------------------


def _system_blocks(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [block for message in messages for block in _blocks(message.get("content"))]


def _as_text(blocks: list[dict[str, Any]]) -> object:
    """One block of plain text as text: the same thing, and easier on the eye of whoever reads requests."""
    if len(blocks) == 1 and set(blocks[0]) == {"type", "text"}:
        return blocks[0]["text"]
    return blocks


def _messages(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation. Tools' results that follow one another go into one user message, as the API wants them."""
    found: list[dict[str, Any]] = []
    ids = _CallIds()
    results: list[dict[str, Any]] | None = None
    for message in messages:
        if message["role"] == "tool":
            if results is None:
                results = []
                found.append({"role": "user", "content": results})
            results.append(_tool_result(message, ids))
            continue
        results = None
        if (said := _message(message, ids)) is not None:
            found.append(said)
    return [*found[:-1], _prefilled(found[-1])] if found else found


def _prefilled(message: dict[str, Any]) -> dict[str, Any]:
    """The last message. Where it is the answer's beginning, the API refuses it with blanks at its end."""
    content = message["content"]
    if message["role"] != "assistant":
        return message
    if isinstance(content, str):
        return {**message, "content": content.rstrip()}
    *before, last = content
    text = last.get("text")
    return {**message, "content": [*before, {**last, "text": text.rstrip()}]} if isinstance(text, str) else message


class _CallIds:
    """Calls' ids as the API takes them: of letters, digits, ``_`` and ``-``, and no two alike.

    A conversation that began elsewhere has others: ``functions.f:0``, or the same numbers in every answer.
    """

    def __init__(self) -> None:
        self._latest: dict[str, str] = {}
        self._used: set[str] = set()

    def begin(self, call_id: str) -> str:
        """The id of a call; results that follow belong to the last call that had ``call_id``."""
        plain = found = _OTHER_SIGNS.sub("_", call_id)
        number = 1
        while found in self._used:
            number += 1
            found = f"{plain}_{number}"
        self._used.add(found)
        self._latest[call_id] = found
        return found

    def of_result(self, call_id: str) -> str:
        return self._latest.get(call_id) or _OTHER_SIGNS.sub("_", call_id)


_OTHER_SIGNS = re.compile(r"[^a-zA-Z0-9_-]")


def _message(message: dict[str, Any], ids: _CallIds) -> dict[str, Any] | None:
    """One message; None: an answer that ended before it began. The API refuses it, as it does mere thoughts."""
    content = message.get("content")
    more = {name: value for name, value in message.items() if name not in _NOT_THEIRS}
    if message["role"] != "assistant":
        return {**more, "content": content if isinstance(content, str) else _blocks(content)}
    # Reasoning first and unchanged: the API refuses a turn whose signed blocks are not where they were.
    before = [_reasoning(block) for block in reasoning_blocks_of(message, _KINDS)]
    said = _blocks(content) or _blocks(message.get("refusal"))
    calls = [_tool_use(call, ids) for call in calls_of(message)]
    if not said and not calls:
        return None
    if not before and not calls and isinstance(content, str):
        return {**more, "content": content}
    return {**more, "content": [*before, *said, *calls]}


_KINDS = frozenset({"thinking", "redacted_thinking"})


def _reasoning(block: ReasoningBlock) -> dict[str, Any]:
    if block.kind == "redacted_thinking":
        return {"type": "redacted_thinking", "data": block.signature}
    return {"type": "thinking", "thinking": block.text, "signature": block.signature}


def _tool_use(call: AskedCall, ids: _CallIds) -> dict[str, Any]:
    return {"type": "tool_use", "id": ids.begin(call.id), "name": call.name, "input": call.arguments}


def _tool_result(message: Mapping[str, Any], ids: _CallIds) -> dict[str, Any]:
    call_id = ids.of_result(text_of(message.get("tool_call_id")))
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": call_id}
    content = message.get("content")
    if content := content if isinstance(content, str) else _blocks(content):
        result["content"] = content
    if message.get("is_error"):
        result["is_error"] = True
    if "cache_control" in message:
        result["cache_control"] = message["cache_control"]
    return result


def _blocks(content: object) -> list[dict[str, Any]]:
    return [block for part in parts_of(content) if (block := _block(part)) is not None]


def _block(part: dict[str, Any]) -> dict[str, Any] | None:
    """One part as a block; None: it is text without any, or of blanks only, which the API refuses."""
    kind = part.get("type", "text")
    if kind in ("text", "input_text", "output_text", "refusal"):
        text = text_of(part.get("refusal" if kind == "refusal" else "text"))
        more = {name: value for name, value in part.items() if name not in ("type", "text", "refusal", "annotations")}
        return {"type": "text", "text": text, **more} if text.strip() else None
    image = image_of(part)
    if image is None:
        return part
    source = {"type": "url", "url": image.url}
    if not image.url:
        source = {"type": "base64", "media_type": image.media_type, "data": image.data}
    # A data: URL may hold a PDF too.
    is_picture = bool(image.url) or image.media_type.startswith("image/")
    block: dict[str, Any] = {"type": "image" if is_picture else "document", "source": source}
    if "cache_control" in part:
        block["cache_control"] = part["cache_control"]
    return block
