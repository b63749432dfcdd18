"""Items of the Responses API that are neither text nor functions to call: what they say, and what goes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.adapters.providers.shared.json_values import decode_json, json_text, plain_json, text_of
from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.events import MediaPart, ServerToolCall, ServerToolResult

__all__ = [
    "CLIENT_CALLS",
    "OUTPUTS_OF_HOSTED",
    "SEALED",
    "action_of",
    "call_id_of",
    "identifier_of",
    "is_for_client",
    "is_hosted",
    "name_of",
    "picture_of",
    "returned_item",
    "server_call",
    "server_result",
]

CLIENT_CALLS = {
    "custom_tool_call": "custom",
    "local_shell_call": "local_shell",
    "shell_call": "shell",
    "apply_patch_call": "apply_patch",
    "computer_call": "computer",
    "mcp_approval_request": "mcp_approval",
    "tool_search_call": "tool_search",
}
"""Types of items that the client may have to act on, each with the ``type`` of the `penstock.events.ToolCall`."""

_HOSTED = frozenset(
    {
        "code_interpreter_call",
        "collections_search_call",
        "custom_tool_call",
        "document_search_call",
        "file_search_call",
        "image_generation_call",
        "mcp_call",
        "mcp_list_tools",
        "program",
        "shell_call",
        "tool_search_call",
        "web_fetch_call",
        "web_search_call",
        "x_search_call",
    }
)
"""Types of items that are calls of the provider's own tools. Those of OpenRouter begin with ``openrouter:``."""

OUTPUTS_OF_HOSTED = {
    "shell_call_output": ("shell", "output"),
    "tool_search_output": ("tool_search", "tools"),
    "program_output": ("program", "result"),
}
"""Types of items that are results of the provider's own tools: the tool, and the field with the result."""

SEALED = frozenset(
    {"additional_tools", "compaction", "compaction_summary", "configuration_update", "context_compaction"}
)
"""Types of items that say nothing, and that the provider needs back: compacted history, and what the model has got."""

_XAI_SEARCHES = frozenset({"x_keyword_search", "x_semantic_search", "x_thread_fetch", "x_user_search"})
"""xAI's hosted search sends these as custom tool calls, with ids that begin with ``xs_``. Only xAI has them."""

_RESULTS = {
    "code_interpreter_call": "outputs",
    "file_search_call": "results",
    "image_generation_call": "",  # the picture
    "mcp_call": "output",
    "mcp_list_tools": "tools",
    "web_search_call": "results",
}
"""The field with the result, for the types in which it is not named ``output``."""

_INPUTS = {
    "code_interpreter_call": ("code", "container_id"),
    "file_search_call": ("queries",),
    "image_generation_call": ("action", "background", "output_format", "quality", "revised_prompt", "size"),
    "mcp_call": ("server_label", "name", "arguments"),
    "mcp_list_tools": ("server_label",),
}
"""The fields with the input, for the types in which there are several."""

_NO_INPUT = frozenset({"id", "call_id", "type", "status", "name", "output", "results", "error", "created_by", "caller"})


# --- whose turn it is ------------------------------------------------------------------------------------------------


def is_for_client(item: Mapping[str, Any]) -> bool:
    """Whether the client must act on the item: not on xAI's searches, nor on what runs in the provider's containers.

    A shell call without an environment is for the client, as it was before there were containers.
    """
    kind = text_of(item.get("type"))
    if kind == "custom_tool_call":
        return not (text_of(item.get("name")) in _XAI_SEARCHES and text_of(item.get("call_id")).startswith("xs_"))
    if kind == "shell_call":
        environment = item.get("environment")
        return not isinstance(environment, Mapping) or environment.get("type") in (None, "local")
    if kind == "tool_search_call":
        return item.get("execution") == "client"
    return kind == "function_call" or kind in CLIENT_CALLS


def is_hosted(kind: str) -> bool:
    """Whether items of the type are calls of the provider's own tools, unless they are for the client."""
    return kind in _HOSTED or kind.startswith("openrouter:")


# --- ids and names ---------------------------------------------------------------------------------------------------


def identifier_of(item: Mapping[str, Any]) -> str:
    """The id by which a result refers to the item; ``""``: it has none."""
    return call_id_of(item) or _said(item.get("id"))


def call_id_of(item: Mapping[str, Any]) -> str:
    """The item's ``call_id``, without surrogates."""
    return _said(item.get("call_id"))


def name_of(item: Mapping[str, Any]) -> str:
    """The item's ``name``, without surrogates."""
    return _said(item.get("name"))


def _said(value: object) -> str:
    """Text without surrogates; ``""`` for what is no text, or says that there is none."""
    text = replace_surrogates(text_of(value))
    return "" if text in ("null", "None") else text


# --- calls for the client --------------------------------------------------------------------------------------------


