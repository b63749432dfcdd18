"""Items of a Responses answer that are calls of the provider's own tools, and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from penstock.events import MediaPart, ServerToolCall, ServerToolResult
from penstock.gateway.projections.frames import encode
from penstock.gateway.projections.responses_wire import ResponsesWire, bounded

__all__ = ["PICTURE", "HostedToolItem", "kind_of"]

PICTURE: Final = "image_generation_call"

_KINDS: Final = {
    "web_search": "web_search_call",
    "web_fetch": "web_search_call",  # with the action open_page
    "file_search": "file_search_call",
    "code_interpreter": "code_interpreter_call",
    "code_execution": "code_interpreter_call",
    "bash_code_execution": "code_interpreter_call",
    "text_editor_code_execution": "code_interpreter_call",
    "image_generation": PICTURE,
    "mcp_list_tools": "mcp_list_tools",
    "shell": "shell_call",
    "tool_search": "tool_search_call",
    "program": "program",
    "x_search": "x_search_call",
    "document_search": "document_search_call",
    "collections_search": "collections_search_call",
}
"""The types of items by the tool's name. All others are ``mcp_call``, which has a name and arguments."""

_STEPS: Final = {
    "web_search_call": "searching",
    "file_search_call": "searching",
    "code_interpreter_call": "interpreting",
    PICTURE: "generating",
    "mcp_call": "",
    "mcp_list_tools": "",
}
"""The types with events for their progress, each with the word between ``in_progress`` and the end."""
_PIECES: Final = {
    "code_interpreter_call": ("code", "code_interpreter_call_code"),
    "mcp_call": ("arguments", "mcp_call_arguments"),
}
"""The types with a field that comes apart from the item, and the middle of the events' names."""
_SEPARATE: Final = {
    "shell_call": ("shell_call_output", "output", {}),
    "tool_search_call": ("tool_search_output", "tools", {"execution": "server"}),
    "program": ("program_output", "result", {}),
}
"""The types with an item of its own for the result: its type, its field for the result, and constant fields."""
_FINAL: Final = frozenset({"completed", "failed", "incomplete"})


def kind_of(name: str) -> str:
    """The type of the items for a tool of the provider.

    >>> kind_of("web_search"), kind_of("get_weather")
    ('web_search_call', 'mcp_call')
    """
    return _KINDS.get(name, "mcp_call")


class HostedToolItem:
    """A call of one of the provider's own tools."""

    __slots__ = ("_fields", "_pictures", "id", "index", "is_open", "is_over", "kind", "status", "wire")

    def __init__(
        self, wire: ResponsesWire, index: int, identifier: str, name: str, event: ServerToolCall | None = None
    ) -> None:
        self.wire = wire
        self.index = index
        self.id = identifier
        self.kind = kind_of(name)
        self.status = "in_progress"
        self.is_open = True
        self.is_over = False
        """Whether the provider has said that the call is over; what belongs to it follows at once."""
        self._pictures = 0
        self._fields: dict[str, Any] = _start_of(self.kind, name, identifier)
        self._send("output_item.added")
        if self.kind in _STEPS:
            self._step("in_progress")
        if event is not None:
            self.call(event)

    def call(self, event: ServerToolCall) -> None:
        """Add what the call says."""
        self.is_over = event.status in _FINAL
        if event.status in _FINAL:
            self.status = str(event.status)
        self._fields |= _INPUTS.get(self.kind, _action)(event.name, bounded(event.input))
        if self.kind in _PIECES:
            field, name = _PIECES[self.kind]
            text = str(self._fields.get(field) or "")
            place = {"item_id": self.id, "output_index": self.index}
            if text:
                self.wire.send(f"response.{name}.delta", **place, delta=text)
            self.wire.send(f"response.{name}.done", **place, **{field: text})
        if step := _STEPS.get(self.kind):
            self._step(step)

    def result(self, event: ServerToolResult) -> dict[str, Any] | None:
        """Add the result, and send the end. Returns the item of the result, if that is one of its own."""
        separate = _SEPARATE.get(self.kind)
        if event.is_error:
            self.status = "failed"
        elif event.status in _FINAL:
            self.status = str(event.status)
        output = bounded(event.output)
        if separate is None:
            if event.is_error:
                self._fields["error"] = output
            if output is not None and (not event.is_error or self.kind in _LOGGED):
                self._fields |= _results_of(self.kind, self._fields, output)
        self.close()
        if separate is None:
            return None
        kind, field, others = separate
        if not isinstance(output, list) and field != "result":
            output = [] if output is None else [output]
        status = "completed" if self.status == "completed" else "incomplete"
        return {"id": "", "type": kind, "call_id": self.id, **others, field: output, "status": status}

    def picture(self, part: MediaPart) -> None:
        """Send a preview, or the whole picture and the end."""
        form = (part.mime or "").removeprefix("image/").partition("+")[0]
        known = {"output_format": form} if form else {}
        if part.is_partial:
            place = {"item_id": self.id, "output_index": self.index, "partial_image_index": self._pictures}
            name = "response.image_generation_call.partial_image"
            self.wire.send(name, **place, partial_image_b64=part.data, **known)
            self._pictures += 1
            return
        self._fields["result"] = part.data or None
        if part.url:
            self._fields["image_url"] = part.url
        for name, value in known.items():
            self._fields.setdefault(name, value)
        self.close()

    def close(self, status: str = "completed") -> None:
        """Send the end. ``status``: if the provider has said none."""
        if self.status == "in_progress":
            self.status = status
        self.is_open = False
        if self.kind in _STEPS:
            if self.status == "completed":
                self._step("completed")
            elif self.status == "failed" and self.kind.startswith("mcp"):
                self._step("failed")
        self._send("output_item.done")

    def _step(self, word: str) -> None:
        self.wire.send(f"response.{self.kind}.{word}", output_index=self.index, item_id=self.id)

    def _send(self, name: str) -> None:
        self.wire.send(f"response.{name}", output_index=self.index, item=self.whole())

    def whole(self) -> dict[str, Any]:
        """The item as it is now."""
        item = {"id": self.id, "type": self.kind, "status": self.status, **self._fields}
        if self.kind in ("program", "mcp_list_tools"):
            del item["status"]
        return item


