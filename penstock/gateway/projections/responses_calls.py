"""Items of a Responses answer that are calls for the client, and the results of calls that were run here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from penstock.adapters.providers.openai.responses_calls import call_item, result_items
from penstock.events import ToolCall, ToolResult
from penstock.gateway.projections.responses_texts import ItemStatus
from penstock.gateway.projections.responses_wire import ResponsesWire, Slot, bounded

__all__ = ["CallItem", "OutputItem", "arguments_of", "declared_tools", "is_known_late"]

_PREFIXES: Final = {
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "computer_call": "cu",
    "shell_call": "sh",
    "local_shell_call": "lsh",
    "apply_patch_call": "apc",
    "tool_search_call": "tsc",
}
_ACTIONS: Final = frozenset({"local_shell", "shell", "apply_patch", "computer", "mcp_approval", "tool_search"})
"""Types of calls with items that have no pieces; they are the calls' names too, unless the provider names them."""
_LATE_IDS: Final = ("srvtoolu_", "mcptoolu_", "xs_", "mcpr_")
"""How ids begin of calls that the provider runs (Anthropic, xAI), and of requests for approval (OpenAI)."""
_STREAMED: Final = {"function": "function_call", "custom": "custom_tool_call"}
_FIELDS: Final = {"function_call": "arguments", "custom_tool_call": "input"}


def declared_tools(request: Mapping[str, Any]) -> dict[str, str]:
    """The names of functions and custom tools in a request, each with the type of its calls' items."""
    return dict(_declared(request.get("tools")))


def _declared(tools: object) -> Iterator[tuple[str, str]]:
    for tool in tools if isinstance(tools, list) else ():
        if not isinstance(tool, Mapping):
            continue
        kind, name = tool.get("type"), tool.get("name")
        if isinstance(kind, str) and kind in _STREAMED and isinstance(name, str):
            yield name, _STREAMED[kind]
        elif kind == "namespace":
            yield from _declared(tool.get("tools"))


def is_known_late(identifier: str, name: str) -> bool:
    """Whether only the whole call says what it is: one that the provider runs, or of a type without pieces."""
    return name in _ACTIONS or identifier.startswith(_LATE_IDS)


def arguments_of(call: ToolCall) -> str:
    """The arguments as text; ``{}`` if there are none."""
    if call.type != "custom" and call.arguments is not None and call.arguments_raw.strip() in ("", "null"):
        return "{}"
    return call.arguments_raw


class CallItem:
    """A call for the client. Functions and custom tools come in pieces, all others whole."""

    __slots__ = ("_fields", "_item", "_pieces", "_slot", "given_id", "id", "index", "kind", "status", "wire")

    def __init__(
        self, wire: ResponsesWire, index: int, kind: str, number: str, given_id: str, call_id: str, name: str
    ) -> None:
        self.wire = wire
        self.index = index
        self.kind = kind
        self.given_id = given_id  # the call's, which another item may have too
        self.id = call_id if kind == "mcp_approval_request" else f"{_PREFIXES.get(kind, 'call')}_{number}"
        self.status: ItemStatus = "in_progress"
        self._fields: dict[str, Any] = {"call_id": call_id, "name": name}
        self._pieces: list[str] = []
        self._item: dict[str, Any] | None = None
        self._slot: Slot | None = None
        if kind in _FIELDS:
            name = "function_call_arguments" if kind == "function_call" else "custom_tool_call_input"
            self._slot = Slot.of(f"response.{name}.delta", {"item_id": self.id, "output_index": index})
            wire.send("response.output_item.added", output_index=index, item=self.whole())

    def add(self, text: str) -> None:
        """Send a piece of the arguments."""
        if self._slot is not None and text:
            self._pieces.append(text)
            self.wire.piece(self._slot, text)

    def complete(self, call: ToolCall) -> None:
        """Send the end of the call, with what of its arguments has not come."""
        if self._slot is None:
            self._complete_action(call)
            return
        whole, came = arguments_of(call), "".join(self._pieces)
        if len(whole) > len(came) and whole.startswith(came):
            self.add(whole[len(came) :])
        self._pieces = [whole]
        if call.signature:
            maker = {"provider": call.signed_by} if call.signed_by else {}
            self._fields["penstock"] = {"signature": call.signature, **maker}
        self.close("incomplete" if call.arguments is None else "completed")

    def _complete_action(self, call: ToolCall) -> None:
        function = {"name": call.name, "arguments": call.arguments_raw}
        item = call_item({"id": self._fields["call_id"], "type": call.type, "function": function})
        self._item = {"id": self.id, **bounded(item)}
        self.status = "incomplete" if call.arguments is None else "completed"
        if "status" in item:
            self._item["status"] = self.status
        self.wire.send("response.output_item.added", output_index=self.index, item=self._item)
        self.wire.send("response.output_item.done", output_index=self.index, item=self._item)

    def close(self, status: ItemStatus) -> None:
        """Send the end of a call that came in pieces, as it is now."""
        place = {"item_id": self.id, "output_index": self.index}
        text = "".join(self._pieces)
        if self.kind == "function_call":
            name = self._fields["name"]
            self.wire.send("response.function_call_arguments.done", **place, name=name, arguments=text)
        else:
            self.wire.send("response.custom_tool_call_input.done", **place, input=text)
        self.status = status
        self.wire.send("response.output_item.done", output_index=self.index, item=self.whole())

    def whole(self) -> dict[str, Any]:
        """The item as it is now."""
        if self._item is not None:
            return self._item
        field = _FIELDS[self.kind]
        return {"id": self.id, "type": self.kind, "status": self.status, field: "".join(self._pieces), **self._fields}


class OutputItem:
    """The result of a call that was run here."""

    __slots__ = ("_item",)

    def __init__(
        self, wire: ResponsesWire, index: int, number: str, result: ToolResult, call: Mapping[str, Any] | None
    ) -> None:
        message = {"tool_call_id": result.call_id, "content": result.content, "is_error": result.status != "ok"}
        item = {"id": f"out_{number}", **result_items(message, call)[0]}
        if call is not None and "call_id" in call and "call_id" in item:
            item["call_id"] = call["call_id"]
        status = item.setdefault("status", "completed" if result.status == "ok" else "incomplete")
        if item["type"] == "function_call_output":
            item["name"] = result.name
        self._item = item
        wire.send("response.output_item.added", output_index=index, item=item | {"status": status})
        wire.send("response.output_item.done", output_index=index, item=item)

    def whole(self) -> dict[str, Any]:
        """The item."""
        return self._item