def action_of(item: Mapping[str, Any]) -> str | None:
    """What the client must do, as JSON: the arguments of the call. None: the item does not say.

    For ``computer_call`` with several actions ``{"actions": […]}``; open safety checks stand beside the action.
    """
    kind = item.get("type")
    action: object = None
    if kind == "apply_patch_call":
        action = item.get("operation")
    elif kind == "mcp_approval_request":
        names = ("server_label", "name", "arguments")
        action = {name: item[name] for name in names if item.get(name) is not None}
        if "arguments" in action:
            action["arguments"] = _parsed(action["arguments"])
    elif kind == "tool_search_call":
        action = _parsed(item.get("arguments"))
    elif kind == "computer_call":
        action, actions = item.get("action"), item.get("actions")
        if isinstance(actions, list) and not isinstance(action, dict):
            action = {"actions": actions}
        checks = item.get("pending_safety_checks")
        if checks and isinstance(action, dict):
            action = action | {"pending_safety_checks": checks}
    else:
        action = item.get("action")
    if not isinstance(action, dict) or not action:
        return None
    try:
        return json_text(action)
    except (RecursionError, ValueError):
        return None


# --- the provider's own tools ----------------------------------------------------------------------------------------


def server_call(item: Mapping[str, Any], identifier: str) -> ServerToolCall:
    """The event for a call of one of the provider's own tools."""
    return ServerToolCall(
        id=identifier,
        name=_tool_of(item),
        input=plain_json(_input_of(item)),
        status=_said(item.get("status")) or None,
    )


def _tool_of(item: Mapping[str, Any]) -> str:
    kind = replace_surrogates(text_of(item.get("type")))
    if kind == "custom_tool_call":
        return name_of(item) or kind
    return kind.removeprefix("openrouter:").removesuffix("_call")


def _input_of(item: Mapping[str, Any]) -> Any:
    kind = item.get("type")
    if kind == "custom_tool_call":
        return _parsed(item.get("input"))
    if kind == "program":
        return item.get("code")
    if kind == "tool_search_call":
        return _parsed(item.get("arguments"))
    names = _INPUTS.get(str(kind))
    if names is not None:
        found = {name: item[name] for name in names if item.get(name) is not None}
        return found | {"arguments": _parsed(found["arguments"])} if "arguments" in found else found
    action = item.get("action")
    if isinstance(action, dict):
        return {name: value for name, value in action.items() if name != "sources"}
    rest = {name: value for name, value in item.items() if name not in _NO_INPUT and value is not None}
    if set(rest) == {"arguments"}:
        return _parsed(rest["arguments"])
    return rest or None


def server_result(item: Mapping[str, Any], identifier: str) -> ServerToolResult | None:
    """The event for the result that the item contains; None: it contains none.

    The sources of a web search are its result, and the error of a failed call.
    """
    kind = text_of(item.get("type"))
    if kind in OUTPUTS_OF_HOSTED:
        name, field = OUTPUTS_OF_HOSTED[kind]
        output = item.get(field)
    else:
        name = _tool_of(item)
        output = item.get(_RESULTS.get(kind, "output"))
        action = item.get("action")
        if output is None and isinstance(action, dict) and action.get("sources"):
            output = {"sources": action["sources"]}
    error = item.get("error")
    if output is None and error is None:
        return None
    status = _said(item.get("status")) or None
    return ServerToolResult(
        id=identifier,
        name=name,
        output=plain_json(error if output is None else output),
        status=status,
        is_error=error is not None or status == "failed",
    )


def _parsed(arguments: object) -> Any:
    """Arguments that are JSON, parsed; else as they are."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return decode_json(arguments)
    except (ValueError, RecursionError):
        return arguments


def picture_of(item: Mapping[str, Any]) -> MediaPart | None:
    """The whole picture of an ``image_generation_call``. None: there is none."""
    return picture(item.get("result"), item.get("output_format"), item.get("id"))


def picture(data: object, form: object, identifier: object, *, is_partial: bool = False) -> MediaPart | None:
    """A picture of base64 text. ``form``: the end of its media type, such as ``"png"``."""
    if not isinstance(data, str) or not data or not data.isascii():
        return None
    ending = _said(form)
    return MediaPart(
        kind="image",
        mime=f"image/{'svg+xml' if ending == 'svg' else ending}" if ending else None,
        data=data,
        id=_said(identifier) or None,
        is_partial=is_partial,
    )


# --- what goes back --------------------------------------------------------------------------------------------------


def returned_item(item: dict[str, Any], *, is_stored: bool) -> dict[str, Any] | None:
    """The item as it must be sent back. None: it cannot be (nested too deeply).

    A stored picture goes back by its id alone, as the API takes it.
    """
    if item.get("type") == "image_generation_call" and is_stored and _said(item.get("id")):
        return {"type": "image_generation_call", "id": _said(item.get("id"))}
    mended = plain_json(item)
    return mended if isinstance(mended, dict) else None
