"""Requests to ``POST /v1/responses``, and the conversation that a request with ``previous_response_id`` continues."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.adapters.providers.chat_items import MARK, items_to_messages
from penstock.errors import OptionError
from penstock.events import FrozenDict, StreamCompleted, TerminalEvent, ToolCall, ToolResult
from penstock.gateway.problems import Problem, RequestRefused, type_name
from penstock.gateway.requests.asked import Asked
from penstock.gateway.requests.own_fields import model_of, model_parameters, own_fields, wrong

__all__ = ["Terms", "continued", "parse", "previous_not_found", "terms"]

_OURS: Final = frozenset({"model", "input", "stream", "background", "previous_response_id", "penstock"})
"""Fields that are not the model's parameters."""
_TYPES: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    "stream": ((bool,), "true or false"),
    "background": ((bool,), "true or false"),
    "store": ((bool,), "true or false"),
    "parallel_tool_calls": ((bool,), "true or false"),
    "instructions": ((str, list), "a text, or a list of items"),
    "previous_response_id": ((str,), "the id of a response"),
    "metadata": ((dict,), "an object"),
    "tools": ((list,), "a list of tools"),
    "include": ((list,), "a list of names"),
    "text": ((dict,), "an object"),
    "reasoning": ((dict,), "an object"),
}
_OWN_IDS: Final = re.compile(r"(msg|rs|fc|ctc)_resp_.+_\d+")
"""Ids of items that this gateway has made. No provider knows them."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says of the response itself, which is the gateway's business.

    Attributes:
        previous_response_id: the response that it continues; see `continued`.
        is_stored: whether the response can be had again after its end.
        is_background: whether it is answered at once, and runs on without readers.
    """

    previous_response_id: str | None = None
    is_stored: bool = True
    is_background: bool = False


def parse(body: Mapping[str, Any]) -> Asked:
    """Read a request.

    ``previous_response_id`` and ``background`` are left to the gateway (see `terms`); all other fields that are not
    known go to the provider.

    Raises:
        RequestRefused: ``model`` or ``input`` is missing, or a field has a wrong type.
    """
    if not isinstance(body, Mapping):
        raise RequestRefused.bad_request(f"The body is {type_name(body)}. It must be an object.")
    for name, (allowed, words) in _TYPES.items():
        value = body.get(name)
        if value is not None and not isinstance(value, allowed):
            raise wrong(name, value, words)
    model = model_of(body)
    own = own_fields(body)
    if body.get("background") is True:
        own.setdefault("on_orphan", "continue")
    return Asked(
        api="responses",
        model=model,
        input=_input_of(body),
        parameters=FrozenDict(model_parameters({name: body[name] for name in body if name not in _OURS})),
        is_streamed=body.get("stream") is True,
        **own,
    )


def terms(body: Mapping[str, Any]) -> Terms:
    """What a request, which `parse` has accepted, says of the response itself."""
    return Terms(
        previous_response_id=body.get("previous_response_id"),
        is_stored=body.get("store") is not False,
        is_background=body.get("background") is True,
    )


def previous_not_found() -> RequestRefused:
    """The error for a ``previous_response_id`` that is not known, or was not stored."""
    message = "There is no response with this id, or it was not stored."
    return RequestRefused(
        Problem(
            status=400,
            type="invalid_request_error",
            code="previous_response_not_found",
            message=message,
            param="previous_response_id",
        )
    )


# --- fields ----------------------------------------------------------------------------------------------------------


def _input_of(body: Mapping[str, Any]) -> Any:
    given = body.get("input")
    if given is None:
        if any(body.get(name) is not None for name in ("previous_response_id", "conversation", "prompt")):
            return []
        raise wrong("input", None, "a text, or a list of items")
    if isinstance(given, str):
        return given
    if not isinstance(given, list):
        raise wrong("input", given, "a text, or a list of items")
    for number, item in enumerate(given):
        if not isinstance(item, dict):
            raise wrong(f"input[{number}]", item, "an item")
    return _restored(given)


# --- items that were made here ---------------------------------------------------------------------------------------


