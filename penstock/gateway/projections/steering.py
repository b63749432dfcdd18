"""Input that is added to an answer under way: what is allowed in it, and what follows the answer's end.

Both WebSockets follow it: the Responses API's (``response.steer``) and the native one (``steer``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from penstock.events import StreamCancelled, StreamCompleted, StreamFailed, TerminalEvent, ToolCall
from penstock.gateway.projections.responses_object import STEERED

__all__ = [
    "MOST_STEERED_BYTES",
    "MOST_STEERS",
    "Follows",
    "input_items",
    "required_input",
    "what_follows",
    "wrong_input",
    "wrong_steer",
]

MOST_STEERS: Final = 16
"""Inputs that may wait for the end of one answer."""
MOST_STEERED_BYTES: Final = 16 * 1_048_576
"""Bytes of them together, as JSON. A single one may be larger."""

Follows: TypeAlias = Literal["successor", "results", "nothing"]
"""What follows an answer into which input was steered.

``"successor"``: an answer to the conversation so far with that input. ``"results"``: the model waits for results of
the client's tools first. ``"nothing"``: the answer failed or was given up.
"""

_OUTPUTS: Final = {
    "function": "function_call_output",
    "custom": "custom_tool_call_output",
    "computer": "computer_call_output",
    "shell": "shell_call_output",
    "local_shell": "local_shell_call_output",
    "apply_patch": "apply_patch_call_output",
    "tool_search": "tool_search_output",
}
_STEER_FIELDS: Final = frozenset({"type", "previous_response_id", "input"})
_MESSAGE_FIELDS: Final = frozenset({"type", "role", "content"})
_PARTS: Final = frozenset({"input_text", "input_image", "input_file"})


def wrong_steer(message: Mapping[str, Any]) -> str:
    """What is wrong with a message that steers; ``""``: nothing."""
    if not _STEER_FIELDS.issuperset(message):
        return "response.steer takes only type, previous_response_id and input."
    return wrong_input(message.get("input"))


def wrong_input(given: object) -> str:
    """What is wrong with the input; ``""``: nothing."""
    if isinstance(given, str):
        return "" if given else "input is empty."
    if not isinstance(given, list) or not given:
        return "input must be a text, or a list of messages that is not empty."
    for number, item in enumerate(given):
        if not isinstance(item, dict) or item.get("role") != "user" or item.get("type", "message") != "message":
            return f"input[{number}] must be a message of the role user."
        if not _MESSAGE_FIELDS.issuperset(item):
            return f"input[{number}] may have type, role and content only."
        content = item.get("content")
        parts = content if isinstance(content, list) else []
        if not isinstance(content, str) and not parts:
            return f"input[{number}].content must be a text, or a list of parts that is not empty."
        if not all(isinstance(part, dict) and part.get("type") in _PARTS for part in parts):
            return f"input[{number}].content may have parts of input_text, input_image and input_file only."
    return ""


def input_items(given: Any) -> list[Any]:
    """The input as items: a text becomes a message of the user."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}] if given else []
    return list(given) if isinstance(given, list) else []


def what_follows(event: TerminalEvent) -> Follows:
    """What follows an answer that input was steered into, by its end."""
    if required_input(event):
        return "results"
    is_given_up = isinstance(event, StreamCancelled) and event.reason != STEERED
    return "nothing" if is_given_up or isinstance(event, StreamFailed) else "successor"


def required_input(event: TerminalEvent) -> list[dict[str, Any]]:
    """What the client must send before the model can go on: one stub for each call that waits for its result."""
    if not isinstance(event, StreamCompleted) or event.finish_reason != "tool_calls":
        return []
    return list(_stubs(event.tool_calls))


def _stubs(calls: Sequence[ToolCall]) -> Iterator[dict[str, Any]]:
    for call in calls:
        if call.is_server:
            continue
        if call.type == "mcp_approval":
            yield {"type": "mcp_approval_response", "approval_request_id": call.id}
            continue
        stub = {"type": _OUTPUTS.get(call.type, "function_call_output"), "call_id": call.id}
        if call.type == "function":
            stub["name"] = call.name
        elif call.type == "tool_search":
            stub["execution"] = "client"
        yield stub
