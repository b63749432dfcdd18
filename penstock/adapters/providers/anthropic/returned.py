"""The blocks of the Messages API that go back to it, each in its place in the assistant's message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.adapters.providers.anthropic.blocks import RETURNED, RETURNED_ENDING, SERVER_CALLS
from penstock.adapters.providers.shared.blocks import Text, interleaved, own_blocks, place_of_call
from penstock.adapters.providers.shared.json_values import text_of
from penstock.adapters.providers.shared.messages import content_text
from penstock.events import ProviderBlock

__all__ = ["Returned", "container_id", "in_order", "returned_blocks"]

_NEITHER: Final = ("assistant", "tool")


class Returned(msgspec.Struct, frozen=True):
    """What one message gives back.

    ``programmed``: the calls that programs of the model's have made, each with its ``caller``.
    """

    blocks: Sequence[ProviderBlock] = ()
    programmed: Sequence[ProviderBlock] = ()

    def callers(self, ids: Sequence[str]) -> dict[int, Mapping[str, Any]]:
        """The programs by the places of the calls that they made. ``ids``: those of the message's calls."""
        found: dict[int, Mapping[str, Any]] = {}
        for block in self.programmed:
            place = place_of_call(ids, text_of(block.data.get("id")), block.calls)
            if place is not None:
                found[place] = block.data["caller"]
        return found


def returned_blocks(messages: Sequence[Mapping[str, Any]], provider: str) -> list[Returned]:
    """Read what each message gives back to ``provider``.

    The API refuses a call of one of its own tools without its result, and a result without its call. Both are left out;
    the call only if the user has said something since, for otherwise its result may be what is asked for: the provider
    has paused, or its program waits for the results of the client's tools.
    """
    given = [_known(own_blocks(message, provider) or ()) if _is_answer(message) else [] for message in messages]
    last_said = _last_said(messages)
    calls: dict[str, int] = {}
    results: set[str] = set()
    for at, blocks in enumerate(given):
        for block in blocks:
            if block.data["type"] in SERVER_CALLS:
                calls[text_of(block.data.get("id"))] = at
            elif block.data["type"].endswith(RETURNED_ENDING):
                results.add(text_of(block.data.get("tool_use_id")))
    unpaired = {call for call, at in calls.items() if call not in results and at < last_said} | (results - set(calls))
    return [_returned(blocks, unpaired) for blocks in given]


def container_id(messages: Sequence[Mapping[str, Any]], provider: str) -> str:
    """The container in which programs of the present turn run; ``""`` if there is none.

    The API refuses a request without it while one of them waits for results. Containers of earlier turns may have
    expired, which the API refuses too.

    See https://platform.claude.com/docs/en/agents-and-tools/tool-use/programmatic-tool-calling.
    """
    answers = [message for message in messages[_last_said(messages) :] if _is_answer(message)]
    blocks = [block.data for message in answers for block in own_blocks(message, provider) or ()]
    ids = [text_of(data.get("id")) for data in blocks if data.get("type") == "container"]
    return ids[-1] if ids else ""


def _last_said(messages: Sequence[Mapping[str, Any]]) -> int:
    """Where the user has spoken last."""
    return max((at for at, message in enumerate(messages) if message["role"] not in _NEITHER), default=0)


def _is_answer(message: Mapping[str, Any]) -> bool:
    return bool(message["role"] == "assistant")


def _known(blocks: Sequence[ProviderBlock]) -> list[ProviderBlock]:
    """The blocks of types that the API accepts from an assistant."""
    return [block for block in blocks if _is_known(text_of(block.data.get("type")))]


def _is_known(kind: str) -> bool:
    return kind in RETURNED or kind in SERVER_CALLS or kind.endswith(RETURNED_ENDING)


def _returned(blocks: Sequence[ProviderBlock], unpaired: set[str]) -> Returned:
    kept: list[ProviderBlock] = []
    programmed: list[ProviderBlock] = []
    for block in blocks:
        data = block.data
        if data["type"] == "tool_use":
            caller = data.get("caller")
            if isinstance(caller, Mapping) and caller.get("tool_id") not in unpaired:
                programmed.append(block)
        elif text_of(data.get("id")) not in unpaired and text_of(data.get("tool_use_id")) not in unpaired:
            kept.append(block)
    return Returned(kept, programmed)


def in_order(
    parts: Sequence[dict[str, Any]],
    calls: Sequence[dict[str, Any]],
    blocks: Sequence[ProviderBlock],
    translate: Callable[[dict[str, Any]], dict[str, Any] | None],
) -> list[dict[str, Any]]:
    """Put a message together as the model wrote it.

    Text parts are cut where a block stands. ``translate`` makes a block of a part or a piece of one, or None.
    """
    made: list[dict[str, Any]] = []
    waiting = list(blocks)
    offset = called = 0
    for part in parts:
        text = content_text(part)
        inside = [block for block in waiting if block.at < offset + len(text)]
        cut = sum(block.at > offset for block in inside)
        until = max([called, *(block.calls for block in inside)])
        written = 0
        for item in interleaved(text, calls[called:until], [_moved(block, offset, called) for block in inside]):
            if not isinstance(item, Text):
                made.append(dict(item))
                continue
            written += len(item.text)
            piece = _piece(part, item.text, is_last=written == len(text)) if cut else part
            if (block := translate(piece)) is not None:
                made.append(block)
        if not text and (own := translate(part)) is not None:
            made.append(own)
        waiting = [block for block in waiting if block.at >= offset + len(text)]
        offset, called = offset + len(text), until
    rest = interleaved("", calls[called:], [_moved(block, offset, called) for block in waiting])
    return [*made, *(dict(item) for item in rest if not isinstance(item, Text))]


def _moved(block: ProviderBlock, offset: int, called: int) -> ProviderBlock:
    return msgspec.structs.replace(block, at=max(0, block.at - offset), calls=max(0, block.calls - called))


def _piece(part: Mapping[str, Any], text: str, *, is_last: bool) -> dict[str, Any]:
    """A piece of a text part. Only the last one ends what is cached."""
    others = {name: value for name, value in part.items() if is_last or name != "cache_control"}
    return {**others, "type": "text", "text": text}
