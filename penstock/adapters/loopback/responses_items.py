"""Output items of the Responses API that are neither text nor reasoning: calls, the provider's own tools, pictures."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.adapters.loopback.parts import Picture, Ran, Search, ServerTool
from penstock.adapters.loopback.pieces import ScriptedCall

__all__ = ["HostedItem", "client_item", "hosted_item", "is_hosted", "picture_item"]

_GENERIC = frozenset({"collections_search", "document_search", "web_fetch", "x_search"})
"""Further tools, of other servers that speak the Responses API."""


class HostedItem(msgspec.Struct, frozen=True, kw_only=True):
    """The item of a call that the provider runs itself.

    Attributes:
        added: the item as it begins, without id and status.
        done: the item when it is complete, without id.
        pieces: the pieces of its arguments or code, with the type of the event that has them (``""``: they do not come
            in pieces), and the name of the field with all of them in the event that ends them.
        progress: the event between beginning and end, such as ``"searching"``; ``""``: there is none.
        is_told: events say that the call is in progress, and that it is complete.
        output: an item of its own with the result, without id; None: there is none.
    """

    added: dict[str, Any]
    done: dict[str, Any]
    text: str = ""
    event: str = ""
    field: str = ""
    progress: str = ""
    is_told: bool = True
    output: dict[str, Any] | None = None


def is_hosted(name: str) -> bool:
    """Tell whether the API has a form for a tool of this name that is not of an MCP server."""
    return name in _GENERIC or name in ("file_search", "shell", "tool_search")


def hosted_item(tool: Search | Ran | ServerTool, call_id: str) -> HostedItem:
    """Return the item of a tool. ``call_id``: for items that have one."""
    match tool:
        case Search():
            return _search(tool)
        case Ran():
            return _code(tool)
        case ServerTool(server=str()):
            return _mcp(tool)
        case ServerTool(name="file_search"):
            return _file_search(tool)
        case ServerTool(name="shell" | "tool_search"):
            return _with_output(tool, call_id)
    return _generic(tool)


def _search(search: Search) -> HostedItem:
    action: dict[str, Any] = {"type": "search", "query": search.query, "queries": [search.query]}
    if search.results:
        action["sources"] = [{"type": "url", "url": found.url} for found in search.results]
    item = {"type": "web_search_call", "status": "failed" if search.error is not None else "completed"}
    return HostedItem(added={"type": "web_search_call"}, done=item | {"action": action}, progress="searching")


def _code(ran: Ran) -> HostedItem:
    item = {"type": "code_interpreter_call", "container_id": "cntr_loopback"}
    outputs = None if ran.output is None else [{"type": "logs", "logs": ran.output}]
    done = {"status": "failed" if ran.failed else "completed", "code": ran.code, "outputs": outputs}
    return HostedItem(
        added=item | {"code": "", "outputs": []},
        done=item | done,
        text=ran.code,
        event="response.code_interpreter_call_code",
        field="code",
        progress="interpreting",
    )


def _mcp(tool: ServerTool) -> HostedItem:
    item = {"type": "mcp_call", "approval_request_id": None, "name": tool.name, "server_label": tool.server}
    output: str | None = tool.output_text if tool.has_result else None
    error: dict[str, Any] | None = None
    if tool.failed:
        error = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": output or ""}]}
        output = None
    status = "failed" if tool.failed else "completed"
    return HostedItem(
        added=item | {"arguments": "", "output": None, "error": None},
        done=item | {"status": status, "arguments": tool.input_text, "output": output, "error": error},
        text=tool.input_text,
        event="response.mcp_call_arguments",
        field="arguments",
    )


def _file_search(tool: ServerTool) -> HostedItem:
    queries = tool.input.get("queries", [tool.input["query"]] if "query" in tool.input else [])
    item: dict[str, Any] = {"type": "file_search_call", "queries": [], "results": None}
    done = {"status": "failed" if tool.failed else "completed", "queries": queries, "results": tool.output}
    return HostedItem(added=item, done=item | done, progress="searching")


def _with_output(tool: ServerTool, call_id: str) -> HostedItem:
    """A tool with its result in an item of its own."""
    if tool.name == "shell":
        environment = {"type": "container_reference", "container_id": "cntr_loopback"}
        item: dict[str, Any] = {"type": "shell_call", "call_id": call_id, "environment": environment}
        output = tool.output if isinstance(tool.output, list) else [_shell_output(tool)]
        result = {"type": "shell_call_output", "call_id": call_id, "max_output_length": None, "output": output}
        return HostedItem(
            added=item | {"action": {"commands": []}},
            done=item | {"status": "completed", "action": {"commands": [], **tool.input}},
            is_told=False,
            output=result | {"status": "completed"} if tool.has_result else None,
        )
    searched: dict[str, Any] = {"type": "tool_search_call", "call_id": None, "execution": "server"}
    tools = tool.output if isinstance(tool.output, list) else []
    found = {"type": "tool_search_output", "call_id": None, "execution": "server", "tools": tools}
    return HostedItem(
        added=searched | {"arguments": {}},
        done=searched | {"status": "completed", "arguments": tool.input},
        is_told=False,
        output=found | {"status": "completed"} if tool.has_result else None,
    )


def _shell_output(tool: ServerTool) -> dict[str, Any]:
    printed = {"stdout": "" if tool.failed else tool.output_text, "stderr": tool.output_text if tool.failed else ""}
    return {**printed, "outcome": {"type": "exit", "exit_code": int(tool.failed)}}


def _generic(tool: ServerTool) -> HostedItem:
    item = {"type": f"{tool.name}_call"}
    done: dict[str, Any] = {"status": "failed" if tool.failed else "completed", "action": tool.input}
    if tool.has_result:
        done["error" if tool.failed else "output"] = tool.output
    return HostedItem(added=item, done=item | done, is_told=False)


def picture_item(picture: Picture) -> HostedItem:
    """Return the item of a picture that has data."""
    form = {"background": "opaque", "output_format": picture.mime.removeprefix("image/"), "quality": "low"}
    done = {"status": "completed", **form, "result": picture.encoded, "size": "1024x1024"}
    kind = {"type": "image_generation_call"}
    return HostedItem(added=kind, done=kind | done, progress="generating")


def client_item(call: ScriptedCall, call_id: str) -> dict[str, Any]:
    """Return the item of a call that is neither a function nor a custom tool; its arguments are the action.

    Arguments that are no JSON object stand there as they are.
    """
    try:
        action = msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError:
        action = call.arguments
    item: dict[str, Any] = {"type": f"{call.type}_call", "call_id": call_id}
    match call.type:
        case "apply_patch":
            item["operation"] = action
        case "computer":
            fields = dict(action) if isinstance(action, dict) else {}
            item["pending_safety_checks"] = fields.pop("pending_safety_checks", [])
            item |= fields if "actions" in fields else {"action": fields}
        case "mcp_approval":
            fields = dict(action) if isinstance(action, dict) else {}
            arguments = fields.pop("arguments", {})
            text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
            named = {"name": call.name, "server_label": "loopback"}
            return {"type": "mcp_approval_request", "id": call_id, "arguments": text, **(named | fields)}
        case "tool_search":
            item |= {"execution": "client", "arguments": action}
        case "shell":
            limits: dict[str, Any] = {"commands": [], "max_output_length": None, "timeout_ms": None}
            item |= {"action": _filled(limits, action), "environment": {"type": "local"}}
        case "local_shell":
            item["action"] = _filled({"type": "exec", "command": [], "env": {}}, action)
    return item


def _filled(defaults: dict[str, Any], action: Any) -> Any:
    return defaults | action if isinstance(action, dict) else action
