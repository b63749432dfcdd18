"""The calls of a Responses answer: those for the client in fragments, those of the provider's own tools as events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.adapters.providers.openai.responses_events import CALL_ITEMS, ResponsesEvent, payload_of
from penstock.adapters.providers.openai.responses_items import (
    CLIENT_CALLS,
    OUTPUTS_OF_HOSTED,
    action_of,
    call_id_of,
    identifier_of,
    is_for_client,
    name_of,
    picture_of,
    returned_item,
    server_call,
    server_result,
)
from penstock.adapters.providers.openai.responses_parts import rest_of
from penstock.adapters.providers.shared.json_values import decode_json, text_of
from penstock.ports import BlockDelta, Delta, EventDelta, ToolCallFragment

__all__ = ["ToolItems"]


class ToolItems:
    """Reads items that are calls or results, and the pieces of arguments that come apart from their items."""

    def __init__(self, skip: Callable[[str, object], None]) -> None:
        self.client: set[int | None] = set()  # output indices of calls that the client must act on
        self.is_stored = True  # the provider keeps the response, so that a picture goes back by its id
        self._skip = skip
        self._pieces: dict[int | None, list[str]] = {}  # arguments, by output index
        self._named: set[int | None] = set()  # output indices of calls that have begun with their item
        self._hosted: set[int | None] = set()  # output indices of calls that the provider runs
        self._uncertain: dict[str, tuple[int | None, dict[str, Any]]] = {}  # shell calls without an environment
        self._unnumbered = 0  # calls for which an id was made up
        self._last_search = ""  # the id of the last tool search, for a result without one
        self._has_come = False

    def copy(self, skip: Callable[[str, object], None]) -> ToolItems:
        """The same, to be continued apart from this."""
        other = ToolItems(skip)
        other._pieces = {index: list(pieces) for index, pieces in self._pieces.items()}
        for name in ("client", "_named", "_hosted", "_uncertain"):
            setattr(other, name, getattr(self, name).copy())
        for name in ("is_stored", "_unnumbered", "_last_search", "_has_come"):
            setattr(other, name, getattr(self, name))
        return other

    @property
    def has_come(self) -> bool:
        """Whether anything has been told of calls."""
        return self._has_come

    # --- functions and custom tools, in pieces ------------------------------------------------------------------------

    def begin(self, index: int | None, item: dict[str, Any], out: list[Delta]) -> None:
        """Append the start of a call, with the arguments that its item has."""
        if index in self._named:
            return
        self._named.add(index)
        kind = text_of(item.get("type"))
        is_hosted = not is_for_client(item)
        (self._hosted if is_hosted else self.client).add(index)
        arguments = "" if self._pieces.get(index) else text_of(item.get(CALL_ITEMS[kind]))
        if arguments:
            self._pieces[index] = [arguments]
        self._append(index, out, arguments, item, is_hosted=is_hosted, type="" if is_hosted else CLIENT_CALLS.get(kind))

    def add(self, event: ResponsesEvent, out: list[Delta]) -> None:
        """Append a piece of a call's arguments."""
        if text := text_of(event.delta):
            index = event.output_index
            pieces = self._pieces.get(index)
            if pieces is None:
                pieces = self._pieces[index] = []
                self._has_come = True
                if index not in self._hosted:
                    self.client.add(index)
            pieces.append(text)
            out.append(ToolCallFragment(index, None, None, text, index in self._hosted))

    def close(self, event: ResponsesEvent, whole: object, out: list[Delta]) -> None:
        """Append what of the whole arguments has not come. If the pieces differ from them, the whole counts."""
        text, index = text_of(whole), event.output_index
        if not text:
            return
        pieces = self._pieces.get(index)
        came = "".join(pieces) if pieces else ""
        self._pieces[index] = [text]
        if came == text:
            return
        rest = rest_of(came, text)
        if rest is None and _is_same_json(came, text):
            return
        if index not in self._hosted:
            self.client.add(index)
        if rest is None:
            self._skip(event.type, payload_of(event))
            self._append(index, out, text, replaces=True)
        elif rest:
            self._append(index, out, rest)

    def _append(
        self,
        index: int | None,
        out: list[Delta],
        arguments: str,
        item: dict[str, Any] | None = None,
        *,
        is_hosted: bool | None = None,
        type: str | None = None,
        replaces: bool = False,
    ) -> None:
        self._has_come = True
        out.append(
            ToolCallFragment(
                index,
                (identifier_of(item) if item else "") or None,
                (name_of(item) if item else "") or None,
                arguments,
                index in self._hosted if is_hosted is None else is_hosted,
                type=type or "",
                replaces=replaces,
            )
        )

    # --- whole items --------------------------------------------------------------------------------------------------

    def done(self, event: ResponsesEvent, item: dict[str, Any], out: list[Delta]) -> None:
        """Append what the whole item of a function or a custom tool has besides what has come."""
        index, kind = event.output_index, text_of(item.get("type"))
        self.begin(index, item, out)
        self.close(event, item.get(CALL_ITEMS[kind]), out)
        if index in self._hosted:
            self.ran(item, out)
        elif any(item.get(name) for name in ("namespace", "async")) or _is_of_program(item.get("caller")):
            self.return_later(item, out)  # more than a chat message's call can hold

    def act(self, index: int | None, item: dict[str, Any], out: list[Delta]) -> None:
        """Append a call that the client must act on, and that is neither a function nor a custom tool."""
        kind = text_of(item["type"])
        action = action_of(item)
        if action is None:
            self._skip(kind, item)
            return
        self.client.add(index)
        self._has_come = True
        identifier, name = identifier_of(item), CLIENT_CALLS[kind]
        out.append(
            ToolCallFragment(index, identifier or None, name_of(item) or name, action, type=name),
        )
        if kind == "shell_call" and not item.get("environment"):
            self._uncertain[identifier] = index, item
        self.return_later(item, out)

    def ran(self, item: dict[str, Any], out: list[Delta]) -> None:
        """Append a call of one of the provider's own tools, its result if the item has it, and the item itself."""
        identifier = identifier_of(item)
        if not identifier:
            identifier = f"server_{self._unnumbered}"
            self._unnumbered += 1
        kind = item.get("type")
        if kind == "tool_search_call":
            self._last_search = identifier
        out.append(EventDelta(server_call(item, identifier)))
        if kind == "image_generation_call" and (found := picture_of(item)) is not None:
            out.append(EventDelta(found))
        if (result := server_result(item, identifier)) is not None:
            out.append(EventDelta(result))
        self.return_later(item, out)

    def answered(self, item: dict[str, Any], out: list[Delta]) -> None:
        """Append the result of one of the provider's own tools, which is an item of its own.

        A shell call that seemed to be for the client was not, if its output comes too.
        """
        identifier = call_id_of(item)
        if not identifier and item["type"] == "tool_search_output":
            identifier = self._last_search
        identifier = identifier or identifier_of(item)
        if (known := self._uncertain.pop(identifier, None)) is not None:
            index, call = known
            self.client.discard(index)
            out.append(ToolCallFragment(index, is_server=True))
            out.append(EventDelta(server_call(call, identifier)))
        result = server_result(item, identifier)
        if result is None:
            self._skip(OUTPUTS_OF_HOSTED[item["type"]][0], item)
            return
        out.append(EventDelta(result))
        self.return_later(item, out)

    def return_later(self, item: dict[str, Any], out: list[Delta]) -> None:
        """Append the item as a block that goes back with the next request."""
        self._has_come = True
        returned = returned_item(item, is_stored=self.is_stored)
        if returned is None:
            self._skip(text_of(item.get("type")), item)
        else:
            out.append(BlockDelta(returned))


def _is_of_program(caller: object) -> bool:
    return isinstance(caller, dict) and caller.get("type") == "program"


def _is_same_json(one: str, other: str) -> bool:
    """Whether both are the same JSON in other words, such as with other spaces."""
    try:
        return bool(decode_json(one) == decode_json(other))
    except (ValueError, RecursionError):
        return False