# --- what a call says ------------------------------------------------------------------------------------------------


def _start_of(kind: str, name: str, identifier: str) -> dict[str, Any]:
    """The fields of an item of which nothing is known; those that the API's clients expect to be there."""
    match kind:
        case "web_search_call":
            return {"action": {"type": "open_page", "url": None} if name == "web_fetch" else {"type": "search"}}
        case "file_search_call":
            return {"queries": [], "results": None}
        case "code_interpreter_call":
            return {"code": "", "container_id": "", "outputs": None}
        case "mcp_call":
            return {"approval_request_id": None, "arguments": "", "error": None, "name": name, "output": None} | {
                "server_label": ""
            }
        case "mcp_list_tools":
            return {"server_label": "", "tools": [], "error": None}
        case "shell_call":
            place = {"type": "container_reference", "container_id": ""}
            return {"call_id": identifier, "action": {"commands": []}, "environment": place}
        case "tool_search_call":
            return {"call_id": identifier, "execution": "server", "arguments": {}}
        case "program":
            return {"call_id": identifier, "code": "", "fingerprint": ""}
        case _:
            return {"result": None} if kind == PICTURE else {}


def _web_search(name: str, given: Any) -> dict[str, Any]:
    """The API's own action, or a query or an address as other providers give them."""
    if not isinstance(given, Mapping):
        return {"action": {"type": "search", "query": given}} if isinstance(given, str) else {}
    if "type" in given:
        return {"action": dict(given)}
    if name == "web_fetch":
        return {"action": {"type": "open_page", **given}}
    return {"action": {"type": "search", **given}}


def _file_search(name: str, given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):
        query = given.get("query")
        return dict(given) if "queries" in given else {"queries": [query] if query else []} | dict(given)
    return {"queries": [given]} if isinstance(given, str) else {}


def _code(name: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        return {"code": given} if isinstance(given, str) else {}
    code = given.get("code", given.get("command"))
    others = {key: value for key, value in given.items() if key not in ("code", "command")}
    if "code" not in given and others:  # the text editor has a command and its arguments
        return {"code": _text(dict(given))}
    return {"code": code if isinstance(code, str) else _text(code), **others}


def _mcp(name: str, given: Any) -> dict[str, Any]:
    if name == "mcp" and isinstance(given, Mapping):
        return dict(given) | {"arguments": _text(given.get("arguments", ""))}
    return {"arguments": _text({} if given is None else given)}


def _fields(name: str, given: Any) -> dict[str, Any]:
    return dict(given) if isinstance(given, Mapping) else {}


def _shell(name: str, given: Any) -> dict[str, Any]:
    return {"action": {"commands": [], **given}} if isinstance(given, Mapping) else {}


def _arguments(name: str, given: Any) -> dict[str, Any]:
    return {} if given is None else {"arguments": given}


def _program(name: str, given: Any) -> dict[str, Any]:
    return {"code": given if isinstance(given, str) else _text(given)}


def _action(name: str, given: Any) -> dict[str, Any]:
    return {} if given is None else {"action": given}


_INPUTS: Final[dict[str, Callable[[str, Any], dict[str, Any]]]] = {
    "web_search_call": _web_search,
    "file_search_call": _file_search,
    "code_interpreter_call": _code,
    PICTURE: _fields,
    "mcp_call": _mcp,
    "mcp_list_tools": _fields,
    "shell_call": _shell,
    "tool_search_call": _arguments,
    "program": _program,
}


# --- what a result says ----------------------------------------------------------------------------------------------

_LOGGED: Final = frozenset({"code_interpreter_call"})
"""Types with errors in the output too."""


def _results_of(kind: str, fields: Mapping[str, Any], output: Any) -> dict[str, Any]:
    match kind:
        case "web_search_call":
            action = fields.get("action")
            action = dict(action) if isinstance(action, Mapping) else {"type": "search"}
            if isinstance(output, Mapping) and "sources" in output:
                return {"action": action | {"sources": output["sources"]}}
            pages = [page for page in output if isinstance(page, Mapping)] if isinstance(output, list) else []
            names = ("url", "title")
            found = [
                {"type": "url"} | {name: page[name] for name in names if page.get(name)}
                for page in pages
                if isinstance(page.get("url"), str)
            ]
            return {"action": action | {"sources": found}} if found else {"results": output}
        case "file_search_call":
            return {"results": output}
        case "code_interpreter_call":
            return {"outputs": _outputs(output)}
        case "mcp_list_tools":
            return {"tools": output}
        case "mcp_call":
            return {"output": _text(output)}
        case _:
            return {} if kind == PICTURE else {"output": output}


def _outputs(output: Any) -> list[Any]:
    """The API's own list, or what other providers' tools have printed."""
    if isinstance(output, list):
        return output
    if isinstance(output, Mapping) and ("stdout" in output or "stderr" in output):
        printed = [output.get("stdout"), output.get("stderr")]
        return [{"type": "logs", "logs": "\n".join(text for text in printed if isinstance(text, str) and text)}]
    return [{"type": "logs", "logs": _text(output)}]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else encode(value).decode()
