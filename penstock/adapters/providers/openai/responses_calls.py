"""Calls of chat messages and their results as items of the Responses API, each type of call in its own form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from penstock.adapters.providers.openai.responses_content import INPUT_TEXT, is_list, to_content
from penstock.adapters.providers.shared.json_values import decode_json, text_of
from penstock.adapters.providers.shared.messages import content_text

__all__ = ["call_item", "result_items"]


# --- calls -----------------------------------------------------------------------------------------------------------


def call_item(call: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a call: ``{"id", "type", "function": {"name", "arguments"}}``, or chat's own form of custom calls."""
    call_id, kind = text_of(call.get("id")), text_of(call.get("type"))
    custom = call.get("custom")
    if isinstance(custom, Mapping):
        return _custom(call_id, text_of(custom.get("name")), text_of(custom.get("input")))
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    name, arguments = text_of(function.get("name")), function.get("arguments")
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
    if kind == "custom":
        return _custom(call_id, name, text)
    build = _CALLS.get(kind)
    if build is not None:
        parsed = _json(text)
        return build(call_id, name, parsed if isinstance(parsed, dict) else {})
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": text or "{}"}


def _custom(call_id: str, name: str, text: str) -> dict[str, Any]:
    return {"type": "custom_tool_call", "call_id": call_id, "name": name, "input": text}


def _local_shell(call_id: str, name: str, action: dict[str, Any]) -> dict[str, Any]:
    action = {"type": "exec", "command": [], "env": {}, **action}
    return {"type": "local_shell_call", "call_id": call_id, "action": action, "status": "completed"}


def _shell(call_id: str, name: str, action: dict[str, Any]) -> dict[str, Any]:
    return {"type": "shell_call", "call_id": call_id, "action": {"commands": [], **action}, "status": "completed"}


def _apply_patch(call_id: str, name: str, operation: dict[str, Any]) -> dict[str, Any]:
    return {"type": "apply_patch_call", "call_id": call_id, "operation": operation, "status": "completed"}


def _computer(call_id: str, name: str, action: dict[str, Any]) -> dict[str, Any]:
    checks = action.get("pending_safety_checks") or []
    action = {field: value for field, value in action.items() if field != "pending_safety_checks"}
    acts = {"action": action} if action.get("actions") is None else {"actions": action["actions"]}
    return {
        "type": "computer_call",
        "call_id": call_id,
        **acts,
        "pending_safety_checks": checks,
        "status": "completed",
    }


def _mcp_approval(call_id: str, name: str, request: dict[str, Any]) -> dict[str, Any]:
    arguments = {} if request.get("arguments") is None else request["arguments"]
    return {
        "type": "mcp_approval_request",
        "id": call_id,
        "name": text_of(request.get("name")) or name,
        "server_label": text_of(request.get("server_label")),
        "arguments": arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode(),
    }


