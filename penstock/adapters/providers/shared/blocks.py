"""What an assistant's message gives back to the provider that made it: blocks in the provider's own form, in order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from penstock.adapters.providers.shared.json_values import count_of, text_of
from penstock.events import ProviderBlock, ReasoningBlock

__all__ = ["CALL_EXTRAS", "Text", "count_foreign_blocks", "interleaved", "own_blocks", "place_of_call"]

Called = TypeVar("Called")

CALL_EXTRAS: Final = "tool_call.extra_content"
"""The ``type`` of a block that holds what a chat provider sent with a call (Gemini's signature)."""


class Text(msgspec.Struct, frozen=True):
    """A piece of the message's text, never empty."""

    text: str


def own_blocks(message: Mapping[str, Any], provider: str) -> list[ProviderBlock] | None:
    """Read the message's ``provider_blocks`` (dicts or `ProviderBlock`) that ``provider`` made; ``""`` takes all.

    None: there are none. What is not a block is skipped; a place that is no count becomes 0.
    """
    blocks = [block for block in _blocks_of(message) if not provider or block.provider in ("", provider)]
    return blocks or None


def _blocks_of(message: Mapping[str, Any]) -> Iterator[ProviderBlock]:
    given = message.get("provider_blocks")
    for item in given if isinstance(given, (list, tuple)) else ():
        if isinstance(item, ProviderBlock):
            yield item
        elif isinstance(item, Mapping) and isinstance(item.get("data"), Mapping):
            yield ProviderBlock(
                provider=text_of(item.get("provider")),
                data=item["data"],
                at=count_of(item.get("at")) or 0,
                calls=count_of(item.get("calls")) or 0,
            )


def interleaved(
    text: str, calls: Sequence[Called], blocks: Iterable[ProviderBlock]
) -> Iterator[Text | Called | Mapping[str, Any]]:
    """Put a message together as the model wrote it: its text in pieces, its calls, and the data of its blocks.

    Between two blocks, text comes before calls. Places outside of the message count as its end.

    >>> block = ProviderBlock(provider="p", data={"type": "thinking"}, at=2, calls=1)
    >>> list(interleaved("Hello", ["call"], [block]))
    [Text(text='He'), 'call', {'type': 'thinking'}, Text(text='llo')]
    """
    at = called = 0
    for block in blocks:
        if block.at > at and at < len(text):
            yield Text(text[at : block.at])
            at = block.at
        if block.calls > called:
            yield from calls[called : block.calls]
            called = block.calls
        yield block.data
    if at < len(text):
        yield Text(text[at:])
    yield from calls[called:]


def place_of_call(ids: Sequence[str], name: str, calls: int) -> int | None:
    """The place of the call that a block belongs to; None: the message does not have it.

    Args:
        ids: of the message's calls. Behind the provider's own there may be numbers: ``"call_0_2"``, ``"c_1_2"``.
        name: the id that the provider gave it; ``""`` if it gave none.
        calls: how many calls came up to the block: the last of them, unless its id is another one.

    >>> place_of_call(["call_0_2", "call_1"], "call_0", 1), place_of_call(["a", "b"], "b", 1)
    (0, 1)
    """
    place = calls - 1
    if 0 <= place < len(ids):
        numbered = re.compile(rf"{re.escape(name)}(_[1-9]\d*)*")
        if not name or numbered.fullmatch(ids[place]):
            return place
    return next((at for at, own in enumerate(ids) if name and own == name), None)


def count_foreign_blocks(messages: object, provider: str) -> int:
    """How many blocks the messages have that another provider made, and that ``provider`` does not get.

    Signatures of calls are among them (``signed_by``). Blocks of signed reasoning count once, even if they stand in
    ``reasoning_blocks`` and ``provider_blocks``; so do signatures that have a block.
    """
    count = 0
    for message in messages if isinstance(messages, (list, tuple)) else ():
        if not isinstance(message, Mapping):
            continue
        sealed = list(_blocks_of(message))
        count += sum(block.provider not in ("", provider) for block in sealed)
        reasoning = message.get("reasoning_blocks")
        for block in reasoning if not sealed and isinstance(reasoning, (list, tuple)) else ():
            maker = block.provider if isinstance(block, ReasoningBlock) else _maker_of(block)
            count += maker not in (None, "", provider)
        signed = _foreign_signatures(message, provider)
        count += max(0, signed - sum(block.data.get("type") == CALL_EXTRAS for block in sealed)) if signed else 0
    return count


def _foreign_signatures(message: Mapping[str, Any], provider: str) -> int:
    calls = message.get("tool_calls")
    return sum(
        isinstance(call, Mapping) and bool(call.get("signature")) and call.get("signed_by") not in (None, "", provider)
        for call in (calls if isinstance(calls, (list, tuple)) else ())
    )


def _maker_of(block: object) -> object:
    return block.get("provider") if isinstance(block, Mapping) else None