def _restored(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items as their provider knows them.

    Those with what another API than this one has signed become messages of a chat, which every provider's adapter can
    take apart. Others only get their ids back, or lose those that were made here.
    """
    made: list[dict[str, Any]] = []
    turn: list[dict[str, Any]] = []
    for item in items:
        if _is_assistants(item):
            turn.append(item)
            continue
        made += _restored_turn(turn)
        turn = []
        made.append(_with_own_id(item))
    return made + _restored_turn(turn)


def _is_assistants(item: Mapping[str, Any]) -> bool:
    kind = item.get("type")
    if kind is None or kind == "message":
        return item.get("role") == "assistant"
    return isinstance(kind, str) and not kind.endswith(("_output", "_response"))


def _restored_turn(turn: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not any(_is_foreign(item) for item in turn):
        return [_with_own_id(item) for item in turn]
    try:
        return items_to_messages(turn)
    except OptionError:  # among them is what has no form in a chat; the provider's adapter will say so
        return [_with_own_id(item) for item in turn]


def _is_foreign(item: Mapping[str, Any]) -> bool:
    mark = item.get(MARK)
    if not isinstance(mark, Mapping):
        return False
    return bool(mark.get("signature")) or mark.get("kind") not in (None, "reasoning")


def _with_own_id(item: dict[str, Any]) -> dict[str, Any]:
    mark, identifier = item.get(MARK), item.get("id")
    if mark is None and not (isinstance(identifier, str) and _OWN_IDS.fullmatch(identifier)):
        return item
    restored = {name: value for name, value in item.items() if name not in (MARK, "id")}
    if isinstance(mark, Mapping) and isinstance(mark.get("id"), str):
        return {"id": mark["id"], **restored}
    return restored


# --- responses that are continued ------------------------------------------------------------------------------------


def continued(
    previous: TerminalEvent,
    previous_input: Any,
    body: Mapping[str, Any],
    results: Iterable[ToolResult] = (),
) -> list[Any]:
    """The input of a request that continues an earlier response: its input, its answer, and what is new.

    The answer is a message of a chat, with the signed reasoning and the blocks that its provider needs back; adapters
    for the Responses API make items of it. Instructions of the earlier request are not carried over, as in the API.

    Args:
        previous: how the earlier response ended.
        previous_input: its whole input: for a response that itself continues one, what this function returned.
        body: the new request.
        results: of calls that were run here, in an agent's turn.
    """
    items = [*_listed(previous_input), *_answer_of(previous, list(results), _answered(body))]
    return items + _listed(_input_of({"previous_response_id": "", **body}))


def _listed(given: Any) -> list[Any]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}] if given else []
    return list(given) if isinstance(given, (list, tuple)) else []


def _answered(body: Mapping[str, Any]) -> set[str]:
    """The ids of calls of which the request has results."""
    given = body.get("input")
    items = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
    names = ("call_id", "approval_request_id", "tool_call_id")
    return {item[name] for item in items for name in names if isinstance(item.get(name), str)}


def _answer_of(event: TerminalEvent, results: Sequence[ToolResult], answered: set[str]) -> list[dict[str, Any]]:
    """The messages of an answer. Calls that nothing answers are left out unless the model waits for their results."""
    waits = isinstance(event, StreamCompleted) and event.finish_reason == "tool_calls"
    told = answered | {result.call_id for result in results}
    own = [call for call in event.tool_calls if not call.is_server]
    calls = [call for call in own if call.id in told or (waits and call.arguments is not None)]
    text = event.text if not results else ""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if event.refusal:
        message["refusal"] = event.refusal
    if calls:
        message |= {"content": text or None, "tool_calls": [_call(call) for call in calls]}
    if event.provider_blocks:
        message["provider_blocks"] = [msgspec.to_builtins(block) for block in event.provider_blocks]
    elif event.reasoning_blocks:
        message["reasoning_blocks"] = [msgspec.to_builtins(block) for block in event.reasoning_blocks]
    if not (event.text or event.refusal or calls or event.provider_blocks or event.reasoning_blocks):
        return []
    if not results:
        return [message]
    after = {"role": "assistant", "content": event.text}
    ran = [{"role": "tool", "tool_call_id": one.call_id, "content": one.content} for one in results]
    blocks = {name: message.pop(name) for name in ("provider_blocks", "reasoning_blocks") if name in message}
    return [message, *ran, after | blocks] if calls else [message | after | blocks]


def _call(call: ToolCall) -> dict[str, Any]:
    if call.type == "custom":
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments_raw}}
    arguments = call.arguments_raw if call.arguments_raw.strip() not in ("", "null") else "{}"
    made: dict[str, Any] = {"id": call.id, "type": call.type}
    made["function"] = {"name": call.name, "arguments": arguments}
    signed = {"signature": call.signature, "signed_by": call.signed_by}
    return made | {name: text for name, text in signed.items() if text}
