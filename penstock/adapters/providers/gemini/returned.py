"""The parts that go back to Gemini as it sent them, each in its place in the model's message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.adapters.providers.gemini.parts import SIGNATURE, THOUGHT, TOOL_CALLS, TOOL_RESULTS
from penstock.adapters.providers.shared.blocks import Text, count_foreign_blocks, interleaved, own_blocks
from penstock.adapters.providers.shared.json_values import text_of
from penstock.adapters.providers.shared.messages import parse_reasoning_blocks
from penstock.events import ProviderBlock

__all__ = ["in_order", "made_by_others", "returned_parts"]

_NEITHER: Final = ("assistant", "model", "tool", "function")
_CLIENTS: Final = {"functionCall", "functionResponse"}
_CALL_OF: Final = dict(zip(TOOL_RESULTS, TOOL_CALLS, strict=True))
"""Kinds of results, each with the kind of its calls."""


def made_by_others(message: Mapping[str, Any], provider: str) -> bool:
    """Whether all of the message's blocks are of other providers, and so the signatures of its calls too."""
    if own_blocks(message, provider) or parse_reasoning_blocks(message, {THOUGHT}, provider):
        return False
    return count_foreign_blocks([message], provider) > 0


def returned_parts(messages: Sequence[Mapping[str, Any]], provider: str) -> list[list[ProviderBlock]]:
    """Read which parts each message gives back to ``provider``.

    A call of one of Google's own tools goes with its result. If the answer was cut off between them, the call is left
    out once the user has said something; a result without its call always is.
    """
    given = [_known(own_blocks(message, provider) or ()) if _is_answer(message) else [] for message in messages]
    last_said = max((at for at, message in enumerate(messages) if message["role"] not in _NEITHER), default=-1)
    unpaired = _unpaired(given, last_said)
    return [
        [block for number, block in enumerate(blocks) if (at, number) not in unpaired]
        for at, blocks in enumerate(given)
    ]


def _is_answer(message: Mapping[str, Any]) -> bool:
    return message["role"] in ("assistant", "model") and "parts" not in message


def _known(blocks: Sequence[ProviderBlock]) -> list[ProviderBlock]:
    """The blocks that are parts: signed ones, and those of Google's own tools. Calls are in the message itself."""
    return [
        block
        for block in blocks
        if (_kind_of(block) or text_of(block.data.get(SIGNATURE))) and not _CLIENTS & block.data.keys()
    ]


def _kind_of(block: ProviderBlock) -> str:
    """The field with a call or a result of one of Google's own tools; ``""``: the part has none."""
    return next((name for name in (*TOOL_CALLS, *TOOL_RESULTS) if isinstance(block.data.get(name), Mapping)), "")


def _unpaired(given: Sequence[Sequence[ProviderBlock]], last_said: int) -> set[tuple[int, int]]:
    """Which blocks have to be left out: the number of the message, and that of the block.

    A result belongs to the call of its id. If one of them has no id, it belongs to the first call without a result; a
    call may have several results.
    """
    unpaired: set[tuple[int, int]] = set()
    waiting: list[tuple[int, int, str, str]] = []
    answered: set[tuple[str, str]] = set()
    for at, blocks in enumerate(given):
        for number, block in enumerate(blocks):
            if not (kind := _kind_of(block)):
                continue
            given_id = text_of(block.data[kind].get("id"))
            if kind in TOOL_CALLS:
                waiting.append((at, number, kind, given_id))
                continue
            of_kind = [call for call in waiting if call[2] == _CALL_OF[kind]]
            fitting = [call for call in of_kind if call[3] == given_id] or [
                call for call in of_kind if not call[3] or not given_id
            ]
            if fitting:
                waiting.remove(fitting[0])
                answered |= {(kind, given_id), (kind, fitting[0][3])}
            elif (kind, given_id) not in answered:
                unpaired.add((at, number))
    return unpaired | {(at, number) for at, number, _, _ in waiting if at < last_said}


def in_order(
    content: Sequence[dict[str, Any]], calls: Sequence[dict[str, Any]], blocks: Sequence[ProviderBlock]
) -> list[dict[str, Any]]:
    """Put a message together as the model wrote it: parts of its content, parts with its calls, and its own parts.

    Text is cut where a part of its own stands. A part of its own that has text takes the place of that text.
    """
    made: list[dict[str, Any]] = []
    said = "".join(text_of(part.get("text")) for part in content)
    waiting = _begun(blocks, said)
    offset = called = taken = 0
    for part in content:
        end = offset + len(text_of(part.get("text")))
        inside = [_moved(block, offset, called) for block in waiting if block.at < end]
        waiting = [block for block in waiting if block.at >= end]
        until = called + max((block.calls for block in inside), default=0)
        taken = _add(part, calls[called:until], inside, taken, made)
        offset, called = end, until
    _add({}, calls[called:], [_moved(block, offset, called) for block in waiting], 0, made)
    return made


def _add(
    part: dict[str, Any],
    calls: Sequence[dict[str, Any]],
    blocks: Sequence[ProviderBlock],
    taken: int,
    made: list[dict[str, Any]],
) -> int:
    """Append a part of the content, which may be none, with what stands in it.

    ``taken``: how many characters of the text to come are in a part that has been appended; returns the same.
    """
    text = text_of(part.get("text"))
    for item in interleaved(text, calls, blocks):
        if isinstance(item, Text):
            words, taken = item.text[taken:], max(0, taken - len(item.text))
            made += [{**part, "text": words}] if words else []
        else:
            made.append(dict(item))
            taken += len(_signed_text(item))
    made += [part] if part and not text else []
    return taken


def _begun(blocks: Sequence[ProviderBlock], said: str) -> list[ProviderBlock]:
    """The blocks, each where its own text begins. If the message has other words there, the block gets none."""
    begun: list[ProviderBlock] = []
    reached = 0
    for block in blocks:
        if text := _signed_text(block.data):
            start = block.at - len(text)
            if start >= reached and said[start : block.at] == text:
                begun.append(msgspec.structs.replace(block, at=start))
            else:
                begun.append(msgspec.structs.replace(block, data={**block.data, "text": ""}))
        else:
            begun.append(block)
        reached = max(reached, block.at)
    return begun


def _signed_text(part: Mapping[str, Any]) -> str:
    """The text of the answer in a signed part; ``""``: it has none."""
    is_answer = bool(text_of(part.get(SIGNATURE))) and part.get("thought") is not True
    return text_of(part.get("text")) if is_answer else ""


def _moved(block: ProviderBlock, offset: int, called: int) -> ProviderBlock:
    return msgspec.structs.replace(block, at=max(0, block.at - offset), calls=max(0, block.calls - called))