def _tool_search(call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    item = {"type": "tool_search_call", "call_id": call_id, "arguments": arguments}
    return item | {"execution": "client", "status": "completed"}


_CALLS: dict[str, Callable[[str, str, dict[str, Any]], dict[str, Any]]] = {
    "local_shell": _local_shell,
    "shell": _shell,
    "apply_patch": _apply_patch,
    "computer": _computer,
    "mcp_approval": _mcp_approval,
    "tool_search": _tool_search,
}


# --- results ---------------------------------------------------------------------------------------------------------


def result_items(message: Mapping[str, Any], call: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Convert a message of role ``tool``. ``call``: the item of the call that it answers; None: not known.

    The content may be the API's own form as JSON, such as a list of ``{"stdout", "stderr", "outcome"}`` for a shell.
    Text is put where the API has a place for it.
    """
    call = call or {"type": "function_call"}
    build = _RESULTS.get(text_of(call.get("type")))
    call_id = text_of(message.get("tool_call_id"))
    if build is not None:
        items = build(message, call)
        items[0] = {"type": items[0].pop("type"), "call_id": call_id, **items[0]}
    elif call.get("type") == "mcp_approval_request":
        items = [{"type": "mcp_approval_response", "approval_request_id": call_id, **_approval(message)}]
    else:
        kind = "custom_tool_call_output" if call.get("type") == "custom_tool_call" else "function_call_output"
        items = [{"type": kind, "call_id": call_id, "output": to_content(message.get("content"), INPUT_TEXT)}]
    if isinstance(call.get("caller"), Mapping):
        items[0]["caller"] = call["caller"]
    return items


def _local_shell_result(message: Mapping[str, Any], call: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "local_shell_call_output", "output": content_text(message.get("content"))}]


def _shell_result(message: Mapping[str, Any], call: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Captured outputs. Plain text is the standard output, with exit code 0; that of an error the other, with 1."""
    text = content_text(message.get("content"))
    given = _json(text)
    fields: dict[str, Any] = {}
    if isinstance(given, dict) and isinstance(given.get("output"), list):
        fields = {name: given[name] for name in ("max_output_length", "status") if name in given}
        given = given["output"]
    outputs = given if isinstance(given, list) else [given]
    if not outputs or not all(isinstance(each, dict) and {"stdout", "stderr"} & each.keys() for each in outputs):
        failed = bool(message.get("is_error"))
        outputs = [{"stderr" if failed else "stdout": text, "outcome": {"type": "exit", "exit_code": int(failed)}}]
    default = {"stdout": "", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}
    action = call.get("action")
    limit = action.get("max_output_length") if isinstance(action, Mapping) else None
    if limit is not None:
        fields = {"max_output_length": limit, **fields}
    return [{"type": "shell_call_output", "output": [default | each for each in outputs], **fields}]


def _apply_patch_result(message: Mapping[str, Any], call: Mapping[str, Any]) -> list[dict[str, Any]]:
    text = content_text(message.get("content"))
    given = _json(text)
    if isinstance(given, dict) and given.get("status") in ("completed", "failed"):
        fields = {name: given[name] for name in ("status", "output") if name in given}
    else:
        fields = {"status": "failed" if message.get("is_error") else "completed", "output": text}
    return [{"type": "apply_patch_call_output", **fields}]


def _computer_result(message: Mapping[str, Any], call: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A screenshot: a picture of the content, its address as text, or the API's own form as JSON.

    The API takes nothing else. Other text, such as an error, follows an empty picture as a user's message.
    """
    content = message.get("content")
    text = content_text(content)
    given = _json(text)
    given = given if isinstance(given, dict) else {}
    shot = given.get("output") if isinstance(given.get("output"), dict) else given
    fields = {name: given[name] for name in ("acknowledged_safety_checks",) if name in given}
    parts = to_content(content, INPUT_TEXT) if is_list(content) else []
    sources = [part for part in (*parts, shot) if isinstance(part, Mapping)]
    found = next((part for part in sources if part.get("image_url") or part.get("file_id")), None)
    if found is not None:
        place = {name: found[name] for name in ("image_url", "file_id") if found.get(name)}
    elif text.startswith(("data:image/", "https://", "http://")):
        place = {"image_url": text.strip()}
    else:
        place = {}
    output = {"type": "computer_screenshot", **(place or {"image_url": _EMPTY_PICTURE})}
    item = {"type": "computer_call_output", "output": output, **fields}
    return [item] if place or not text else [item, {"role": "user", "content": text}]


_EMPTY_PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)
"""One transparent point."""


def _tool_search_result(message: Mapping[str, Any], call: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = _json(content_text(message.get("content")))
    tools = given.get("tools") if isinstance(given, dict) else given
    item = {"type": "tool_search_output", "execution": "client", "status": "completed"}
    return [item | {"tools": tools if isinstance(tools, list) else []}]


def _approval(message: Mapping[str, Any]) -> dict[str, Any]:
    """``true`` or ``{"approve": true}`` as JSON approves. Anything else does not, and its text is the reason."""
    text = content_text(message.get("content"))
    given = _json(text)
    if isinstance(given, bool):
        return {"approve": given}
    if isinstance(given, dict) and isinstance(given.get("approve"), bool):
        reason = given.get("reason")
        return {"approve": given["approve"]} | ({"reason": reason} if isinstance(reason, str) and reason else {})
    return {"approve": False} | ({"reason": text} if text else {})


_RESULTS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], list[dict[str, Any]]]] = {
    "local_shell_call": _local_shell_result,
    "shell_call": _shell_result,
    "apply_patch_call": _apply_patch_result,
    "computer_call": _computer_result,
    "tool_search_call": _tool_search_result,
}


def _json(text: str) -> Any:
    """The JSON that a text is; None if it is none."""
    try:
        return decode_json(text)
    except (ValueError, RecursionError):
        return None
