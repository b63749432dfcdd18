"""Items of an answer that go back to the Responses API with the next request, as the API sent them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from penstock.adapters.providers.openai.responses_items import (
    OUTPUTS_OF_HOSTED,
    SEALED,
    identifier_of,
    is_for_client,
    is_hosted,
)
from penstock.adapters.providers.shared.blocks import place_of_call
from penstock.adapters.providers.shared.json_values import text_of
from penstock.events import ProviderBlock

__all__ = ["exact_calls", "returned_blocks"]


def returned_blocks(
    blocks: Iterable[ProviderBlock], calls: Sequence[Mapping[str, Any]], *, is_stored: bool
) -> list[ProviderBlock]:
    """Choose the blocks that the API takes in this request; calls of the message stand among its calls.

    Left out: blocks of other dialects, what the API refers to by its id although it stores nothing, and a call without
    its result, or a result without its call.
    """
    blocks = [block for block in blocks if _is_item(block.data)]
    asked = {identifier_of(call) for call in calls}
    ran = {identifier_of(block.data) for block in blocks if block.data.get("type") not in OUTPUTS_OF_HOSTED}
    answered = {identifier_of(block.data) for block in blocks if block.data.get("type") in OUTPUTS_OF_HOSTED}
    chosen = []
    for block in blocks:
        item, name = block.data, identifier_of(block.data)
        if is_for_client(item):
            is_wanted = name in answered and name not in asked
        elif item["type"] in OUTPUTS_OF_HOSTED:
            is_wanted = not item.get("call_id") or (name in ran and name not in asked)
        else:
            is_wanted = _is_readable(item, is_stored=is_stored)
        if is_wanted:
            chosen.append(block)
    return chosen


def _is_item(data: Mapping[str, Any]) -> bool:
    """Whether this is an item that the decoder of this API gives back; other dialects have other types."""
    kind = text_of(data.get("type"))
    return kind == "reasoning" or kind in OUTPUTS_OF_HOSTED or kind in SEALED or is_hosted(kind) or is_for_client(data)


def _is_readable(item: Mapping[str, Any], *, is_stored: bool) -> bool:
    if item["type"] == "reasoning":
        return bool(item.get("encrypted_content") or item.get("content") or (is_stored and item.get("id")))
    if item["type"] == "image_generation_call":
        return bool(item.get("result") or (is_stored and item.get("id")))
    return True


def exact_calls(calls: Sequence[dict[str, Any]], blocks: Iterable[ProviderBlock]) -> list[dict[str, Any]]:
    """Put the item that the API sent in the place of each call that was made of it. The call's id stays."""
    exact = list(calls)
    ids = [identifier_of(call) for call in calls]
    for block in blocks:
        if not is_for_client(block.data) or not (name := identifier_of(block.data)):
            continue
        place = place_of_call(ids, name, block.calls)
        if place is not None and calls[place]["type"] == block.data["type"]:
            field = "id" if block.data["type"] == "mcp_approval_request" else "call_id"
            exact[place] = {**block.data, field: ids[place]}
    return exact
