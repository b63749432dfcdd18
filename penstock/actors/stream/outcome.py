"""The outcome of an answer, everything that a terminal event reports beside the text, and its sum over rounds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.events import (
    Choice,
    Cost,
    FinishReason,
    FrozenDict,
    ProviderBlock,
    ReasoningBlock,
    ToolCall,
    Usage,
)

__all__ = ["Outcome", "add_costs", "add_usages", "all_rounds", "joined"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a provider reported except what the log has: text and events.

    ``text`` and ``reasoning`` are set only if the answer has several rounds (an agent's turn): those of this round.

    After a reset of the stream, the terminal event has only what came later, but the conversation goes on with all of
    it. ``is_void``: all of this round came before a reset. Else ``void_text``, ``void_reasoning_blocks`` and
    ``void_provider_blocks`` are how many characters and blocks, from the start, did.
    """

    finish_reason: FinishReason = "stop"
    raw_finish_reason: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    model: str | None = None
    provider: str | None = None
    reasoning_blocks: tuple[ReasoningBlock, ...] = ()
    choices: tuple[Choice, ...] = ()
    cost: Cost | None = None
    provider_blocks: tuple[ProviderBlock, ...] = ()
    provider_metadata: Mapping[str, Any] = FrozenDict()
    prediction: Mapping[str, Any] | None = None
    costs: Mapping[str, Cost | None] = FrozenDict()
    origin: str | None = None
    text: str = ""
    reasoning: str = ""
    is_void: bool = False
    void_text: int = 0
    void_reasoning_blocks: int = 0
    void_provider_blocks: int = 0

    def valid_reasoning_blocks(self) -> tuple[ReasoningBlock, ...]:
        """Those after the last reset."""
        return () if self.is_void else self.reasoning_blocks[self.void_reasoning_blocks :]

    def valid_provider_blocks(self) -> tuple[ProviderBlock, ...]:
        """Those after the last reset, counted from the text after it."""
        if self.is_void:
            return ()
        if not self.void_text and not self.void_provider_blocks:
            return self.provider_blocks
        return tuple(
            msgspec.structs.replace(block, at=max(0, block.at - self.void_text))
            for block in self.provider_blocks[self.void_provider_blocks :]
        )

    def __repr__(self) -> str:
        return f"Outcome(finish_reason={self.finish_reason!r}, tool_calls={len(self.tool_calls)})"


def add_usages(usages: Sequence[Usage | None], *, none_is_unknown: bool = False) -> Usage | None:
    """Sum each count over the usages that have it; a count that none of them has is None.

    The service tier is the last one. ``reported_cost`` is None unless all of them have it: a part of it would look like
    the whole. ``none_is_unknown``: a None stands for a usage that was not reported, and not for none at all.

    >>> both = add_usages([Usage(input_tokens=3), None, Usage(input_tokens=4, output_tokens=1)])
    >>> both.input_tokens, both.output_tokens, both.total_tokens
    (7, 1, None)
    """
    reported = [usage for usage in usages if usage is not None]
    if not reported:
        return None
    sums: dict[str, Any] = {}
    for name in Usage.__struct_fields__:
        found = [value for usage in reported if (value := getattr(usage, name)) is not None]
        if not found:
            continue
        if name == "server_tool_requests":
            sums[name] = FrozenDict({tool: sum(one.get(tool, 0) for one in found) for one in found for tool in one})
        elif name == "service_tier":
            sums[name] = found[-1]
        elif name == "reported_cost" and len(found) < len(usages if none_is_unknown else reported):
            continue
        else:
            sums[name] = sum(found)
    return Usage(**sums)


def add_costs(costs: Sequence[Cost | None], *, none_is_unknown: bool = False) -> Cost | None:
    """Sum the costs. None if none is known, or the currencies differ.

    It is an estimate if one of them is. What the providers themselves say is summed only if all of them say it: a part
    of it would look like the whole. ``none_is_unknown``: a None stands for a cost that is not known, and not for none
    at all; the sum is then an estimate.
    """
    known = [cost for cost in costs if cost is not None]
    if not known or len({cost.currency for cost in known}) > 1:
        return None
    reported = [cost.reported for cost in known if cost.reported is not None]
    count = len(costs) if none_is_unknown else len(known)
    return Cost(
        amount=sum(cost.amount for cost in known),
        currency=known[0].currency,
        is_estimate=len(known) < count or any(cost.is_estimate for cost in known),
        reported=sum(reported) if len(reported) == count else None,
        source="provider" if all(cost.source == "provider" for cost in known) else "prices",
    )


def joined(pieces: Sequence[Outcome]) -> Outcome:
    """Combine the pieces of one message, between which the provider paused (Anthropic's ``pause_turn``).

    Text, calls and blocks are those of all pieces; all else is that of the last one.
    """
    if len(pieces) == 1:
        return pieces[0]
    blocks: list[ProviderBlock] = []
    at = calls = 0
    for piece in pieces:
        blocks += (
            msgspec.structs.replace(one, at=one.at + at, calls=one.calls + calls) for one in piece.provider_blocks
        )
        at += len(piece.text)
        calls += sum(not call.is_server for call in piece.tool_calls)
    return msgspec.structs.replace(
        pieces[-1],
        text="".join(piece.text for piece in pieces),
        reasoning="".join(piece.reasoning for piece in pieces),
        tool_calls=tuple(call for piece in pieces for call in piece.tool_calls),
        reasoning_blocks=tuple(block for piece in pieces for block in piece.reasoning_blocks),
        provider_blocks=tuple(blocks),
    )


def all_rounds(rounds: Sequence[Outcome]) -> Outcome:
    """Combine the rounds: finish reason, metadata and choices of the last one; calls, usage, cost and text of all.

    The provider blocks are those of the last round, since they are counted from its start. Blocks, calls and text from
    before a reset are left out; calls are complete only at the end of their round, so the last one has all of them.
    """
    if not rounds:
        return Outcome()
    last = rounds[-1]
    valid = [one for one in rounds if not one.is_void]
    return Outcome(
        finish_reason=last.finish_reason,
        raw_finish_reason=last.raw_finish_reason,
        tool_calls=tuple(call for one in valid for call in one.tool_calls),
        usage=add_usages([one.usage for one in rounds], none_is_unknown=True),
        model=next((one.model for one in reversed(rounds) if one.model), None),
        provider=next((one.provider for one in reversed(rounds) if one.provider), None),
        reasoning_blocks=tuple(block for one in valid for block in one.valid_reasoning_blocks()),
        choices=last.choices,
        cost=add_costs([one.cost for one in rounds], none_is_unknown=True),
        provider_blocks=last.valid_provider_blocks(),
        provider_metadata=last.provider_metadata,
        text="".join(one.text for one in valid),
        reasoning="".join(one.reasoning for one in valid),
    )
