"""Deltas: what a decoder makes of a response's bytes."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from penstock.errors import ProviderError
from penstock.events import FinishReason, ReasoningBlock, Usage

__all__ = [
    "ChoiceDelta",
    "Delta",
    "ErrorDelta",
    "FinishDelta",
    "KeepAlive",
    "ReasoningBlockDelta",
    "ReasoningDelta",
    "RefusalDelta",
    "TextDelta",
    "Thinking",
    "ToolCallFragment",
    "UsageDelta",
]


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer's text, never empty."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of the model's reasoning, never empty."""

    text: str


class RefusalDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of a refusal, never empty."""

    text: str


class ToolCallFragment(msgspec.Struct, frozen=True, gc=False):
    """A fragment of a function call. Fields that the fragment does not contain are None or empty."""

    index: int | None = None
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    is_server: bool = False
    signature: str = ""


class ReasoningBlockDelta(msgspec.Struct, frozen=True, gc=False):
    """A signed piece of reasoning is complete. Its text has already come as `ReasoningDelta`."""

    block: ReasoningBlock


class Thinking(msgspec.Struct, frozen=True, gc=False):
    """The model has begun to reason, possibly for a long time without output. Does not count as the first delta."""


class ChoiceDelta(msgspec.Struct, frozen=True, gc=False):
    """A delta of one of the further answers, if several were requested (``n`` > 1). ``index`` is at least 1."""

    index: int
    delta: TextDelta | ReasoningDelta | RefusalDelta | ToolCallFragment | FinishDelta


class UsageDelta(msgspec.Struct, frozen=True, gc=False):
    """Token counts so far; a later one replaces an earlier one."""

    usage: Usage


class FinishDelta(msgspec.Struct, frozen=True, gc=False):
    """The model has finished: the reason, and the provider's own word for it (``raw``)."""

    reason: FinishReason
    raw: str


class ErrorDelta(msgspec.Struct, frozen=True):
    """The provider reported an error inside the stream."""

    error: ProviderError


class KeepAlive(msgspec.Struct, frozen=True, gc=False):
    """A comment or ping: the connection is alive, but the answer has made no progress."""


Delta: TypeAlias = (
    TextDelta
    | ReasoningDelta
    | ReasoningBlockDelta
    | RefusalDelta
    | ToolCallFragment
    | ChoiceDelta
    | UsageDelta
    | FinishDelta
    | ErrorDelta
    | KeepAlive
    | Thinking
)
