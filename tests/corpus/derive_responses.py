"""What a recording of OpenAI's Responses API has besides text and calls."""

from __future__ import annotations

from collections.abc import Iterable

from tests.corpus.bodies import Json
from tests.corpus.derive_chat import chat_counts
from tests.corpus.found import Found, Kind

__all__ = ["derive"]

_TEXT: dict[str, Kind] = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.reasoning_text.delta": "reasoning",
}
_PARTS: dict[str, Kind] = {
    "output_text": "text",
    "refusal": "refusal",
    "summary_text": "reasoning",
    "reasoning_text": "reasoning",
}
_CITED = {"url_citation": "url", "file_citation": "file", "container_file_citation": "file", "file_path": "file"}
_CLIENT_CALLS = {
    "function_call": "function",
    "custom_tool_call": "custom",
    "local_shell_call": "local_shell",
    "apply_patch_call": "apply_patch",
    "computer_call": "computer",
    "mcp_approval_request": "mcp_approval",
}
_RESULTS = {
    "code_interpreter_call": "outputs",
    "file_search_call": "results",
    "mcp_call": "output",
    "mcp_list_tools": "tools",
    "image_generation_call": "result",
}
"""Where the items of own tools have the result."""

_NOT_NOTED = ("message", "function_call")


def derive(events: Iterable[Json]) -> Found:
    """Read the events in order."""
    reader = _Reader()
    for event in events:
        reader.read(event)
    return reader.found


class _Reader:
    def __init__(self) -> None:
        self.found = Found()
        self._phases: dict[int, str | None] = {}  # of items, by their index
        self._starts: dict[tuple[int, int], int] = {}  # where in the text a content part begins
        self._shells: dict[str, str] = {}  # names of calls with their outputs in items of their own

    def read(self, event: Json) -> None:
        kind = event["type"]
        if kind in _TEXT:
            self.found.say(_TEXT[kind], event["delta"])
            for item in event.get("logprobs") or ():
                self.found.token(item)
        elif kind == "response.output_item.added":
            self._phases[event["output_index"]] = event["item"].get("phase")
        elif kind.endswith("_part.added"):
            self._start_part(event)
        elif kind == "response.output_text.annotation.added":
            self._cite(event)
        elif kind == "response.image_generation_call.partial_image":
            mime = f"image/{event['output_format']}" if "output_format" in event else None
            self.found.medium("image", event["partial_image_b64"], is_partial=True, mime=mime, id=event["item_id"])
        elif kind == "response.output_item.done":
            self._close_item(event["item"])
        elif "response" in event:
            self._read_response(event["response"])

    def _start_part(self, event: Json) -> None:
        index = event["output_index"]
        kind = _PARTS[event["part"]["type"]]
        self.found.joint(kind, self._phases.get(index))
        if kind == "text":
            self._starts[index, event["content_index"]] = self.found.written

    def _cite(self, event: Json) -> None:
        annotation = event["annotation"]
        start, end = annotation.get("start_index"), annotation.get("end_index")
        origin = self._starts[event["output_index"], event["content_index"]]
        self.found.cite(
            (origin + start, origin + end) if end else None,
            kind=_CITED[annotation["type"]],
            url=annotation.get("url"),
            id=annotation.get("file_id"),
            title=annotation.get("title") or annotation.get("filename"),
        )

    def _close_item(self, item: Json) -> None:
        found, kind = self.found, item["type"]
        identifier: str = item.get("call_id") or item["id"]
        if kind == "reasoning":
            found.reasoning(kind, item.get("encrypted_content") or "")
        elif kind == "shell_call_output":
            found.server_tool("result", identifier, self._shells[identifier])
        elif _is_for_client(item):
            found.calls += 1
            if kind != "function_call":
                found.call_types.append([identifier, _CLIENT_CALLS.get(kind, "shell")])
            return
        elif kind in ("custom_tool_call", "mcp_list_tools") or kind.endswith("_call"):
            name = item["name"] if kind == "custom_tool_call" else kind.removesuffix("_call")
            self._shells[identifier] = name
            found.server_tool("call", identifier, name)
            if kind == "image_generation_call" and item.get("result"):
                mime = f"image/{item['output_format']}" if "output_format" in item else None
                found.medium("image", item["result"], mime=mime, id=item["id"])
            elif item.get(_RESULTS.get(kind, "")) is not None:
                found.server_tool("result", identifier, name)
        if kind not in _NOT_NOTED:
            found.block(kind, item.get("id"))

    def _read_response(self, response: Json) -> None:
        found = self.found
        found.response_id(response.get("id"))
        filters = response.get("content_filters")
        usage = response.get("usage") or {}
        found.says(
            service_tier=response.get("service_tier"),
            moderation={"content_filters": filters} if filters else None,
            cost=usage.get("cost"),
        )
        if usage:
            chat_counts(found, usage, "input", "output")


def _is_for_client(item: Json) -> bool:
    """Whether the client must act on an item: not on xAI's searches, nor on a shell in a container of the provider."""
    kind = item["type"]
    if kind == "custom_tool_call":
        return not str(item.get("call_id")).startswith("xs_call")
    if kind == "shell_call":
        return (item.get("environment") or {}).get("type") == "local"
    return kind in _CLIENT_CALLS
